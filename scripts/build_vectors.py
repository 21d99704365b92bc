"""Write the frozen vectors of tests/vectors again, from the code as it is.

A vector that changes is a format that changes: look at the difference before committing it. All
randomness is injected. The one that cannot be, of ML-KEM's encapsulation, is drawn once and kept in
encapsulations.json; what is missing there is drawn here, what is no longer used is taken out.

    python scripts/build_vectors.py
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    """Write every file; print those that changed."""
    sys.path.insert(0, str(ROOT))
    from tests.vectors import FORMATS
    from tests.vectors.encapsulations import Encapsulations

    with Encapsulations.drawing():
        files = {path: text for one in FORMATS for path, text in one.files().items()}
    for path, text in files.items():
        if not path.exists() or path.read_text() != text:
            print(f"changed: {path.relative_to(ROOT)}")
            path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
