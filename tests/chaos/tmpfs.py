"""A disk that is really small: a tmpfs that nobody else sees, filled until a run has no room.

`on_small_disks` starts this module as a program inside a mount namespace of its own.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.chaos.campaign import Campaign
from tests.chaos.full import FullDisks
from tests.chaos.scenarios import SCENARIOS

SIZE = "16m"
ROOT = Path(__file__).parents[2]


def on_small_disks(sizes: int, announce: Callable[[str], None]) -> dict[str, Any]:
    """Fill so many disks, from one with no room at all to one that is almost large enough.

    Returns:
        What was found; `skipped` with the reason where this machine lets nobody mount a tmpfs.
    """
    with tempfile.TemporaryDirectory(prefix="chaos-disk-") as folder:
        mount = f"mount -t tmpfs -o size={SIZE} chaos {shlex.quote(folder)}"
        inside = ["unshare", "-rm", "sh", "-c"]
        try:
            able = subprocess.run([*inside, mount], capture_output=True, text=True, check=False)
        except FileNotFoundError as error:
            return {"skipped": str(error)}
        if able.returncode:
            return {"skipped": able.stderr.strip() or f"unshare exits with {able.returncode}"}
        program = shlex.join([sys.executable, "-m", "tests.chaos.tmpfs", folder, str(sizes)])
        done = subprocess.run(
            [*inside, f"{mount} && exec {program}"],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            cwd=ROOT,
        )
    found: dict[str, Any] = json.loads(done.stdout)
    for line in found.pop("lines"):
        announce(line)
    return found


def main() -> None:
    """Fill the disk that the first argument names, as often as the second one says."""
    folder, sizes = Path(sys.argv[1]).resolve(), int(sys.argv[2])
    lines: list[str] = []
    scenario = SCENARIOS["masking"]
    Campaign(folder, 0).warm(scenario)
    disks = FullDisks(folder, scenario, lines.append)
    disks.with_pages([part / sizes for part in range(sizes)])
    sys.stdout.write(json.dumps(disks.to_json() | {"lines": lines}))


if __name__ == "__main__":
    main()
