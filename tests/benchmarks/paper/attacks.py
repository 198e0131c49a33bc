"""The stage ``attack``: how far the .onnx file withstands attacks, corruptions and a change of the data.

Gradients come from the net in torch; whether an image succeeds is decided by the file itself, run by ONNX Runtime on the CPU. All
values are upper bounds of robustness: what no attack finds may still exist.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from foolbox.attacks import LinfPGD
from foolbox.attacks.ddn import DDNAttack
from foolbox.criteria import Misclassification
from foolbox.models.pytorch import PyTorchModel
from numpy.typing import NDArray
from torch import Tensor, nn

import onnxfim
from sample_models import files

from .auditing import SAMPLES, numbers, settings
from .cells import Cell
from .corruptions import accuracies
from .data_sets import EPSILON, Images, Labels, load
from .making import restore
from .stages import Folder, Record

RADII = (0.5, 1.0, 2.0)  # times the radius of training
PGD_STEPS, PGD_RESTARTS = 20, 2
APGD_STEPS, APGD_RIVALS = 20, 3  # of APGD-T: the most likely other classes
SQUARE_QUERIES = 300
DDN_STEPS = 100
# A step found on the net is tried on its own file as it is and a little longer, since rounding differs at the boundary; on an int8
# file, whose boundary lies elsewhere, along the whole ray.
OWN_FILE = (1.0, 1.0001, 1.001, 1.01, 1.03)
OTHER_FILE = (*np.geomspace(0.25, 4.0, 97).round(4).tolist(),)

Found = Callable[[Images, Labels], Images]  # images near the given ones, of their shape
Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


class FileNet(nn.Module):
    """The .onnx file as a net without gradients: images (N, 1, side, side) to logits (N, K)."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.scores = files.opened(path)
        self.place = nn.Parameter(torch.zeros(0), requires_grad=False)  # tells attacks which device the net is on

    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy(self.scores(x.detach().numpy()))

    def classes(self, X: Images) -> Labels:
        """Decisions of the file, (N,)."""
        parts = [self.scores(X[i : i + 256]).argmax(axis=1) for i in range(0, len(X), 256)]
        return np.concatenate(parts).astype(np.int64)


@dataclass(frozen=True)
class Subject:
    """A file, the net whose gradients are used against it, and the images (N, 1, side, side) with labels (N,)."""

    file: FileNet
    net: nn.Module
    images: Images
    labels: Labels
    classes: int


def by_foolbox(net: nn.Module, attack: Any, *, radius: float | None, seed: int) -> Found:
    """An attack of foolbox as a function of images and labels."""

    def found(X: Images, labels: Labels) -> Images:
        torch.manual_seed(seed)
        model = PyTorchModel(net, bounds=(0, 1), device="cpu")
        how = {} if radius is None else {"epsilon": radius}
        return attack.run(model, torch.from_numpy(X), Misclassification(torch.from_numpy(labels)), **how).detach().numpy()

    return found


def by_torchattacks(net: nn.Module, name: str, **how: object) -> Found:
    """An L∞ attack of torchattacks as a function of images and labels."""
    import torchattacks  # type: ignore[import-untyped,import-not-found,unused-ignore]

    def found(X: Images, labels: Labels) -> Images:
        torch.manual_seed(0)
        attack = getattr(torchattacks, name)(net, norm="Linf", seed=0, **how)
        return attack(torch.from_numpy(X), torch.from_numpy(labels)).detach().numpy()

    return found


class MarginPGD(LinfPGD):
    """Projected gradient ascent on ``max_j z_j − z_c``, whose slope stays where softmax is saturated (Carlini and Wagner 2017)."""

    def get_loss_fn(self, model, labels):  # type: ignore[no-untyped-def]
        """The sum over the images of the margin by which the label is lost."""
        import eagerpy

        def loss(inputs):  # type: ignore[no-untyped-def]
            z = model(inputs)
            own = eagerpy.onehot_like(z, labels)
            return ((z - 1e9 * own).max(axis=-1) - (z * own).sum(axis=-1)).sum()

        return loss


def projected(net: nn.Module, radius: float) -> Iterator[tuple[str, Found]]:
    """PGD (Madry et al. 2018) on the cross-entropy, from random starts."""
    attack = LinfPGD(abs_stepsize=2.5 * radius / PGD_STEPS, steps=PGD_STEPS, random_start=True)
    for restart in range(PGD_RESTARTS):
        yield f"PGD {PGD_STEPS} steps x {PGD_RESTARTS}", by_foolbox(net, attack, radius=radius, seed=restart)


def others(subject: Subject, radius: float) -> Iterator[tuple[str, Found]]:
    """What the ensemble adds, after AutoAttack (Croce and Hein 2020) with fewer steps; APGD's DLR losses need more than two classes."""
    margin = MarginPGD(abs_stepsize=2.5 * radius / PGD_STEPS, steps=PGD_STEPS, random_start=True)
    yield f"PGD on the margin {PGD_STEPS}", by_foolbox(subject.net, margin, radius=radius, seed=0)
    if importlib.util.find_spec("torchattacks") is None:
        return
    yield f"APGD-CE {APGD_STEPS}", by_torchattacks(subject.net, "APGD", eps=radius, steps=APGD_STEPS, loss="ce")
    if subject.classes > 3:
        apgd_t = by_torchattacks(subject.net, "APGDT", eps=radius, steps=APGD_STEPS, n_classes=APGD_RIVALS + 1)
        yield f"APGD-DLR {APGD_STEPS}, {APGD_RIVALS} targets", apgd_t
    square = by_torchattacks(subject.file, "Square", eps=radius, n_queries=SQUARE_QUERIES)
    yield f"Square {SQUARE_QUERIES} on the file", square


def fooled(subject: Subject, rows: NDArray[np.intp], found: Found, radius: float) -> Bools:
    """Which of the images at ``rows`` an attack turns within L∞ distance ``radius`` and [0, 1], by the file."""
    X, labels = subject.images[rows], subject.labels[rows]
    near = np.clip(np.clip(found(X, labels), X - np.float32(radius), X + np.float32(radius)), 0, 1).astype(np.float32)
    return np.asarray(subject.file.classes(near) != labels)


def against_linf(subject: Subject, radii: tuple[float, ...], wrong: Bools) -> tuple[list[Bools], list[Bools], list[str]]:
    """Which images (N,) fall to PGD, and which to the ensemble, at each of the ascending radii; and what the ensemble was of.

    What falls within a radius falls within all larger ones, and is not attacked again.
    """
    by_pgd, by_any, names = [], [], []
    pgd, ensemble = wrong.copy(), wrong.copy()
    for radius in radii:
        for attacks, fallen in ((projected(subject.net, radius), pgd), (others(subject, radius), ensemble)):
            for name, found in attacks:
                names.append(name)
                if len(rows := np.flatnonzero(~fallen)):
                    fallen[rows] = fooled(subject, rows, found, radius)
            ensemble |= pgd
        by_pgd.append(pgd.copy())
        by_any.append(ensemble.copy())
    return by_pgd, by_any, list(dict.fromkeys(names))


def by_ddn(subject: Subject, wrong: Bools, lengths: tuple[float, ...]) -> Floats:
    """L2 distance (N,) of the image of foolbox's DDN (Rony et al. 2019), 0 where the file is wrong already, inf where it stays right.

    The steps are tried at ascending ``lengths`` of their own; the shortest that turns the file counts.
    """
    best = np.where(wrong, 0.0, np.inf)
    rows = np.flatnonzero(~wrong)
    if not len(rows):
        return best
    X, labels = subject.images[rows], subject.labels[rows]
    step = by_foolbox(subject.net, DDNAttack(steps=DDN_STEPS), radius=None, seed=0)(X, labels) - X
    moved = np.abs(step).max(axis=(1, 2, 3)) > 0  # DDN returns the image itself where it found none
    for length in lengths:
        near = np.clip(X + np.float32(length) * step, 0, 1)
        hit = moved & np.isinf(best[rows]) & (subject.file.classes(near) != labels)
        best[rows[hit]] = np.sqrt(((near - X)[hit].astype(np.float64) ** 2).sum(axis=(1, 2, 3)))
    return best


def by_product(path: Path, subject: Subject, *, surrogate: bool) -> tuple[Floats, str | None]:
    """L2 distance (N,) by onnxfim's own attack, which the file confirms; inf where it found none. And why it did not run, or None."""
    asked = settings(
        samples=len(subject.images), method="gradient", bounds=False, flip=False, attack="l2", attack_samples=len(subject.images),
        surrogate=surrogate,
    )  # fmt: skip
    best = np.full(len(subject.images), np.inf)
    try:
        audit = onnxfim.audit(path, subject.images, subject.labels, asked)
    except onnxfim.OnnxFimError as error:
        return best, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    for sample in audit.samples:
        if sample.attack_distance is not None and sample.attack_distance.value is not None:
            best[sample.index] = sample.attack_distance.value
    return best, None


def attack(folder: Folder, cell: Cell) -> Record:
    """Attack one file of the grid.

    Returns:
        Over the first 100 test images: ``pgd`` and ``ensemble``, shares that are right and stay so, at the L∞ radii ``epsilons``;
        ``l2``, smallest L2 distance to an image that the file gets wrong, in pixel units, the smaller of ``l2_ddn`` and ``l2_own``,
        0 where it is wrong already, None where none was found; ``missed``, how many images the ensemble left standing at each radius
        although one at no larger L2 distance is known. Over all test images: ``corruptions``; over others: ``shift``. ``how`` says
        whose gradients and decisions were used.
    """
    logging.getLogger().setLevel(logging.ERROR)  # foolbox warns of models in evaluation mode, which this is meant to be
    data, path = load(cell.data), folder.onnx(cell.name)
    net = restore(folder, cell.original or cell)
    for weight in net.parameters():
        weight.requires_grad_(False)
    subject = Subject(FileNet(path), net, data.test_images[:SAMPLES], data.test_labels[:SAMPLES], data.classes)
    twin = cell.original is not None
    wrong = subject.file.classes(subject.images) != subject.labels
    radii = tuple(round(factor * EPSILON[cell.data], 6) for factor in RADII)
    by_pgd, by_any, names = against_linf(subject, radii, wrong)
    ddn = by_ddn(subject, wrong, OTHER_FILE if twin else OWN_FILE)
    own, refused = by_product(path, subject, surrogate=twin)
    least = np.minimum(ddn, own)
    pgd, ensemble = ([float((~fallen).mean()) for fallen in kept] for kept in (by_pgd, by_any))
    how = (
        "L∞ and DDN images from the float parent's gradients, Square on the int8 file; DDN's steps at a quarter to four times their "
        "length; own attack by a surrogate of the int8 file; the int8 file decides"
        if twin
        else "gradients of the net in torch, Square on the file; own attack by the file's derivative graph; the file decides"
    )
    return {
        "epsilons": list(radii), "clean": float((~wrong).mean()), "pgd": pgd, "ensemble": ensemble, "attacks": names,
        "l2": numbers(least), "l2_ddn": numbers(ddn), "l2_own": numbers(own), "own_refused": refused,
        "missed": [int((~fallen & (least <= radius)).sum()) for fallen, radius in zip(by_any, radii, strict=True)],
        "how": how, **accuracies(subject.file.classes, cell.data),
        "said": f"L∞ {' '.join(f'{share:.0%}' for share in ensemble)}, L2 {np.median(least):.3g}",
    }  # fmt: skip
