"""The formats an audit can be written in, by name; each renders the one `Audit`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeAlias

from onnxfim.record.audit import Audit

#: What makes a format: the text of a file, or those of the files of a folder by their names.
Renderer: TypeAlias = Callable[[Audit], "str | dict[str, str]"]


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
    Format("model-card", "Hugging Face model card", "onnxfim.report.model_card", "render_model_card"),
    Format("gates", "suggested gates, a configuration file", "onnxfim.report.gates_toml", "render_gates"),
)

#: All formats by name.
FORMATS: dict[str, Format] = {f.name: f for f in _LISTED}


@dataclass(frozen=True)
class FolderFormat:
    """A format that is a folder of files: its name on the command line, what it is for, and where it is made."""

    name: str
    purpose: str
    module: str

    def __call__(self, audit: Audit) -> dict[str, str]:
        """The texts of its files, by their names."""
        files: dict[str, str] = import_module(self.module).render_dossier(audit)
        return files


#: Formats that are folders, by name.
FOLDERS: dict[str, FolderFormat] = {
    f.name: f for f in (FolderFormat("dossier", "folder for assessors", "onnxfim.report.dossier"),)
}  # fmt: skip


def renderers(assets_dir: str | Path | None = None, **page: Any) -> dict[str, Renderer]:
    """A renderer per format name; with ``assets_dir`` the page's style and pictures are written there, beside it.

    ``page`` are further options of `onnxfim.report.html.render_html`; None leaves one at its default.
    """
    found: dict[str, Renderer] = {**FORMATS, **FOLDERS}
    given = {name: value for name, value in {"assets_dir": assets_dir, **page}.items() if value is not None}
    if given:
        from onnxfim.report.html import render_html

        found["html"] = partial(render_html, **given)
    return found
