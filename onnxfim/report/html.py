"""An audit as one HTML page that needs no network and no script."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateNotFound
from markupsafe import Markup, escape

from onnxfim.errors import OutputError
from onnxfim.record.audit import Audit
from onnxfim.record.foreign_text import visible
from onnxfim.report.assets import Assets, placed
from onnxfim.report.compiled_templates import CompiledTemplates
from onnxfim.report.page.audit_page import build_page
from onnxfim.report.page.bound_section import bound_view

if TYPE_CHECKING:
    from onnxfim.spectral.reading import GraphReading

_PACKAGE = Path(__file__).resolve().parents[1]
TEMPLATE_FOLDERS = (_PACKAGE / "_templates", _PACKAGE.parent / "templates")
_STYLE = "report.css"


def render_html(audit: Audit, *, assets_dir: str | Path | None = None) -> str:
    """The report of ``audit`` as HTML text.

    Args:
        audit: The audit to render.
        assets_dir: Where to write the style sheet and the pictures, for hosts that block inline styles and data images;
            the page links to them by the folder's name, so save it beside that folder. None puts all into the page.

    Raises:
        OutputError: ``assets_dir`` cannot be written, or the templates are missing from the installation.

    Examples:
        >>> import onnxfim
        >>> samples = onnxfim.load_samples("digits.npz", "digits_mlp.onnx", limit=20)
        >>> audit = onnxfim.audit("digits_mlp.onnx", samples, settings=onnxfim.Settings(samples=20, replay=0))
        >>> "robustness audit" in onnxfim.render_html(audit)
        True
    """
    assets = placed(assets_dir)
    page = build_page(audit, assets.picture)
    return render("report.html.j2", assets, title=page.title, page=page)


def render_bounds_html(name: str, sha256: str, reading: GraphReading, *, assets_dir: str | Path | None = None) -> str:
    """Class and spectral bound of a model as HTML text, without any measurement.

    Args:
        name: The model's name.
        sha256: Hash of its file.
        reading: What its graph tells.
        assets_dir: As for `render_html`.

    Raises:
        OutputError: as for `render_html`.
    """
    shown = visible(name)
    return render(
        "bounds.html.j2",
        placed(assets_dir),
        title=f"{shown}: spectral bound",
        name=shown,
        sha256=visible(sha256),
        bound=bound_view(reading.architecture, reading.bound, reading.closed_forms),
    )


def render(template: str, assets: Assets, **values: object) -> str:
    """A page from its template, with its style in the place that ``assets`` gives it.

    Raises:
        OutputError: the style cannot be written there, or the templates are missing from the installation.
    """
    style = assets.style(style_sheet())
    return environment().get_template(template).render(policy=assets.policy, **style, **values)


@lru_cache(maxsize=1)
def environment() -> Environment:
    """The templates' environment: escaped, strict, with the filters for symbols."""
    made = Environment(
        loader=FileSystemLoader([str(folder) for folder in TEMPLATE_FOLDERS]),
        bytecode_cache=CompiledTemplates(),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters["symbols"] = _symbols
    made.filters["svg_symbols"] = _svg_symbols
    made.filters["subscripts"] = _subscripts
    return made


def _symbols(text: str) -> Markup:
    """The text, escaped, with λ_max set with a subscript."""
    return Markup(escape(text).replace("λ_max", Markup("λ<sub>max</sub>")))


def _svg_symbols(text: str) -> Markup:
    return Markup(escape(text).replace("λ_max", Markup('λ<tspan dy="3" font-size="9">max</tspan><tspan dy="-3">&#8203;</tspan>')))


def _subscripts(text: str) -> Markup:
    """A formula, escaped, with ``W_l`` set with a subscript."""
    return Markup(re.sub(r"_(\w+)", r"<sub>\1</sub>", str(escape(text))))


def style_sheet() -> str:
    """The style sheet's text.

    Raises:
        OutputError: the templates are missing from the installation.
    """
    return source(_STYLE)


def source(name: str) -> str:
    """The text of a template.

    Raises:
        OutputError: the templates are missing from the installation.
    """
    templates = environment()
    try:
        return templates.loader.get_source(templates, name)[0] if templates.loader else ""
    except TemplateNotFound as error:
        places = " nor ".join(str(folder) for folder in TEMPLATE_FOLDERS)
        raise OutputError(f"{name}: the report's templates are neither in {places}. Install onnxfim anew.") from error
