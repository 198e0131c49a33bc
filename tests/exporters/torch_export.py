"""Exports a torch module by either of PyTorch's exporters, and takes its truth from the same module in float64."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tests.exporters import truth
from tests.exporters.recipe import Array, Made

torch.set_num_threads(1)


def export(
    module: nn.Module, args: Sequence[torch.Tensor], path: Path, *, names: Sequence[str] = ("x",), script: bool = False,
    opset: int | None = None, free: bool | Sequence[int] = (0,), outputs: Sequence[str] = ("y",),
) -> None:  # fmt: skip
    """Write a file; ``free`` lists the axes of every input that are dynamic, ``script`` asks for the exporter by TorchScript."""
    axes = tuple(free) if isinstance(free, Sequence) else (0,) if free else ()
    letters = {0: "N", 2: "H", 3: "W"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if script:
            dynamic = {n: {a: letters[a] for a in axes} for n in names}
            dynamic |= {o: {0: "N"} for o in outputs}
            torch.onnx.export(
                module, tuple(args), str(path), dynamo=False, input_names=list(names), output_names=list(outputs),
                opset_version=opset or 17, dynamic_axes=dynamic if axes else None,
            )  # fmt: skip
            return
        dims = {a: torch.export.Dim(letters[a]) if a == 0 else torch.export.Dim(letters[a], min=8) for a in axes}
        torch.onnx.export(
            module, tuple(args), str(path), dynamo=True, external_data=False, verbose=False, input_names=list(names),
            output_names=list(outputs), dynamic_shapes=tuple(dims for _ in args) if axes else None,
            **({} if opset is None else {"opset_version": opset}),
        )  # fmt: skip


def fit(module: nn.Module, X: Array, y: Array, steps: int, *, rate: float = 3e-3, held: Sequence[torch.Tensor] = ()) -> nn.Module:
    """A few steps of Adam, so that weights are not those of an initialisation; the module, ready to be read."""
    module.train()
    rows, labels = torch.tensor(X), torch.tensor(y)
    optimiser = torch.optim.Adam(module.parameters(), rate)
    for _ in range(steps):
        some = torch.randperm(len(rows))[:32]
        z = module(rows[some], *[h[:1].expand(len(some), *h.shape[1:]) for h in held])
        loss = nn.functional.cross_entropy(z, labels[some])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return module.eval()


def of_module(
    module: nn.Module, X: Array, *, logits: Callable[[nn.Module, torch.Tensor], torch.Tensor] | None = None,
    lam: Callable[[Array, Array], float] = truth.softmax_lambda, double: bool = True,
) -> truth.Truth:  # fmt: skip
    """The truth of a module's logits, or of what ``logits`` makes of the float64 module and a row; without ``double``, in float32."""
    found = copy.deepcopy(module).eval()
    found = found.double() if double else found
    return truth.by_torch(lambda t: found(t) if logits is None else logits(found, t), X, lam, double=double)


def in_float32(module: nn.Module, X: Array, known: truth.Truth, *, draws: int = 3) -> truth.Truth:
    """What PyTorch's own float32 finds: of a few draws of rounding (rows a unit in the last place apart) the farthest from the truth.

    In deep networks some value stands within rounding of a kink: which side it is on is chance.
    """
    rng = np.random.default_rng(0)
    found = []
    for k in range(1 + draws):
        moved = np.nextafter(X, np.where(rng.random(X.shape) < 0.5, np.inf, -np.inf).astype(X.dtype)) if k else X
        found.append(of_module(module, moved, double=False))
    farthest = np.abs(np.stack([t.lam for t in found]) / known.lam - 1).argmax(axis=0)
    each = np.arange(len(X))
    return truth.Truth(*(np.stack([getattr(t, name) for t in found])[farthest, each] for name in ("lam", "norm")))


def trained(
    build: Callable[[], nn.Module], X: Array, y: Array, path: Path, *, steps: int = 30, n: int = 12,
    logits: Callable[[nn.Module, torch.Tensor], torch.Tensor] | None = None,
    lam: Callable[[Array, Array], float] = truth.softmax_lambda, known: bool = True, labelled: bool = True, rows: int = 2,
    **how: Any,
) -> Made:  # fmt: skip
    """Build, train a little, export, and take the truth at the first n samples; ``known`` is False where there is none."""
    torch.manual_seed(0)
    module = build()
    module = fit(module, X, y, steps) if steps else module.eval()
    export(module, [torch.tensor(X[:rows])], path, **how)
    found = of_module(module, X[:n], logits=logits, lam=lam) if known else None
    return Made({"inputs": X[:n]}, y[:n] if labelled else None, found)
