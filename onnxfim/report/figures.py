"""The charts of a report one by one: SVG text that stands alone, with the same lines and the colours of its own light and dark."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from functools import lru_cache
from typing import Any, TypeAlias

from onnxfim.record.audit import Audit
from onnxfim.report.charts.marks import Chart, Figure
from onnxfim.report.html import environment, style_sheet
from onnxfim.verdict.comparison import Comparison

Colours: TypeAlias = Mapping[str, str]

_RULE = re.compile(r"^(\.[fst]-[^{}]+?)\s*\{([^}]*)\}", re.MULTILINE)
_ROOT = re.compile(r":root\s*\{([^}]*)\}")
_VALUE = re.compile(r"--([\w-]+):\s*([^;]+);")


def figures(result: Audit | Comparison) -> dict[str, str]:
    """SVG text of every chart that the report of ``result`` shows, by the chart's name, in the report's order."""
    return {name: standalone(chart) for name, chart in charts_of(result).items()}


def charts_of(result: Audit | Comparison) -> dict[str, Chart]:
    """The charts of a report by name, as wide as a page's; a second one of a name gets ``-2``."""
    page: Any
    if isinstance(result, Audit):
        from onnxfim.report.page.audit_page import build_page

        page = replace(build_page(result, lambda name, png: ""), spread=None)  # a part of the distribution, in small
    else:
        from onnxfim.report.page.comparison_page import build_comparison_page

        page = build_comparison_page(result)
    return charts_in(page)


def charts_in(page: Any) -> dict[str, Chart]:
    """The charts of a page that was computed, as `charts_of` has them."""
    found: dict[str, Chart] = {}
    for chart in _charts(page):
        name = next(n for i in range(1, len(found) + 2) if (n := chart.name if i == 1 else f"{chart.name}-{i}") not in found)
        found[name] = chart
    return found


def _charts(part: Any) -> Iterator[Chart]:
    """All charts in a page's data, of figures that are drawn at two widths the wide one."""
    if isinstance(part, Figure):
        yield part.wide
    elif isinstance(part, Chart):
        yield part
    elif is_dataclass(part) and not isinstance(part, type):
        for f in fields(part):
            yield from _charts(getattr(part, f.name))
    elif isinstance(part, (tuple, list)):
        for item in part:
            yield from _charts(item)


def drawn(chart: Chart, name: str) -> str:
    """The chart as the report draws it, SVG for a page whose style has its colours; ``name`` makes its ids the page's own."""
    macros: Any = environment().get_template("charts.html.j2").module
    return str(macros.drawing(chart, name)).strip()


def standalone(chart: Chart) -> str:
    """The chart as an SVG file's text: its background and its colours are in it, for light and for dark."""
    svg = drawn(chart, chart.name)
    opening, _, rest = svg.partition(">")
    light, dark = palettes()
    style = f"{_resolved(light)}@media (prefers-color-scheme: dark) {{\n{_resolved(dark)}}}\n"
    title, _, body = rest.partition("</desc>")
    ground = f'<rect class="ground" width="{chart.width}" height="{chart.height}" fill="#ffffff"/>'
    opening = opening.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    return f"{opening}>{title}</desc>\n<style>\n{style}</style>\n{ground}{body}\n"


@lru_cache(maxsize=1)
def palettes() -> tuple[Colours, Colours]:
    """The report's colours by name, in light and in dark."""
    light, dark, *_ = (dict(_VALUE.findall(block)) for block in _ROOT.findall(style_sheet()))
    return light, light | dark


def chart_rules(scope: str) -> str:
    """The style rules of charts and signs, for those below the elements that ``scope`` selects."""
    rules = []
    for names, body in _RULE.findall(style_sheet()):
        selectors = ", ".join(f"{scope} {name.strip()}" for name in names.split(","))
        rules.append(f"{selectors} {{ {body.strip()} }}")
    return "\n".join(rules)


def _resolved(colours: Colours) -> str:
    """The rules of charts with every colour written out: not all who draw SVG know CSS variables."""
    text = f".ground {{ fill: {colours['card']}; }}\n{chart_rules('').replace(', ', ',')}\n"
    return re.sub(r"var\(--([\w-]+)\)", lambda m: colours[m.group(1)], text)
