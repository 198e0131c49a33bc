"""Trained models and what is known of them: the sample models, and others' where they lie beside the repository."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxfim.auditing.run import audit
from onnxfim.record.audit import Audit
from onnxfim.record.settings import Settings
from tests.support.places import MODELS, MORE_MODELS, SAMPLES, needs_models


@dataclass(frozen=True)
class Trained:
    """A model file, its samples, and its exact values where they are known.

    ``record`` is the manifest's of a model that is not ours, ``parent`` the float32 original of a rounded file.
    """

    name: str
    path: Path
    data: Path
    family: str
    input_name: str
    parent: str | None = None
    stored: Path | None = None
    record: Mapping[str, Any] | None = None

    @property
    def arrays(self) -> Mapping[str, np.ndarray]:
        """``inputs`` and ``labels``."""
        return _arrays(self.data)

    @property
    def exact(self) -> Mapping[str, Any]:
        """Exact values of the first samples; a KeyError where none are known."""
        found = _json(self.stored) if self.stored else {}
        return found if self.record else found[self.name]

    @property
    def by_differences(self) -> bool:
        """Whether the exact values are differences in float32, good to 1 to 5 % at kinks."""
        return self.exact.get("source") == "float32 fd"


@cache
def _json(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


@cache
def _arrays(path: Path) -> Mapping[str, np.ndarray]:
    with np.load(path) as data:
        return dict(data)


#: Which architecture the names stand for.
_FAMILIES = {
    "digits_mlp": "mlp", "digits_vgg": "vgg", "digits_resnet": "resnet", "digits_densenet": "densenet", "digits_vit": "transformer",
    "mnist_mlp": "mlp", "cifar_cnna": "vgg", "fashion_cnna": "vgg", "cifar_resnet": "resnet", "cifar_vit": "transformer",
    "kws_dscnn": "vgg", "textline": "hybrid", "imagenet_mobilenetv1": "vgg", "esc10_miniresnet": "resnet",
}  # fmt: skip
_PARENTS = {
    "digits_resnet_int8": "digits_resnet", "digits_resnet_fp16": "digits_resnet",
    "cifar_resnet20_fp16": "cifar_resnet20", "cifar_resnet8_qdq_int8": "cifar_resnet8_float", "kws_dscnn_qdq_int8": "kws_dscnn_float",
    "imagenet_mobilenetv1_025_qdq_int8": "imagenet_mobilenetv1_025",
}  # fmt: skip


def _family(name: str) -> str:
    return next(family for stem, family in _FAMILIES.items() if name.startswith(stem))


def _sample_models() -> dict[str, Trained]:
    reference = SAMPLES / "reference.json"
    known = _json(reference)
    return {
        path.stem: Trained(
            path.stem, path, SAMPLES / "digits.npz", _family(path.stem), "images", _PARENTS.get(path.stem),
            reference if path.stem in known else None,
        )
        for path in sorted(SAMPLES.glob("*.onnx"))
    }  # fmt: skip


def _others_models(folder: Path) -> dict[str, Trained]:
    manifest = folder / "manifest.json"
    found = {}
    for record in _json(manifest) if manifest.is_file() else []:
        name = record["model"].removesuffix(".onnx")
        stored = folder / "exact" / f"{name}.json"
        found[name] = Trained(
            name, folder / record["model"], folder / record["data"], _family(name), record["input_name"], _PARENTS.get(name),
            stored if stored.is_file() else None, record,
        )  # fmt: skip
    return found


OURS = _sample_models()
THEIRS = _others_models(MODELS)
#: Larger ones, for benchmarks: ImageNet and audio.
MORE = _others_models(MORE_MODELS)
ALL = OURS | THEIRS


def each(chosen: Callable[[Trained], bool]) -> list[Any]:
    """Parameters of a test: the chosen models by name, ours and others'; one that is skipped stands for others' that are absent."""
    ours = [name for name, model in OURS.items() if chosen(model)]
    return [*ours, *theirs(chosen)]


def theirs(chosen: Callable[[Trained], bool]) -> list[Any]:
    """Parameters of a test: the chosen models of others, which are large, or one that is skipped."""
    slow = [pytest.param(name, marks=pytest.mark.slow) for name, model in THEIRS.items() if chosen(model)]
    return slow if THEIRS else [pytest.param("others", marks=needs_models)]


def known_exactly() -> list[Any]:
    """Parameters of a test that audits: the sample models with exact values, all but the smallest of them slow."""
    names = [name for name, model in OURS.items() if model.stored]
    return [name if name == "digits_mlp" else pytest.param(name, marks=pytest.mark.slow) for name in names]


@cache
def audited(name: str, method: str = "auto", **options: Any) -> Audit:
    """An audit of the first 32 samples on the CPU, made once for all tests that ask for it."""
    model = ALL[name]
    settings = Settings(**{"samples": 32, "batch": 64, "method": method, "providers": ("cpu",), **options})
    return audit(model.path, model.arrays["inputs"], model.arrays["labels"], settings)
