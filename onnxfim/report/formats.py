"""The formats an audit can be written in, by name; each renders the one `Audit`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import TypeAlias

from onnxfim.record.audit import Audit

Renderer: TypeAlias = Callable[[Audit], str]


@dataclass(frozen=True)
class Format:
    """A format: its name on the command line, what it is for, and where its renderer is (imported when it is used)."""

    name: str
    purpose: str
    module: str
    renderer: str

    def __call__(self, audit: Audit) -> str:
        """``audit`` in this format."""
        text: str = attrgetter(self.renderer)(import_module(self.module))(audit)
        return text


_LISTED = (
    Format("html", "page that needs no network", "onnxfim.report.html", "render_html"),
    Format("json", "everything, to be read back", "onnxfim.record.audit", "Audit.to_json"),
    Format("csv", "samples", "onnxfim.report.csv_samples", "render_csv"),
    Format("junit", "one case per gate and check", "onnxfim.report.junit", "render_junit"),
    Format("sarif", "findings for code hosts", "onnxfim.report.sarif", "render_sarif"),
    Format("markdown", "step summary", "onnxfim.report.markdown", "render_summary"),
    Format("comment", "pull request's comment", "onnxfim.report.markdown", "render_comment"),
    Format("gates", "suggested gates, a configuration file", "onnxfim.report.gates_toml", "render_gates"),
)

#: All formats by name.
FORMATS: dict[str, Format] = {f.name: f for f in _LISTED}


def renderers(assets_dir: str | Path | None = None) -> dict[str, Renderer]:
    """A renderer per format name; with ``assets_dir`` the page's style and pictures are written there, beside it."""
    found: dict[str, Renderer] = dict(FORMATS)
    if assets_dir is not None:
        from onnxfim.report.html import render_html

        found["html"] = partial(render_html, assets_dir=assets_dir)
    return found
