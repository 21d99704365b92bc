"""How the run went, what an assessment found, how to check all of it, and where to sign."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from secure_fedmeta.reporting.blocks import (
    Block,
    Bullets,
    Commands,
    Facts,
    Grid,
    Prose,
    Section,
    Signature,
    Subheading,
)
from secure_fedmeta.reporting.text import at_most, count, plain, sentence, size

_MOST: Final = 40
_PASSED: Final = {True: "passed", False: "FAILED", None: "not run"}


def facts(report: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> Section:
    """Rounds, survivors, bytes, times, protocol, versions and digests."""
    rounds, traffic, secure = report["rounds"], report["bytes_per_client"], report["secure_sum"]
    around, released = report["environment"], [r for r in records if r["status"] == "released"]
    rows = [
        ("Run", plain(report["audit"]["origin"], 200)),
        (
            "Rounds",
            (
                f"{rounds['planned']:,} planned, {rounds['completed']:,} released, "
                f"{rounds['aborted']:,} aborted"
            ),
        ),
        ("Survivors", _survivors(released)),
        (
            "Bytes per client",
            (
                f"{size(traffic['sent'])} sent and {size(traffic['received'])} received in the "
                f"mean; its protected vector takes {size(traffic['upload'])} in each round"
            ),
        ),
        ("Time", _time(report, released)),
        (
            "Secure sum",
            (
                f"{plain(secure['protocol'])}, {secure['ring_bits']} bits per value, "
                f"{_sharing(secure)}; {count(secure['unchecked_rounds'], 'round')} unchecked"
            ),
        ),
        ("Product", f"secure-fedmeta {plain(report['product_version'])}"),
        (
            "Surroundings",
            (
                f"Python {plain(around['python'])}, torch {plain(around['torch'])}, "
                f"{plain(around['system'])}, device {plain(around['device'])}"
            ),
        ),
        ("Config digest", plain(around["config_digest"])),
        ("Plan digest", plain(report["privacy"]["plan_digest"])),
        ("Code digest", plain(around["code_digest"])),
        ("Packages digest", plain(around["lock_digest"])),
    ]
    blocks: list[Block] = [Facts(rows)]
    if rounds["abort_reasons"]:
        blocks += [Subheading("Why rounds were aborted"), _reasons(rounds["abort_reasons"])]
    rejected = Counter[str]()
    for record in released:
        rejected.update(record.get("rejected", {}))
    if rejected:
        told = (f"{sentence(why)} ({count(n, 'message')})" for why, n in rejected.most_common())
        blocks += [Subheading("Messages refused"), Bullets(at_most(told, 20, "reasons"))]
    return Section("run", "How the run went", blocks)


def _survivors(released: Sequence[Mapping[str, Any]]) -> str:
    if not released:
        return "no round was released"
    fewest = min(released, key=lambda r: r["survivors"])
    full = sum(r["survivors"] == r["selected"] for r in released)
    return (
        f"every client asked was in the sum in {full:,} of {count(len(released), 'round')}; "
        f"fewest: {fewest['survivors']:,} of {fewest['selected']:,}"
    )


def _time(report: Mapping[str, Any], released: Sequence[Mapping[str, Any]]) -> str:
    whole = f"{report['seconds']['training']:,.1f} s of training, without evaluation and baseline"
    if not released:
        return whole
    return f"{whole}; {sum(r['seconds'] for r in released) / len(released):,.2f} s per round"


def _sharing(secure: Mapping[str, Any]) -> str:
    if not secure["capabilities"]["hides_updates"]:
        return "no secrets"
    if secure["committee"]:
        return f"{secure['committee_threshold']} of {count(secure['committee'], 'officer')} open it"
    return f"each secret shared with {secure['degree']:,}, {secure['threshold']:,} recover one"


def _reasons(reasons: Sequence[str]) -> Bullets:
    found = Counter(reasons).most_common()
    told = (f"{sentence(why)} ({count(n, 'round')})" for why, n in found)
    return Bullets(at_most(told, 20, "reasons"))


def assessment(found: Mapping[str, Any] | None) -> Section:
    """Whether the pipeline was put to the test, and how that went."""
    title = "Was the pipeline put to the test?"
    if found is None:
        told = Prose(
            "No. fedmeta assess runs copies of this pipeline against its own claim and leaves "
            "assess.json in the run directory; rendered again, this section shows what it found."
        )
        return Section("assessment", title, [told])
    outcome = "Everything passed" if found["passed"] else "It FAILED"
    planted = found["planted"]
    grid = Grid(
        caption="Checks of the assessment",
        head=("check", "outcome", "found", "looks for", "power"),
        rows=[
            (
                plain(check["name"]),
                _PASSED[check["passed"]],
                plain(check["found"], 300),
                plain(check["catches"], 300),
                "none" if check["power"] is None else f"{int(check['power'] * 1e4) / 1e4:.4f}",
            )
            for check in found["checks"][:_MOST]
        ],
        words=frozenset({0, 1, 2, 3}),
        note="Power: with what probability a check fails where the bug that it looks for is there.",
    )
    lead = (
        f"{outcome}. A right pipeline fails anything with probability "
        f"{found['false_alarm']:.2g} at most. It is evidence about a copy of the "
        "pipeline, no proof. No log vouches for it: it is what assess.json said."
    )
    if planted is not None:
        lead = f"A bug was planted in the assessed copy: {plain(planted)}. {lead}"
    return Section("assessment", title, [Prose(lead, lead=True), grid])


def verification(report: Mapping[str, Any]) -> Section:
    """The exact commands that check this run, and what they rest on."""
    audit = report["audit"]
    key, entries = plain(audit["vkey"], 300), int(audit["size"])
    run = plain(str(audit["origin"]).rpartition("/")[2], 200)
    quoted, where = shlex.quote(key), shlex.quote(f"runs/{run}")
    root = (
        f"head -n {entries} {where}/audit/log.jsonl | python -c 'import sys; from audit.merkle "
        'import leaf_hash, root_of; lines = sys.stdin.buffer.read().split(b"\\n")[:-1]; '
        'sys.stdout.write(root_of([leaf_hash(one) for one in lines]).hex() + "\\n")\''
    )
    return Section(
        "verify",
        "How to verify this report",
        [
            Prose(
                "The run wrote a signed log: every charge before it was spent, every release, and "
                "at its end the digests of its files, of this page too. Take the key from whoever "
                "answers for the run, by a way of its own: a key that comes with a report proves "
                "nothing about who wrote it.",
                lead=True,
            ),
            Facts(
                [
                    ("Key of the log", key),
                    ("Entries when this was written", f"{entries:,}"),
                    ("Merkle root over them", plain(audit["root"])),
                ]
            ),
            Subheading("Log, spend and files, with the product"),
            Commands([f"fedmeta verify {where} --key {quoted}"]),
            Subheading("The log alone, with the stand-alone verifier (no torch needed)"),
            Commands([f"python -m audit {where} --vkey {quoted}"]),
            Subheading("The root above, from the entries"),
            Commands([root]),
            Subheading("This page against the log's last entry"),
            Commands([f"sha256sum {where}/report.html", f"tail -n 1 {where}/audit/log.jsonl"]),
            Bullets(
                (
                    (
                        "A pin is the key and the latest signed head, kept outside of the run "
                        "directory. The machine that ran it has one. A log that was cut off or set "
                        "back shows only against a pin or a checkpoint that somebody kept; so keep "
                        "a copy of audit/checkpoint and give it to --pinned."
                    ),
                    (
                        "One entry follows those counted above: it holds the digests of this page "
                        "and of the other files, so the verified log has one entry more and "
                        "another root."
                    ),
                    (
                        "A page that was rendered again, with a later assessment say, is not the "
                        "one in the log. Only the exported report.html is."
                    ),
                )
            ),
        ],
    )


def signature(report: Mapping[str, Any], claim: str) -> Section:
    """What is decided on, and lines for whoever decides, to be filled in on paper.

    Args:
        report: the content of report.json.
        claim: the epsilon that was spent, as it stands at a glance.
    """
    return Section(
        "decision",
        "Decision",
        [
            Prose(
                "For the privacy officer. The signature is for this report as printed, with the "
                "digests above and what is not protected."
            ),
            Facts(
                [
                    ("Run", plain(report["audit"]["origin"], 200)),
                    ("Epsilon spent", claim),
                    ("Merkle root", plain(report["audit"]["root"])),
                ]
            ),
            Signature(
                lines=(
                    "Recipients",
                    "Conditions",
                    "Name",
                    "Function",
                    "Place and date",
                    "Signature",
                ),
                choices=(
                    "Release the model to the recipients named below",
                    "Release it with conditions",
                    "Do not release it",
                ),
            ),
        ],
    )
