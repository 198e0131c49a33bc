"""The stage ``others``: real models that others trained, with attacks measured by others, where they lie beside the repository.

Each is audited in pixel units: its file with the two operators of its input scaling, ``(pixel − mean) / std``, before its input.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

import onnxfim
from tests.support.places import MODELS
from tests.support.trained import MORE, THEIRS, Trained

from .auditing import SAMPLES, described, number, numbers, published, settings
from .stages import Folder, Record

OURS = "product"
LARGE = 16  # images of a net of 224x224


@dataclass(frozen=True)
class Other:
    """A model of others; ``name`` is that of its files here."""

    name: str
    model: Trained

    @property
    def pixels(self) -> bool:
        """Whether its inputs are pixels, scaled."""
        return self.model.record is not None and self.model.record["scale"].get("std") is not None

    @property
    def scale(self) -> dict[str, Any]:
        assert self.model.record is not None
        return dict(self.model.record["scale"])


def known() -> list[Other]:
    """All of others' models, in the order of their manifests; empty where they are not there."""
    return [Other(name, model) for name, model in {**THEIRS, **MORE}.items()]


def along_channels(values: list[float], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """One number a channel, laid out against a sample of this shape, (C, h, w) or (h, w, C)."""
    numbers = np.asarray(values, np.float32)
    if numbers.size == 1:
        return numbers.reshape(())
    axis = 0 if shape[0] == numbers.size else len(shape) - 1
    return numbers.reshape([-1 if i == axis else 1 for i in range(len(shape))])


def in_pixels(model: onnx.ModelProto, mean: NDArray[np.float32], std: NDArray[np.float32]) -> onnx.ModelProto:
    """The model with its input scaling inside: it takes pixels in [0, 1]."""
    out = onnx.ModelProto()
    out.CopyFrom(model)
    graph = out.graph
    held = {tensor.name for tensor in graph.initializer}
    entry = next(value for value in graph.input if value.name not in held)
    scaled = entry.name
    entry.name = "pixels_in"
    graph.initializer.extend([numpy_helper.from_array(mean, "pixel_mean"), numpy_helper.from_array(std, "pixel_std")])
    before = [
        helper.make_node("Sub", ["pixels_in", "pixel_mean"], ["pixels_centred"], name="pixels_centred"),
        helper.make_node("Div", ["pixels_centred", "pixel_std"], [scaled], name="pixels_scaled"),
    ]
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend([*before, *nodes])
    return out


def measure(folder: Folder, other: Other) -> Record:
    """A whole entry of the results: audit, attacks (stored ones where there are, else the product's own) and what is known of it."""
    record = other.model.record
    assert record is not None
    X, labels = np.asarray(other.model.arrays["inputs"], np.float32), other.model.arrays["labels"]
    path, low, high = other.model.path, float(X.min()), float(X.max())
    if other.pixels:
        mean, std = (along_channels(other.scale[key], X.shape[1:]) for key in ("mean", "std"))
        X = np.clip(X * std + mean, 0.0, 1.0).astype(np.float32)
        path, low, high = folder.onnx(f"pixels-{other.name}"), 0.0, 1.0
        path.parent.mkdir(parents=True, exist_ok=True)
        onnx.save(in_pixels(onnx.load(other.model.path), mean, std), path)
    count = LARGE if X[0].size > 100_000 else min(SAMPLES, len(X))
    stored = stored_attack(other.name)
    own = {} if stored is not None else {"attack": "l2", "attack_samples": count}
    surrogate = {"surrogate": True} if other.model.parent is not None and "int8" in other.name else {}
    audit = onnxfim.audit(path, X, labels, settings(samples=count, low=low, high=high, **own))
    if surrogate and audit.attack is None:
        attacked = onnxfim.audit(
            path, X, labels, settings(samples=count, low=low, high=high, **own, **surrogate, flip=False, bounds=False)
        )
    else:
        attacked = audit
    found = stored or own_attack(attacked)
    entry: Record = {
        "name": other.name, "data": record["task"].split(",")[0].split(" (")[0], "family": record["arch"], "size": "",
        "training": record["training"], "strength": None, "seed": None, "block": "others", "parent": other.model.parent,
        "failed": None, "units": "pixels in [0, 1]" if other.pixels else "the model's own",
        "train": {"parameters": record.get("params"), "accuracy": record.get("acc_all")},
        "audit": described(audit), "attack": found,
    }  # fmt: skip
    classes = int(record["n_classes"])
    if X[0].size <= 100_000 and record["output"] == "logits":
        entry["audit"]["published"] = published(audit, path, X[:count], classes=classes)
    return entry | {"said": f"{record['task']}, {count} samples"}


def stored_attack(name: str) -> Record | None:
    """DDN's smallest L2 distance of each image, and PGD accuracies, measured by others on 100 images; None where there are none."""
    folder = MODELS / "attacks"
    arrays = folder / f"{name}.npz"
    if not arrays.is_file():
        return None
    summary = json.loads((folder / "attacks.json").read_text(encoding="utf-8"))[name]
    with np.load(arrays, allow_pickle=False) as found:
        if not np.array_equal(found["index"], np.arange(SAMPLES)):
            raise ValueError(f"{arrays.name}: images {found['index'][:5]}…, expected the first {SAMPLES}")
        distances, clean = found["min_l2_pixel"], found["clean"]
    return {
        "attacks": ["PGD, 40 steps, 2 restarts", "DDN, 200 steps"], "how": "stored",
        "epsilons": [float(eps) for eps in summary["pgd_linf_acc"]],
        "pgd": [number(share) for share in summary["pgd_linf_acc"].values()],
        "l2": [number(d) if np.isfinite(d) else None for d in np.where(clean, distances, 0.0)],
    }  # fmt: skip


def own_attack(audit: onnxfim.Audit) -> Record:
    """The product's own smallest L2 distances; empty lists where it has no gradients to attack by."""
    if audit.attack is None:
        return {"attacks": [], "how": "none: no gradients", "l2": []}
    by_index = {s.index: s for s in audit.samples}
    distances = []
    for i in range(max(by_index) + 1):
        s = by_index.get(i)
        attacked = None if s is None or s.attack_distance is None else s.attack_distance.value
        distances.append(0.0 if s is not None and s.label is not None and s.label != s.prediction else attacked)
    return {"attacks": ["the product's L2 attack"], "how": OURS, "l2": numbers(distances)}
