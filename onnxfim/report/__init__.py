"""Formats of an audit: each renders the one `Audit` object, and decides nothing.

Where things live:
    formats: the formats by name; html, markdown, csv_samples, junit, sarif and comparison_html, comparison_markdown render them.
    vocabulary: the fixed words and signs, one table for each; words: what an audit means, in sentences; numbers: numbers and
        foreign text as they are printed. What a measure is called, and its place in tables, stand in `record.measures`.
    decisions: gates and the baseline as every format but the page reads them.
    page: every text and number of the HTML pages; charts: their charts as coordinates; `templates/` prints both.
    assets, thumbnails: where a page's style and pictures lie, and pictures as PNG files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnxfim.report.html import render_bounds_html, render_html

__all__ = ["render_bounds_html", "render_html"]


def __getattr__(name: str) -> Any:
    """A page's renderer, imported when it is asked for: what prints words alone waits for no templates."""
    if name in __all__:
        from onnxfim.report import html

        return getattr(html, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
