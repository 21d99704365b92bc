"""`python -m audit DIR`: verify a log without the product that wrote it (and without torch).

Exit codes: 0 verified, 1 not verified or trusted by nobody's key, 2 bad usage.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from audit.errors import VerificationFailed
from audit.replay import LOG
from audit.spend import SpendChecker
from audit.verify import Verified, verify_log


def main(arguments: Sequence[str] | None = None) -> int:
    """Verify the log that the arguments name, print the outcome, return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m audit", description="Verify an audit log.")
    parser.add_argument("directory", type=Path, help="the log's directory, or its run's")
    parser.add_argument("--vkey", help="the log's key, or a file that holds it")
    parser.add_argument("--pinned", type=Path, help="a checkpoint that you kept")
    parser.add_argument("--unpinned", action="store_true", help="accept a log without any key")
    parser.add_argument("--no-spend", action="store_true", help="do not recompute the spend")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    if options.pinned is not None and options.vkey is None:
        parser.error("--pinned needs --vkey, the key that signed it")
    try:
        vkey = None if options.vkey is None else _text_or_file(options.vkey)
        pinned = None if options.pinned is None else options.pinned.read_bytes()
    except (OSError, UnicodeDecodeError) as error:
        parser.error(str(error))
    directory = options.directory
    if not (directory / LOG).exists() and (directory / "audit" / LOG).exists():
        directory = directory / "audit"
    spend = None if options.no_spend else SpendChecker()
    try:
        verified = verify_log(directory, vkey=vkey, pinned=pinned, spend=spend)
    except VerificationFailed as failure:
        if options.json:
            print(json.dumps({"ok": False, "index": failure.index, "reason": failure.reason}))
        else:
            print(f"FAILED  {failure}")
        return 1
    accepted = verified.trust != "none" or options.unpinned
    if options.json:
        print(json.dumps({"ok": accepted, **verified.to_json()}))
    else:
        _show(verified, accepted)
    return 0 if accepted else 1


def _show(verified: Verified, accepted: bool) -> None:
    print(f"log      {verified.origin}, {verified.size} entries, root {verified.root.hex()}")
    print(f"rounds   {verified.released} released, {verified.aborted} aborted")
    for sentence in verified.standing():
        print(f"         {sentence}")
    if verified.not_private:
        print("         NOT PRIVATE: this run used a fixed seed")
    print(f"trust: {verified.trust}")
    for sentence in verified.not_checked:
        print(f"not checked: {sentence}")
    if accepted:
        print("verified")
    else:
        print("REFUSED  no key was given; pass --vkey, or --unpinned to accept that")


def _text_or_file(value: str) -> str:
    """A key given as text, which always holds a `+`, or the content of the file named."""
    path = Path(value)
    return path.read_text("utf-8").strip() if path.is_file() else value


if __name__ == "__main__":
    sys.exit(main())
