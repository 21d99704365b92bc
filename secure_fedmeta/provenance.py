"""Which code and which package versions ran: digests for the log's first entry."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib import import_module
from importlib.metadata import distributions
from pathlib import Path

_PACKAGES = ("audit", "crypto", "privacy", "secure_fedmeta")


def code_digest() -> bytes:
    """SHA-256 over path and content of every source file of the product's packages."""
    hashed = hashlib.sha256(b"fedmeta/code/v1\n")
    for package in _PACKAGES:
        root = Path(str(import_module(package).__file__)).parent
        for path in sorted(root.rglob("*.py")):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            hashed.update(f"{package}/{path.relative_to(root).as_posix()} {content}\n".encode())
    return hashed.digest()


@lru_cache(maxsize=1)
def environment_digest() -> bytes:
    """SHA-256 over `name==version` of every distribution that is installed; read once a process."""
    found = {f"{d.metadata['Name'].lower()}=={d.version}" for d in distributions()}
    return hashlib.sha256("\n".join(sorted(found)).encode()).digest()
