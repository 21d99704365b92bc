"""A page in which nothing is to be found, and defects to put into it, one at a time."""

from __future__ import annotations

from dataclasses import dataclass

from tests.browser.chromium import Look
from tests.browser.inspection import NARROW, PAPER, REFLOW, WIDE

LIGHT, DARK = Look("light", WIDE), Look("dark", WIDE)
PHONE, DARK_PHONE = Look("light", NARROW), Look("dark", NARROW)
REFLOWED = Look("light", REFLOW)
PRINT, DARK_PRINT = Look("light", PAPER, "print"), Look("dark", PAPER, "print")

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>A page</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root { color-scheme: light dark; --ink: #222; --paper: #fff; --link: #0645ad; }
@media (prefers-color-scheme: dark) { :root { --ink: #eee; --paper: #111; --link: #8ab4f8; } }
body { color: var(--ink); background: var(--paper); margin: 1rem; }
a { color: var(--link); }
.wide { overflow-x: auto; }
text { fill: var(--ink); }
@media print {
  :root { --ink: #000; --paper: #fff; --link: #000; }
}
/* more style */
</style>
</head>
<body>
<main>
<h1>A page</h1>
<p id="text">Some text with a <a href="#more">link to more</a>.</p>
<img alt="a dot" src="data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg'/>">
<svg role="img" aria-label="drawn" width="90" height="20"><text y="15">drawn</text></svg>
<h2 id="more">More</h2>
<details><summary>Figures</summary>
<div class="wide" tabindex="0" role="region" aria-label="figures">
<table><caption>Figures</caption>
<thead><tr><th scope="col">client</th><th scope="col">score</th></tr></thead>
<tbody><tr><th scope="row">a</th><td>0.5</td></tr></tbody></table></div>
<p>And a <a href="#text">link back</a>.</p>
</details>
<!-- more body -->
</main>
</body>
</html>
"""


@dataclass(frozen=True)
class Defect:
    """One change that makes the page bad.

    Attributes:
        old: what is replaced.
        new: what stands there instead.
        question: where it has to be found: a key of Inspection.findings, without its look.
        words: what has to be said of it.
        look: where it is seen.
    """

    old: str
    new: str
    question: str
    words: str
    look: Look = LIGHT

    def planted(self) -> str:
        """The page with the defect. Raises ValueError where it has no such place."""
        if PAGE.count(self.old) != 1:
            raise ValueError(f"{self.old!r} is not in the page once")
        return PAGE.replace(self.old, self.new)


STYLE, BODY = "/* more style */", "<!-- more body -->"
UNBROKEN = "x" * 150

DEFECTS = {
    "a picture without words": Defect('alt="a dot" ', "", "axe", "image-alt"),
    "no language": Defect(' lang="en"', "", "axe", "html-has-lang"),
    "low contrast": Defect("--ink: #222", "--ink: #aaa", "axe", "color-contrast", PHONE),
    "low contrast in the dark": Defect("--ink: #eee", "--ink: #444", "axe", "color-contrast", DARK),
    "low contrast on paper": Defect(
        "--ink: #000", "--ink: #bbb", "axe", "color-contrast", DARK_PRINT
    ),
    "contrast that nobody can tell": Defect(
        STYLE, "#text { background: linear-gradient(#fff, #000); }", "axe", "undecided"
    ),
    "low contrast in a drawing": Defect(
        "fill: var(--ink)", "fill: #888", "drawings", "contrast 3.54: <text> drawn"
    ),
    "low contrast in a drawing in the dark": Defect(
        "fill: var(--ink)", "fill: #222", "drawings", "<text> drawn", DARK
    ),
    "text beyond a drawing": Defect(
        '<text y="15">', '<text x="70" y="15">', "drawings", "cut off by the drawing: <text> drawn"
    ),
    "text over text in a drawing": Defect(
        "</text>", '</text><text y="17">too</text>', "drawings", "<text> too is drawn over <text>"
    ),
    "a formula that is not set": Defect(
        ">drawn<", r">$\mathdefault{10}$<", "drawings", "not set: <text>"
    ),
    "a list of no items": Defect(BODY, "<ul><p>no item</p></ul>", "axe", "list"),
    "a script": Defect(BODY, "<script>1</script>", "scripts", "<script>"),
    "a handler": Defect('<p id="text">', '<p id="text" onclick="1">', "scripts", "onclick"),
    "a script that fails": Defect(BODY, "<script>no.no</script>", "console", "Uncaught"),
    "a script that warns": Defect(
        BODY, "<script>console.warn('look')</script>", "console", "warning: look"
    ),
    "text that a script writes": Defect(
        BODY, "<script>document.body.append('late')</script>", "without scripts", "otherwise"
    ),
    "a remote picture": Defect(
        BODY, '<img alt="x" src="https://example.org/x.png">', "requests", "https://example.org/x"
    ),
    "a remote picture by address": Defect(
        BODY, '<img alt="x" src="http://192.0.2.1/x.png">', "console", "ERR_"
    ),
    "a remote style": Defect(
        "<style>", "<style>@import url(https://example.org/x.css);", "requests", "example.org"
    ),
    "a remote font": Defect(
        STYLE,
        "@font-face { font-family: f; src: url(https://example.org/f.woff2) } body { font: 1em f }",
        "requests",
        "f.woff2",
    ),
    "a frame of another page": Defect(
        BODY,
        '<iframe title="x" src="https://example.org/frame"></iframe>',
        "requests",
        "example.org/frame",
    ),
    "a script that sends": Defect(
        BODY,
        "<script>navigator.sendBeacon('https://example.org/b', 'x')</script>",
        "requests",
        "example.org/b",
    ),
    "a file beside it": Defect(BODY, '<img alt="x" src="beside.png">', "requests", "beside.png"),
    "too wide a table": Defect(
        BODY, f"<table><tr><td>{UNBROKEN}</td></tr></table>", "overflow", "wide", PHONE
    ),
    "too wide for the smallest": Defect(
        BODY, '<div style="width: 340px">x</div>', "overflow", "beyond", REFLOWED
    ),
    "cut off": Defect(
        BODY,
        f'<p style="overflow: hidden">{UNBROKEN}</p>',
        "overflow",
        "cut off",
        DARK_PHONE,
    ),
    "a table cut off on paper": Defect(
        BODY,
        '<div class="wide" tabindex="0" role="region" aria-label="y"><table>'
        f"<tr><td>{UNBROKEN}</td></tr></table></div>",
        "overflow",
        "cut off",
        PRINT,
    ),
    "a heading left out": Defect(BODY, "<h4>deep</h4>", "headings", "skips"),
    "two titles": Defect(BODY, "<h1>Another</h1>", "headings", "more than one"),
    "focus that is not seen": Defect(
        STYLE, "a:focus { outline: none }", "keyboard", "not seen: <a>"
    ),
    "focus that is not seen in the dark": Defect(
        STYLE,
        "@media (prefers-color-scheme: dark) { summary:focus { outline: none } }",
        "keyboard",
        "not seen: <summary>",
        DARK,
    ),
    "an order of its own": Defect(
        '<a href="#text">', '<a href="#text" tabindex="1">', "keyboard", "out of order"
    ),
    "a box that scrolls beyond the keyboard": Defect(
        BODY,
        f'<div style="overflow: auto" tabindex="-1">{UNBROKEN}</div>',
        "axe",
        "scrollable-region-focusable",
        PHONE,
    ),
    "details that do not open": Defect(
        BODY,
        "<script>document.querySelector('summary').onclick = e => e.preventDefault()</script>",
        "keyboard",
        "Enter does nothing",
    ),
    "focus that is kept": Defect(
        BODY,
        "<script>onkeydown = e => e.target.tagName === 'A' && e.preventDefault()</script>",
        "keyboard",
        "never reached",
    ),
    "a book": Defect(BODY, "<p style='break-after: page'>x</p>" * 13, "sheets", "13 sheets"),
    "a heavy page": Defect(BODY, f"<!-- {'x' * 2_000_000} -->", "size", "bytes"),
}
