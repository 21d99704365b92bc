"""What was spent, against whom it protects, and what is not protected."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from secure_fedmeta.reporting import figures
from secure_fedmeta.reporting.blocks import Block, Bullets, Facts, Grid, Prose, Section, Subheading
from secure_fedmeta.reporting.summary import holds
from secure_fedmeta.reporting.text import (
    at_most,
    count,
    epsilon,
    percent,
    plain,
    sentence,
    words,
)
from secure_fedmeta.unprotected import NOT_DEFENDED

_MOST: Final = 30
_COMPARED: Final = {
    "add_remove": "with the unit as without it",
    "replace_one": "with one unit as with another in its place",
    "zero_out": "with what the unit sent as with zero in its place",
}
"""What the two inputs of the bound are, by relation."""
_REFERENCE: Final = "gaussian_reference_"
_SEES_ALL = ("aggregator", "aggregator_and_colluders")


def claim(report: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> Section:
    """Epsilon over rounds and in the end, for each adversary."""
    privacy = report["privacy"]
    lead = (
        "Epsilon bounds how much one unit can change what is seen: whatever is observed is at most "
        f"e^epsilon times as likely {_COMPARED[privacy['relation']]}, up to delta = "
        f"{privacy['delta']:g}. The unit here is {plain(privacy['unit_in_words'], 400)}."
    )
    if not holds(report):
        lead += " The figures of this run are not bounds: read the warning at the top."
    blocks: list[Block] = [Prose(lead, lead=True)]
    unbounded = {
        name for name, row in report["adversaries"].items() if row["epsilon"][row["claim"]] is None
    }
    title = "Epsilon over rounds, by adversary"
    if report["not_private"]:
        title += ": does not hold, the run is not private"
    curve = figures.epsilon_curve(records, unbounded, title)
    blocks.append(Prose("No round was released.") if curve is None else curve)
    blocks += [_by_adversary(report), *_other_methods(report)]
    blocks.append(
        Facts(
            [
                ("Mechanism", sentence(privacy["mechanism"])),
                ("Who takes part", sentence(privacy["sampler"])),
                ("What precision costs", sentence(report["distortion"]["verdict"])),
                ("Clip bound", _clip(report)),
            ]
        )
    )
    blocks += [
        Subheading("What these figures assume"),
        Bullets(at_most(map(sentence, privacy["caveats"]), _MOST, "assumptions")),
    ]
    return Section("epsilon", "What privacy was spent", blocks)


def _by_adversary(report: Mapping[str, Any]) -> Grid:
    k = report["privacy"]["person_units"]
    return Grid(
        caption=(
            "Epsilon by adversary: does not hold, the run is not private"
            if report["not_private"]
            else "Epsilon by adversary, the claim"
        ),
        head=("against", f"one {report['privacy']['unit']}", "one record replaced",
              f"a person, k = {k}"),
        rows=[
            (
                words(name),
                epsilon(row["epsilon"][row["claim"]]),
                epsilon(row["record"]),
                epsilon(row["person"]),
            )
            for name, row in report["adversaries"].items()
        ],
        note=(
            "The budget limits the first column of the first four. Broken sum: what would be left "
            f"if the secure sum failed. A person: somebody who makes up {count(k, 'whole unit')}."
        ),
    )  # fmt: skip


def _other_methods(report: Mapping[str, Any]) -> Iterator[Block]:
    rows = report["adversaries"]
    methods = dict.fromkeys(
        method for row in rows.values() for method in row["epsilon"] if method != row["claim"]
    )
    compared = any(method.startswith(_REFERENCE) for method in methods)
    if methods:
        yield Grid(
            caption="The same noise if it were Gaussian, for comparison only"
            if compared
            else "The same noise by other accountants",
            head=("against", *(words(m.removeprefix(_REFERENCE)) for m in methods)),
            rows=[
                (
                    words(n),
                    *(epsilon(r["epsilon"][m]) if m in r["epsilon"] else "" for m in methods),
                )
                for n, r in rows.items()
            ],
            note="No statement about this run: what other accountants say about Gaussian noise of "
            "the same relative size."
            if compared
            else "The noise of this run is Gaussian. The claim is the figure in the table above.",
        )


def _clip(report: Mapping[str, Any]) -> str:
    clip = report["clip"]
    if clip["first"] is None:
        return "no round was released"
    if clip["quantile"] is None:
        return f"{clip['first']:.4g} in every round"
    return (
        f"from {clip['first']:.4g} to {clip['last']:.4g}, moved towards "
        f"{percent(clip['quantile'])} of the units by a noised count"
    )


def budget(report: Mapping[str, Any]) -> Section:
    """Whose budget was spent, who granted it, and what is left."""
    found = report["budget"]
    more = found["affordable_rounds"]
    left = {
        None: "It is not known how many more rounds fit.",
        "nothing": "The grants set no limit to further rounds like the last one.",
        "turns": f"Clients have turns for at most {more} more like the last one.",
        "grants": f"{more} more like the last one fit.",
    }[found["limited_by"]]
    lead = (
        f"The population {plain(found['population'])} was charged "
        f"{count(found['charged'], 'round')} in all its runs ({plain(found['filter'])}). {left}"
    )
    grid = Grid(
        caption="Grants and what was spent of them",
        head=("limits", "granted", "spent", "remaining", "approver", "until"),
        rows=[
            (
                "the worst of the first four" if row["adversary"] == "worst"
                else words(row["adversary"]),
                f"{row['granted']:g}",
                epsilon(row["spent"]),
                f"{row['remaining']:.3f}",
                plain(row["approver"]),
                "for ever" if row["expires"] is None else plain(row["expires"]),
            )
            for row in found["grants"][:_MOST]
        ],
        words=frozenset({0, 4, 5}),
        note="Nothing refunds a charge: not an abort, not a restored backup, not a later grant.",
    )  # fmt: skip
    return Section("budget", "Budget and grants", [Prose(lead, lead=True), grid])


def adversaries(report: Mapping[str, Any]) -> Section:
    """Who could see what, in words."""
    secure, hidden = report["secure_sum"], report["secure_sum"]["capabilities"]["hides_updates"]
    promise = secure["capabilities"]
    rows = []
    for name, row in report["adversaries"].items():
        text = sentence(row["description"])
        if not hidden and name in _SEES_ALL:
            text += " In this run it saw every single update as well."
        rows.append((words(name).capitalize(), text))
    lead = (
        f"The secure sum was {plain(secure['protocol'])}. Single updates stay hidden from an "
        f"aggregator that is {_worst(promise['aggregator'])}, and from clients that are "
        f"{_worst(promise['clients'])}. May work together: {plain(promise['collusion'], 300)}."
        if hidden
        else f"The secure sum was {plain(secure['protocol'])}, which hides nothing from the "
        "aggregator."
    )
    if report["not_private"]:
        lead += " None of it holds against whoever knows the seed."
    blocks: list[Block] = [Prose(lead, lead=True), Facts(rows)]
    if promise["notes"]:
        blocks += [
            Subheading("What the secure sum does not promise"),
            Bullets(at_most(map(sentence, promise["notes"]), _MOST, "notes")),
        ]
    return Section("adversaries", "Who could see what", blocks)


def _worst(behaviour: str) -> str:
    """The strongest party that a protocol withstands, in words."""
    if behaviour == "malicious":
        return "malicious, which may send whatever it likes"
    return f"{plain(behaviour)}, which keeps to the protocol and looks at all that it gets"


def unprotected(report: Mapping[str, Any]) -> Section:
    """What is shown in the open, and what nothing here defends against."""
    lead = "No noise and no encryption covers the following. It is part of what is signed below."
    return Section(
        "unprotected",
        "What is not protected",
        [
            Prose(lead, lead=True),
            Subheading("Shown in the open by this run"),
            Bullets(at_most(map(sentence, report["privacy"]["unprotected"]), _MOST, "such things")),
            Subheading("Not defended against"),
            Bullets(NOT_DEFENDED),
        ],
    )
