"""An audit as one HTML page that needs no network, and is whole without its script."""

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
from onnxfim.record.identity import Identity
from onnxfim.report.assets import Assets, placed
from onnxfim.report.compiled_templates import CompiledTemplates
from onnxfim.report.glossary import Explainer, with_symbols
from onnxfim.report.identity_words import identity_facts, identity_line, note_lines, running_line
from onnxfim.report.page.audit_page import PRINT_SAMPLES, build_page
from onnxfim.report.page.bound_section import bound_view

if TYPE_CHECKING:
    from onnxfim.spectral.reading import GraphReading

_PACKAGE = Path(__file__).resolve().parents[1]
TEMPLATE_FOLDERS = (_PACKAGE / "_templates", _PACKAGE.parent / "templates")
_STYLE, _SCRIPT = "report.css", "tables.js"


def render_html(
    audit: Audit, *, assets_dir: str | Path | None = None, print_samples: int = PRINT_SAMPLES, script: bool = True
) -> str:
    """The report of ``audit`` as HTML text.

    Args:
        audit: The audit to render.
        assets_dir: Where to write the style sheet and the pictures, for hosts that block inline styles and data images;
            the page links to them by the folder's name, so save it beside that folder. None puts all into the page.
        print_samples: How many samples the table has on paper; the screen has more.
        script: Whether the page has the script that sorts, filters and searches its tables. It is whole without.

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
    page = build_page(audit, assets.picture, print_samples=print_samples)
    return render(
        "report.html.j2", assets, script=script, title=page.title, description=f"{page.verdict_word}. {page.headline}", page=page,
        running=page.cover.running, explain=Explainer(),
    )  # fmt: skip


def render_bounds_html(
    name: str, sha256: str, reading: GraphReading, *, identity: Identity | None = None, assets_dir: str | Path | None = None
) -> str:  # fmt: skip
    """Class and spectral bound of a model as HTML text, without any measurement.

    Args:
        name: The model's name.
        sha256: Hash of its file.
        reading: What its graph tells.
        identity: Who the report is, or None.
        assets_dir: As for `render_html`.

    Raises:
        OutputError: as for `render_html`.
    """
    shown = visible(name)
    title = visible(identity.title) if identity is not None and identity.title else shown
    return render(
        "bounds.html.j2",
        placed(assets_dir),
        title=f"{title}: spectral bound",
        name=title,
        report=identity_facts(identity, without=("Title", "Note")) if identity is not None else (),
        line=identity_line(identity, {}),
        note=note_lines(identity),
        running=running_line(f"{title}: spectral bound", identity),
        model=shown if title != shown else "",
        sha256=visible(sha256),
        bound=bound_view(reading.architecture, reading.bound, reading.closed_forms),
    )


def render(template: str, assets: Assets, *, script: bool = True, running: str = "", **values: object) -> str:
    """A page from its template, with its style and its script in the places that ``assets`` gives them.

    Args:
        template: Name of the template.
        assets: Where style and script go.
        script: Whether the page has a script.
        running: What every printed sheet repeats at its foot.
        values: What the template prints.

    Raises:
        OutputError: the style cannot be written there, or the templates are missing from the installation.
    """
    head: dict[str, object] = {
        "description": None,
        "explain": Explainer(active=False),
        **assets.style(f"{style_sheet()}{_running(running)}"),
    }
    head |= assets.script(source(_SCRIPT)) if script else {"script": None, "script_url": None, "policy": assets.policy}
    return environment().get_template(template).render(head | values)


def _running(text: str) -> str:
    """The rule that gives the text to the foot of printed sheets; what is no letter or digit goes in as its number."""
    escaped = "".join(c if c.isascii() and (c.isalnum() or c == " ") else f"\\{ord(c):x} " for c in text)
    return f':root {{ --running: "{escaped}"; }}\n' if text else ""


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
    made.filters["symbols"] = with_symbols
    made.filters["svg_symbols"] = _svg_symbols
    made.filters["subscripts"] = _subscripts
    return made


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
