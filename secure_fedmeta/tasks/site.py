"""Where a source is read: what it takes from its surroundings, beside its options.

Options stand in the config, are public and the same for everybody. What differs from machine to
machine, or must stay there, comes by way of the site.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from secure_fedmeta import state


def _kept_secret() -> bytes:
    return state.block_secret(os.urandom)


@dataclass(frozen=True)
class Site:
    """A folder and a secret.

    Attributes:
        folder: where relative paths in options start, which is the config's own folder.
        block_secret: gives the 32 bytes that key the blocks of confidential records. The same in
            every run, so that a record stays in its task; asked for by sources that need it alone.
    """

    folder: Path = Path()
    block_secret: Callable[[], bytes] = field(default=_kept_secret, repr=False)
