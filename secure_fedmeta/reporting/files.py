"""A report's files: written once when a run ends, and rendered again on request."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final
from xml.etree.ElementTree import ParseError

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from secure_fedmeta.errors import RunDirectoryError
from secure_fedmeta.reporting.blocks import Figure, Grid, View
from secure_fedmeta.reporting.view import view
from secure_fedmeta.results import METRICS, read_assessment, read_report

HTML: Final = "report.html"
MARKDOWN: Final = "report.md"
_LOADER = PackageLoader("secure_fedmeta.reporting")
_SPECIAL = re.compile(r"([\\`*_\[\]<>&|~$#@!])|(?<=:)(//)|(?i:(?<=www)(\.))")
_LINE_START = re.compile(r"^(\s*)([-+=:])")
_NUMBERED = re.compile(r"^(\s*\d+)([.)])(?=\s|$)")


def render(report: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> Mapping[str, str]:
    """Both forms of a report: file name -> text. Equal input gives equal text.

    Args:
        report: the content of report.json; under "assessment" that of assess.json, if there is one.
        records: the lines of metrics.jsonl.
    """
    seen = view(report, records)
    css = _LOADER.get_source(_html(), "report.css")[0]
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    html = (
        _html()
        .get_template("report.html.j2")
        .render(view=seen, css=css, style_hash=f"sha256-{digest}", captions=_captions(seen))
    )
    text = _markdown().get_template("report.md.j2").render(view=seen)
    return {HTML: html, MARKDOWN: re.sub(r"\n{3,}", "\n\n", text)}


def write_reports(
    directory: Path, found: Mapping[str, Any], records: Sequence[Mapping[str, Any]]
) -> tuple[str, ...]:
    """Write report.html and report.md of a run that ends.

    Args:
        directory: the run directory.
        found: the content of report.json.
        records: the lines of metrics.jsonl.

    Returns:
        The names of the files written, for the log.
    """
    for name, text in render(found, records).items():
        (directory / name).write_text(text, encoding="utf-8")
    return (HTML, MARKDOWN)


def render_again(directory: Path, targets: Mapping[str, Path]) -> None:
    """Render a run's report anew, with the assessment that was made since, if there is one.

    Args:
        directory: the run directory.
        targets: form (HTML or MARKDOWN) -> the file to write.

    Raises:
        RunDirectoryError: the run left no report that this version reads, a target cannot be
            written, or it is a file of the run directory that the log vouches for.
    """
    if not targets:
        return
    if len({path.resolve() for path in targets.values()}) < len(targets):
        raise RunDirectoryError("name a file of its own for each form of the report")
    report = read_report(directory)
    assessment = read_assessment(directory)
    if assessment is not None:
        report["assessment"] = assessment
    try:
        texts = render(report, read_records(directory))
    except (
        LookupError,
        TypeError,
        AttributeError,
        ValueError,
        ArithmeticError,
        ParseError,
    ) as error:
        raise RunDirectoryError(
            f"{directory} holds a report that this version cannot show ({error!r}): show it with "
            f"secure-fedmeta {report.get('product_version')}, which wrote it"
        ) from error
    for form, path in targets.items():
        _write_beside(directory, path, texts[form])


def read_records(directory: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl.

    Raises:
        RunDirectoryError: it cannot be read.
    """
    path = directory / METRICS
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]
    except (OSError, ValueError) as error:
        raise RunDirectoryError(f"{path} cannot be read as JSON lines: {error}") from error


def _write_beside(directory: Path, path: Path, text: str) -> None:
    """Write a report, unless that would change a file that the run left."""
    content = text.encode("utf-8")
    try:
        if path.exists() and _left_by_the_run(directory, path) and path.read_bytes() != content:
            raise RunDirectoryError(
                f"{path} was left by the run, whose log vouches for its files, and what would be "
                "written now differs: give another name, such as again.html"
            )
        path.write_bytes(content)
    except OSError as error:
        raise RunDirectoryError(f"{path} cannot be written ({error.strerror})") from error


def _left_by_the_run(directory: Path, path: Path) -> bool:
    """Whether a file of the run directory is any but a report that was rendered again."""
    target, home = path.resolve(), directory.resolve()
    again = target.suffix in (".html", ".md") and target.name not in (HTML, MARKDOWN)
    exported = [directory / name for name in (HTML, MARKDOWN)]
    linked = any(one.exists() and path.samefile(one) for one in exported)
    return linked or (target.is_relative_to(home) and not again)


def _captions(seen: View) -> dict[str, int]:
    """Caption -> its number; tables have no other name that is fit for an id."""
    blocks = [block for section in seen.sections for block in section.blocks]
    grids = [b.data if isinstance(b, Figure) else b for b in blocks if isinstance(b, Figure | Grid)]
    return {grid.caption: number for number, grid in enumerate(grids, 1)}


@lru_cache(maxsize=1)
def _html() -> Environment:
    found = Environment(
        loader=_LOADER, autoescape=True, undefined=StrictUndefined, trim_blocks=False
    )
    found.filters["drawn"] = Markup
    return found


@lru_cache(maxsize=1)
def _markdown() -> Environment:
    """Every expression is escaped for Markdown as it is put out."""
    found = Environment(
        loader=_LOADER,
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalized,
    )
    found.filters["drawn"] = Markup
    return found


def _finalized(value: object) -> Markup:
    """What an expression puts out: macros as they are, anything else escaped."""
    return value if isinstance(value, Markup) else Markup(escaped(str(value)))  # noqa: S704


def escaped(text: str) -> str:
    """Text that Markdown shows as it is: no tag, link, table cell, heading or list begins in it."""
    shown = _SPECIAL.sub(lambda found: "\\" + found.group(0), text)
    return _NUMBERED.sub(r"\1\\\2", _LINE_START.sub(r"\1\\\2", shown))
