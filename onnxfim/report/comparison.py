"""A comparison of several audits as one HTML page that needs no network and no script."""

from __future__ import annotations

from onnxfim.report.comparison_page import build_comparison_page
from onnxfim.report.html import POLICY_INLINE, environment, style_sheet
from onnxfim.verdict.comparison import Comparison


def render_comparison_html(comparison: Comparison) -> str:
    """The page of ``comparison`` as HTML text.

    Raises:
        OutputError: the templates are missing from the installation.
    """
    page = build_comparison_page(comparison)
    return environment().get_template("compare.html.j2").render(page=page, policy=POLICY_INLINE, style=style_sheet())
