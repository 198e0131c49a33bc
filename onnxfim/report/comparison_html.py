"""A comparison of several audits as one HTML page that needs no network, and is whole without its script."""

from __future__ import annotations

from pathlib import Path

from onnxfim.report.assets import placed
from onnxfim.report.html import render
from onnxfim.report.page.comparison_page import build_comparison_page
from onnxfim.verdict.comparison import Comparison


def render_comparison_html(comparison: Comparison, *, assets_dir: str | Path | None = None, script: bool = True) -> str:
    """The page of ``comparison`` as HTML text.

    Args:
        comparison: What is to be shown.
        assets_dir: Where to write the style sheet, for hosts that block inline styles. None puts it into the page.
        script: Whether the page has the script that sorts, filters and searches its tables. It is whole without.

    Raises:
        OutputError: ``assets_dir`` cannot be written, or the templates are missing from the installation.
    """
    page = build_comparison_page(comparison)
    return render("compare.html.j2", placed(assets_dir), script=script, title=page.title, page=page, running=page.running)
