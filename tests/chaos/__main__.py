"""Kill runs, or fill their disks; count what was lost; exit 1 unless it is nothing."""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from tests.chaos.campaign import Campaign
from tests.chaos.full import FullDisks
from tests.chaos.judge import FAULTS
from tests.chaos.plants import PLANTS
from tests.chaos.scenarios import SCENARIOS
from tests.chaos.tmpfs import on_small_disks


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=50, help="processes to kill")
    parser.add_argument("--only", type=int, metavar="K", help="run number K of this seed alone")
    parser.add_argument("--plants", action="store_true", help="see planted bugs noticed, too")
    parser.add_argument("--full", type=int, metavar="N", help="have no room from N calls on, too")
    parser.add_argument("--tmpfs", type=int, metavar="N", help="fill N small disks, too")
    parser.add_argument("--seed", type=int, help="of moments and choices; default: a new one")
    parser.add_argument("--scenario", choices=sorted(SCENARIOS), action="append")
    parser.add_argument("--json", action="store_true", help="one line of JSON at the end")
    asked = parser.parse_args()
    seed = asked.seed if asked.seed is not None else int.from_bytes(os.urandom(4))
    folder = Path(tempfile.mkdtemp(prefix="chaos-")).resolve()
    began = time.monotonic()

    def announce(line: str) -> None:
        print(f"seed {seed} {line}", file=sys.stderr, flush=True)

    chosen = tuple(SCENARIOS[name] for name in asked.scenario or SCENARIOS)
    campaign = Campaign(folder, seed, scenarios=chosen, announce=announce)
    if asked.only is None:
        campaign.kill(asked.kills)
    else:
        campaign.one(asked.only)
    found = campaign.tally.to_json()
    if asked.plants:
        found["plants"] = _plants(campaign)
    if asked.full is not None:
        campaign.warm(disk := SCENARIOS["masking"])
        disks = FullDisks(folder, disk, announce)
        disks.at_calls(asked.full, seed)
        found["full"] = disks.to_json()
    if asked.tmpfs is not None:
        found["tmpfs"] = on_small_disks(asked.tmpfs, announce)
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    found |= {
        "seed": seed,
        "seconds": round(time.monotonic() - began, 1),
        "cpu_seconds": round(sum(one.ru_utime + one.ru_stime for one in used), 1),
    }
    if asked.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name}: {value}")
    if _sound(found):
        shutil.rmtree(folder)
        return 0
    print(f"what is left of the runs is in {folder}", file=sys.stderr)
    return 1


def _sound(found: dict[str, Any]) -> bool:
    """Whether nothing was lost, nothing failed, and every planted bug was noticed."""
    parts = [found, found.get("full", {}), found.get("tmpfs", {})]
    plants = found.get("plants", {}).values()
    return all(not part.get(name) for part in parts for name in FAULTS) and all(
        not one["without"] and one["with"].get(one["expected"]) for one in plants
    )


def _plants(campaign: Campaign) -> dict[str, Any]:
    """Each planted bug and what it was counted as; the same kills without it, too."""
    found: dict[str, Any] = {}
    for name, planted in PLANTS.items():
        scenario = SCENARIOS[planted.scenario]
        label = name.replace(" ", "-")
        bare = campaign.strike(scenario, planted.kills, f"no-{label}")
        bugged = campaign.strike(scenario, planted.kills, label, plant=planted.plant)
        found[name] = {
            "expected": planted.fault,
            "without": dict(bare.counts),
            "with": dict(bugged.counts),
        }
    return found


if __name__ == "__main__":
    sys.exit(main())
