"""How a result shows itself in a notebook, as a frame and as figures; who draws it is told from above this wing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

_HOMES: dict[str, str] = {}


def shown_by(**homes: str) -> None:
    """Tell who shows results: ``module:function`` for ``card``, ``frame``, ``figures`` and ``plot``, imported when asked for."""
    _HOMES.update(homes)


def _shower(what: str) -> Callable[..., Any]:
    module, _, name = _HOMES[what].partition(":")
    found: Callable[..., Any] = getattr(import_module(module), name)
    return found


class Carded:
    """What a notebook shows as a card."""

    def _repr_html_(self) -> str:
        """The card, as HTML that needs no network and no script."""
        card: str = _shower("card")(self)
        return card


class Shown(Carded):
    """What is a card, a frame and figures."""

    def to_frame(self) -> Any:
        """A `pandas.DataFrame` with a row for each sample.

        Every measure has a column of its values, and beside it ``_low``, ``_high`` and ``_kind`` where it has an interval.

        Raises:
            OutputError: pandas is not installed.
        """
        return _shower("frame")(self)

    @property
    def figures(self) -> Mapping[str, str]:
        """The charts of the report by name, each an SVG file's text that stands alone."""
        found: Mapping[str, str] = _shower("figures")(self)
        return found

    def plot(self, name: str | None = None, ax: Any = None) -> Any:
        """Draw a chart of the report with matplotlib.

        Args:
            name: One of ``figures``; the first of them by default.
            ax: Axes to draw into; new ones by default.

        Returns:
            The axes, without ticks: the chart brings its own.

        Raises:
            OutputError: matplotlib is not installed, or there is no such chart.
        """
        return _shower("plot")(self, name, ax)
