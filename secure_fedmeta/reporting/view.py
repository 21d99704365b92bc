"""One view of a run for all forms of its report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from secure_fedmeta.reporting import claim, curves, outcome, record, summary
from secure_fedmeta.reporting.blocks import View
from secure_fedmeta.reporting.text import plain


def view(report: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> View:
    """What a report says, in order.

    Args:
        report: the content of report.json; under "assessment" that of assess.json, if there is one.
        records: the lines of metrics.jsonl.

    Returns:
        A view that depends on nothing else, so that equal input gives equal reports.
    """
    spent = summary.spent(report)
    return View(
        title=f"Privacy report: {plain(report['name'])}",
        subtitle=plain(str(report["audit"]["origin"]).rpartition("/")[2], 200),
        version=plain(report["product_version"]),
        banners=tuple(summary.banners(report)),
        sections=(
            summary.glance(report),
            outcome.trained(report),
            outcome.held_out(report),
            curves.curves(report, records),
            claim.claim(report, records),
            claim.budget(report),
            claim.adversaries(report),
            claim.unprotected(report),
            record.assessment(report.get("assessment")),
            record.facts(report, records),
            record.verification(report),
            record.signature(report, f"{spent.value} {spent.context}"),
        ),
    )
