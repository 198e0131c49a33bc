"""Makes a stage of the audit fail, by its name, as no one foresaw it."""

from __future__ import annotations

import importlib
import pkgutil

from onnxfim.auditing import stages


class Unforeseen(Exception):
    """What no part of the product knows."""


def stages_by_name():
    """The cell of each stage's function, by the stage's name: what is in it runs when the stage is called."""
    found = {}
    for module in pkgutil.iter_modules(stages.__path__, stages.__name__ + "."):
        for value in vars(importlib.import_module(module.name)).values():
            if hasattr(value, "__wrapped__") and value.__module__ == module.name:
                cells = dict(zip(value.__code__.co_freevars, value.__closure__, strict=True))
                found[cells["name"].cell_contents] = cells
    return found


def break_stage(monkeypatch, name, error=None):
    """Let the stage of that name raise; returns a list that holds its name once for each time it did."""
    cell, times = stages_by_name()[name]["function"], []

    def broken(*_, **__):
        times.append(name)
        raise error or Unforeseen("a wild\nvalue")

    monkeypatch.setattr(cell, "cell_contents", broken)
    return times


def has_fallback(name):
    """Whether an audit goes on without the stage."""
    return stages_by_name()[name]["instead"].cell_contents is not None
