"""The report for people: one view of report.json, metrics and assessment, as HTML and as Markdown.

`view.py` decides what is said, in blocks of plain text and figures; the templates only decide how a
block looks. So both forms hold the same figures, and none is computed twice.
"""

from secure_fedmeta.reporting.files import (
    HTML,
    MARKDOWN,
    render,
    render_again,
    write_reports,
)

__all__ = ["HTML", "MARKDOWN", "render", "render_again", "write_reports"]
