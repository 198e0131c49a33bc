"""The peers that onnxfim is compared with, each called in its own best way on the very file; and what is missing of them."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx

Array: TypeAlias = np.ndarray[Any, Any]

NOT_INSTALLED = "not installed: pip install 'onnxfim[peers]'"
_READ = 17  # the newest opset of which onnx2torch knows the operators that classifiers have
_SAME = 1e-4  # of the largest logit: what two float32 runs of one net may differ by

#: As ART's own examples have it, in pixel units.
CLEVER_RADIUS = 2.0
CLEVER_MAXIMA, CLEVER_POOL, CLEVER_PER_CALL = 500, 1024, 10


@dataclass(frozen=True)
class Peer:
    """A package that is compared with, by the distribution that tells its version, and the modules it is used through."""

    name: str
    distribution: str
    modules: tuple[str, ...]

    @property
    def missing(self) -> str | None:
        """Why it cannot be used, in one line; None where it can."""
        for module in self.modules:
            try:
                importlib.import_module(module)
            except ImportError:
                return NOT_INSTALLED
            except Exception as error:  # a build of torchvision for another torch
                return f"{module} does not load: {str(error).splitlines()[0]}"
        return None

    @property
    def version(self) -> str:
        """Its version, or a dash."""
        try:
            return version(self.distribution)
        except PackageNotFoundError:
            return "–"


TORCH = Peer("PyTorch", "torch", ("torch", "onnx2torch"))
READER = Peer("onnx2torch", "onnx2torch", TORCH.modules)
FOOLBOX = Peer("foolbox", "foolbox", (*TORCH.modules, "foolbox"))
ART = Peer("ART", "adversarial-robustness-toolbox", (*TORCH.modules, "art.estimators.classification", "art.metrics"))
ALL = (TORCH, READER, FOOLBOX, ART)


def readable(path: Path) -> onnx.ModelProto:
    """The file as onnx2torch takes it: its operators in an older opset where it is newer, the weights as they are."""
    model = onnx.load(path)
    if max(o.version for o in model.opset_import if not o.domain) > _READ:
        model = onnx.version_converter.convert_version(model, _READ)
    for node in model.graph.node:  # shapes without a 0 mean the same with and without it
        kept = [a for a in node.attribute if a.name != "allowzero"]
        del node.attribute[:]
        node.attribute.extend(kept)
    return model


def torch_net(path: Path, X: Array, logits: Array) -> Any:
    """The file as a PyTorch module, which gives the file's own logits (N, K) at the rows X.

    Raises:
        ValueError: it gives others.
    """
    import onnx2torch
    import torch

    net = onnx2torch.convert(readable(path)).eval().requires_grad_(False)  # weights take no gradient: the input's alone counts
    with torch.no_grad():
        off = np.abs(net(torch.tensor(X)).numpy() - logits).max() / np.abs(logits).max()
    if not off <= _SAME:
        raise ValueError(f"{path.name}: logits of onnx2torch's module differ from the file's by {off:.1e} of the largest.")
    return net


def from_pixels(net: Any, scale: float, shift: Array) -> Any:
    """The net with pixels from 0 to 1 for its input: ``net(scale · pixels + shift)``."""
    import torch

    class FromPixels(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net
            self.register_buffer("shift", torch.tensor(shift, dtype=torch.float32))

        def forward(self, pixels: Any) -> Any:
            return self.net(scale * pixels + self.shift)

    return FromPixels().eval()


def ways(net: Any, X: Array, cotangents: Array) -> dict[str, Callable[[], Any]]:
    """Ways of PyTorch to ``Jᵀu`` on rows X, by name; cotangents (S, K)."""
    from bench_gradients import ways as all_ways

    u = np.ascontiguousarray(
        np.broadcast_to(cotangents.astype(np.float32)[:, None], (len(cotangents), len(X), cotangents.shape[1]))
    )
    return all_ways(net, X, u)


def runs(way: Callable[[], Any]) -> bool:
    """Whether a way does: torch.func does not take every operator that onnx2torch writes."""
    try:
        way()
    except Exception:  # of any kind, from inside PyTorch
        return False
    return True


def jacobian_of(name: str, way: Callable[[], Any]) -> Array:
    """The Jacobian (N, K, d) as the way of that name gives it for K cotangents of one class each."""
    J = way().detach().numpy()
    J = J if name.startswith("vmap") else np.moveaxis(J, 0, 1)
    return J.reshape(*J.shape[:2], -1)


def ddn(net: Any, pixels: Array, labels: Array, *, steps: int = 100) -> Array:
    """Images (N, …) that foolbox's DDN found, in pixel units; the sample itself where it found none."""
    import foolbox
    import torch

    model = foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu")
    attack = foolbox.attacks.DDNAttack(steps=steps)
    return attack.run(model, torch.tensor(pixels), torch.tensor(labels)).numpy()


class Clever:
    """ART's CLEVER of a net that takes pixels, (*shape) a sample, K classes."""

    def __init__(self, net: Any, shape: tuple[int, ...], K: int) -> None:
        import torch
        from art.estimators.classification import PyTorchClassifier

        self._classes = K
        self._classifier = PyTorchClassifier(net, torch.nn.CrossEntropyLoss(), shape, K, clip_values=(0, 1), device_type="cpu")

    def score(self, pixels: Array, pool: int) -> float:
        """The score of one sample against every other class, from a pool of so many times ten points in place of 1,024 times ten."""
        from art.metrics import clever_u

        np.random.seed(0)  # noqa: NPY002 - ART draws from NumPy's global state
        return float(clever_u(self._classifier, pixels, CLEVER_MAXIMA, pool, CLEVER_RADIUS, 2, verbose=False))

    def one_class(self, pixels: Array, label: int, pool: int) -> None:
        """What the score costs against one of the other classes."""
        from art.metrics import clever_t

        np.random.seed(0)  # noqa: NPY002 - as above
        clever_t(self._classifier, pixels, (label + 1) % self._classes, CLEVER_MAXIMA, pool, CLEVER_RADIUS, 2)
