"""From a matplotlib figure to the content of an inline SVG element that fits a strict page.

A page whose policy allows no style attributes, and which changes colours with the reader's theme,
needs presentation attributes in place of `style`, the theme's variables in place of colours, and
ids that no other figure has.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Final
from xml.etree import ElementTree

import matplotlib as mpl
from matplotlib.figure import Figure as Drawing

INK: Final = "#010101"
MUTED: Final = "#020202"
RULE: Final = "#030303"
ACCENT: Final = "#040404"
PAPER: Final = "#050505"
_THEME: Final = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    RULE: "var(--rule)",
    ACCENT: "var(--accent)",
    PAPER: "var(--paper)",
}
"""The colours that figures are drawn in -> the page's own, light or dark."""
_STYLE = {
    "svg.hashsalt": "secure-fedmeta",
    "svg.fonttype": "none",  # real text, in the page's font; shown, never read as formula
    "text.parse_math": False,
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlecolor": MUTED,
    "axes.titlelocation": "left",
    "grid.color": RULE,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
}
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_FONT = ("font", "font-family", "font-style", "font-variant", "font-stretch")
_DROPPED = ("metadata", "title", "style")


def style() -> AbstractContextManager[None]:
    """The look of every figure; draw and convert inside it."""
    return mpl.rc_context(_STYLE)  # type: ignore[arg-type]  # its stubs list literal keys


def content(drawing: Drawing, prefix: str) -> tuple[str, str]:
    """The children of the figure's SVG element as markup, and its view box.

    Args:
        drawing: made in the colours of this module.
        prefix: stands before each id that is left.
    """
    file = io.BytesIO()
    drawing.savefig(file, format="svg", metadata={"Date": None}, transparent=True)
    root = ElementTree.fromstring(file.getvalue())  # noqa: S314  matplotlib wrote it just now
    _prune(root)
    wanted = set(_references(root))
    for element in root.iter():
        _rewrite(element, prefix, wanted)
    children = (ElementTree.tostring(child, encoding="unicode") for child in root)
    return "".join(line.strip() for line in "".join(children).splitlines()), root.attrib["viewBox"]


def _prune(element: ElementTree.Element) -> None:
    """Take out what only other viewers use, groups left without content included."""
    for child in list(element):
        name = _local(child.tag)
        _prune(child)
        empty = name in ("g", "defs") and len(child) == 0
        if name in _DROPPED or empty:
            element.remove(child)
        child.tail = None
        if name != "text":
            child.text = None


def _references(root: ElementTree.Element) -> Iterator[str]:
    for element in root.iter():
        for name, value in element.attrib.items():
            if _local(name) == "href":
                yield value.removeprefix("#")
            yield from _REFERENCE.findall(value)


def _rewrite(element: ElementTree.Element, prefix: str, wanted: set[str]) -> None:
    found: dict[str, str] = {}
    for key, value in element.attrib.items():
        name = _local(key)
        if name == "style":
            found |= _presentation(value)
        elif name == "id":
            if value in wanted:
                found["id"] = f"{prefix}-{value}"
        elif name == "href":
            found["href"] = f"#{prefix}-{value.removeprefix('#')}"
        elif name != "space":
            found[name] = _REFERENCE.sub(rf"url(#{prefix}-\1)", value)
    element.attrib.clear()
    element.attrib.update({name: _THEME.get(value, value) for name, value in found.items()})
    element.tag = _local(element.tag)


def _presentation(style: str) -> dict[str, str]:
    """The declarations of a style attribute as attributes, without the font's family."""
    found: dict[str, str] = {}
    for declaration in style.split(";"):
        name, _, value = (part.strip() for part in declaration.partition(":"))
        if name and name not in _FONT:
            found[name] = value
    return found


def _local(name: str) -> str:
    """A name without its namespace."""
    return name.rpartition("}")[2]
