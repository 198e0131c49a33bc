"""An audit as one HTML page that needs no network and no script."""

from __future__ import annotations

import base64
from functools import lru_cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateNotFound
from markupsafe import Markup, escape

from onnxfim.errors import OutputError
from onnxfim.report.page import build_page
from onnxfim.results import Audit

_PACKAGE = Path(__file__).resolve().parents[1]
TEMPLATE_FOLDERS = (_PACKAGE / "_templates", _PACKAGE.parent / "templates")
_STYLE = "report.css"
_POLICY_INLINE = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_POLICY_ASSETS = "default-src 'none'; style-src 'self'; img-src 'self'"


def render_html(audit: Audit, *, assets_dir: str | Path | None = None) -> str:
    """The report of ``audit`` as HTML text.

    Args:
        audit: The audit to render.
        assets_dir: Where to write the style sheet and the pictures, for hosts that block inline styles and data images;
            the page links to them by the folder's name, so save it beside that folder. None puts all into the page.

    Raises:
        OutputError: ``assets_dir`` cannot be written, or the templates are missing from the installation.
    """
    environment = _environment()
    style = _source(environment, _STYLE)
    if assets_dir is None:
        page = build_page(audit, lambda _, png: "data:image/png;base64," + base64.b64encode(png).decode("ascii"))
        return environment.get_template("report.html.j2").render(page=page, policy=_POLICY_INLINE, style=style, style_url=None)
    folder = Path(assets_dir)

    def save(name: str, content: bytes) -> str:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        except OSError as error:
            raise OutputError(f"{folder / name}: cannot be written ({error.strerror}). Give a folder that can be.") from error
        return f"{folder.resolve().name}/{name}"

    page = build_page(audit, lambda name, png: save(f"{name}.png", png))
    style_url = save(_STYLE, style.encode())
    return environment.get_template("report.html.j2").render(page=page, policy=_POLICY_ASSETS, style=None, style_url=style_url)


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader([str(folder) for folder in TEMPLATE_FOLDERS]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["symbols"] = _symbols
    environment.filters["svg_symbols"] = _svg_symbols
    return environment


def _symbols(text: str) -> Markup:
    """The text, escaped, with λ_max set with a subscript."""
    return Markup(escape(text).replace("λ_max", Markup("λ<sub>max</sub>")))


def _svg_symbols(text: str) -> Markup:
    return Markup(escape(text).replace("λ_max", Markup('λ<tspan dy="3" font-size="9">max</tspan><tspan dy="-3">&#8203;</tspan>')))


def _source(environment: Environment, name: str) -> str:
    """A template file's text as it stands."""
    try:
        return environment.loader.get_source(environment, name)[0] if environment.loader else ""
    except TemplateNotFound as error:
        places = " nor ".join(str(folder) for folder in TEMPLATE_FOLDERS)
        raise OutputError(f"{name}: the report's templates are neither in {places}. Install onnxfim anew.") from error
