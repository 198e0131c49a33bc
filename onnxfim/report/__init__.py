"""Formats of an audit: each renders the one `Audit` object."""

from onnxfim.report.html import render_bounds_html, render_html

__all__ = ["render_bounds_html", "render_html"]
