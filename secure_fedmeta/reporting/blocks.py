"""What a report is made of: blocks that hold plain text, whatever they are shown as.

No block holds markup. Each form escapes all text that it is given, so that a name from the data or
from a ledger cannot become a tag, a link or a heading.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar


@dataclass(frozen=True)
class Prose:
    """One paragraph; `lead` where it sums up its section."""

    kind: ClassVar[str] = "prose"
    text: str
    lead: bool = False


@dataclass(frozen=True)
class Subheading:
    """A heading inside a section."""

    kind: ClassVar[str] = "subheading"
    text: str


@dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    kind: ClassVar[str] = "bullets"
    items: Sequence[str]


@dataclass(frozen=True)
class Facts:
    """Terms and what they are: (term, text)."""

    kind: ClassVar[str] = "facts"
    rows: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Key:
    """A figure at a glance.

    Attributes:
        label: what it is.
        value: the figure.
        context: against what it is to be read.
    """

    label: str
    value: str
    context: str


@dataclass(frozen=True)
class Keys:
    """The few figures that a reader wants first."""

    kind: ClassVar[str] = "keys"
    keys: Sequence[Key]


@dataclass(frozen=True)
class Grid:
    """A table.

    Attributes:
        caption: what it shows; no two tables of a report have the same.
        head: names of the columns; the first column names the rows.
        rows: as many cells as columns in each.
        words: columns that hold words and stand left; the others hold figures and stand right.
        note: what a reader has to know of it; empty: nothing.
    """

    kind: ClassVar[str] = "grid"
    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: frozenset[int] = frozenset({0})
    note: str = ""


@dataclass(frozen=True)
class Figure:
    """A drawing, and its numbers as a table.

    Attributes:
        name: prefix of its ids.
        title: what it shows.
        description: what is to be seen in it, in words, for those who do not see it.
        svg: the element's content, free of ids that another figure may have.
        view_box: of the SVG element.
        data: the same numbers.
    """

    kind: ClassVar[str] = "figure"
    name: str
    title: str
    description: str
    svg: str
    view_box: str
    data: Grid


@dataclass(frozen=True)
class Commands:
    """Lines for a shell, each quoted where it has to be."""

    kind: ClassVar[str] = "commands"
    lines: Sequence[str]


@dataclass(frozen=True)
class Signature:
    """Boxes to tick and lines to fill in by hand on paper."""

    kind: ClassVar[str] = "signature"
    lines: Sequence[str]
    choices: Sequence[str]


Block = Prose | Subheading | Bullets | Facts | Keys | Grid | Figure | Commands | Signature


@dataclass(frozen=True)
class Section:
    """A part of the report with a heading of its own; `anchor` names it in links."""

    anchor: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Banner:
    """What has to be known before any figure is read."""

    title: str
    text: str


@dataclass(frozen=True)
class View:
    """A report as both forms show it."""

    title: str
    subtitle: str
    version: str
    banners: Sequence[Banner]
    sections: Sequence[Section] = field(default_factory=tuple)
