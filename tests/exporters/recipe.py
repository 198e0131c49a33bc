"""What a recipe is, and the list of all of them."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = "np.ndarray[Any, Any]"

#: Modules of recipes, and what each needs to be imported.
MODULES: Mapping[str, tuple[str, ...]] = {
    "torch_recipes": ("torch", "onnxscript", "sklearn"),
    "token_recipes": ("torch", "onnxscript", "sklearn"),
    "quantised_recipes": ("torch", "onnxscript", "sklearn", "onnx_ir", "onnxconverter_common"),
    "classical_recipes": ("skl2onnx", "sklearn"),
    "tree_recipes": ("onnxmltools", "xgboost", "lightgbm", "sklearn"),
    "vision_recipes": ("torch", "onnxscript", "torchvision", "timm", "sklearn"),
    "language_recipes": ("torch", "onnxscript", "transformers", "torchvision", "sklearn"),
    "keras_recipes": ("tensorflow", "keras", "tf2onnx", "sklearn"),
}


@dataclass(frozen=True)
class Truth:
    """What float64 says of the samples: λ_max(F) in nats per squared input unit, and ‖J‖₂ of the logits (NaN where not known), (n,)."""

    lam: Array
    norm: Array


@dataclass(frozen=True)
class Made:
    """An exported file's samples and truth.

    Attributes:
        inputs: What is fed, by the name of the input; ``inputs`` for the only one, (n, *shape).
        labels: Classes, (n,), or None.
        truth: Of this file's function, or None where it has no derivative.
        own: What the exporter's framework finds in float32: where deep networks have kinks within rounding, float32 itself does not
            tell the slope.
        parent: Of the float32 parent of a quantised file: how far quantisation moves the value.
        options: Of the command line, where the file needs some.
    """

    inputs: Mapping[str, Array]
    labels: Array | None = None
    truth: Truth | None = None
    own: Truth | None = None
    parent: Truth | None = None
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """A file that an exporter writes.

    Attributes:
        name: Of the file.
        exporter: What writes it.
        make: Writes the file, and returns its samples and truth.
        family: The class of the architecture that it has, where there is no doubt.
    """

    name: str
    exporter: str
    make: Callable[[Path], Made]
    family: str | None = None


@dataclass
class Recipes:
    """The recipes of one module, in their order."""

    exporter: str
    all: dict[str, Recipe] = field(default_factory=dict)

    def add(self, name: str, make: Callable[[Path], Made], *, family: str | None = None, by: str = "") -> None:
        """Put one in; ``by`` where another exporter than the module's usual writes it."""
        assert name not in self.all, name
        self.all[name] = Recipe(name, by or self.exporter, make, family)


def missing(module: str) -> list[str]:
    """Packages that a module of recipes needs and that are not installed."""
    return [name for name in MODULES[module] if importlib.util.find_spec(name) is None]


def recipes_of(module: str) -> dict[str, Recipe]:
    """The recipes of one module, whose packages are there."""
    found: Recipes = importlib.import_module(f"tests.exporters.{module}").RECIPES
    return found.all
