"""Writes ``onnxfim/record/reference.json``, the reference table, from audits of known classifiers.

    python -m tests.benchmarks.make_reference [NAME …]

It reads the folder of real models (`tests/support/places.py`) and the sample models; with names, these rows alone are measured again.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

import onnxfim
from onnxfim.record import reference
from onnxfim.record.audit import Audit
from onnxfim.record.reference import ReferenceFigure, ReferenceModel, ReferenceTable, ReferenceTask
from onnxfim.record.robustness import Ranked, Robustness, Source
from onnxfim.record.statistics import spearman
from onnxfim.report.numbers import number, percent
from onnxfim.verdict.placing import figure_of, lambda_in_pixels, pixel_figures
from onnxfim.verdict.survival import robustness
from tests.support.places import MODELS, ROOT
from tests.support.places import SAMPLES as SAMPLE_MODELS

SAMPLES = 200
PAGE = ROOT / "docs" / "interpretation.md"
BEGIN, END = "<!-- table: written by tests/benchmarks/make_reference.py -->", "<!-- end of table -->"
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_FASHION = ("t-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
_MNIST_SHAPES = ((28, 28), (1, 28, 28), (28, 28, 1), (784,), (784, 1), (1, 784))
#: Tasks in the order in which shapes are taken for theirs.
TASKS = (
    ReferenceTask("CIFAR-10", ((3, 32, 32), (32, 32, 3), (3072,)), 10, _CIFAR, ("cifar",), ()),
    ReferenceTask("MNIST", _MNIST_SHAPES, 10, _DIGITS, (), ()),
    ReferenceTask("Fashion-MNIST", _MNIST_SHAPES, 10, _FASHION, ("fashion",), ()),
    ReferenceTask("8x8 digits", ((1, 8, 8), (8, 8), (8, 8, 1), (64,)), 10, _DIGITS, ("digits",), ()),
)
ABOUT = (
    "Known classifiers and what onnxfim measured on them, in pixel units (0 is black, 1 is white), L2. They are those at hand, no "
    "sample of any population; figures hold for their audits' samples. Flip radii are upper bounds, boundary distances first-order "
    "estimates, attacks upper bounds."
)
_VARIANTS = {
    "cifar_resnet8_qdq_int8": "cifar_resnet8_float", "cifar_resnet20_fp16": "cifar_resnet20", "digits_resnet_int8": "digits_resnet",
    "digits_resnet_fp16": "digits_resnet", "digits_resnet_softmax": "digits_resnet",
}  # fmt: skip
_DIGITS_TRAINED = {"digits_resnet_adv": "adversarial: PGD, 7 steps, L∞ ≤ 0.15"}
_DIGITS_ARCHITECTURE = {"mlp": "MLP", "vgg": "VGG-like", "resnet": "ResNet", "densenet": "DenseNet", "vit": "Transformer"}


@dataclass(frozen=True)
class Subject:
    """One model to measure: its task, what is known of it, its file and data, and d(model input)/d(pixel) per channel."""

    task: str
    name: str
    training: str
    architecture: str
    origin: str
    scale: str
    file: Any
    data: Any
    input_scale: tuple[float, ...] | None
    attacks: Any = None


def subjects() -> Iterator[Subject]:
    """All that the table holds, in its order."""
    known = {t.task for t in TASKS}
    for m in json.loads((MODELS / "manifest.json").read_text("utf-8")):
        if m["task"] not in known:
            continue
        name, scale = m["model"].removesuffix(".onnx"), m["scale"]
        std = tuple(1 / s for s in scale["std"])
        attacks = MODELS / "attacks" / f"{name}.npz"
        mean, wide = (", ".join(f"{v:.4g}" for v in scale[key]) for key in ("mean", "std"))
        yield Subject(
            m["task"], name, m["training"], m["arch"], f"{m['origin']} ({m['licence']})", f"(pixel - ({mean})) / ({wide})",
            MODELS / m["model"], MODELS / m["data"], None if all(s == 1 for s in std) else std,
            attacks if attacks.exists() else None,
        )  # fmt: skip
    for file in sorted(SAMPLE_MODELS.glob("digits_*.onnx")):
        yield Subject(
            "8x8 digits", file.stem, _DIGITS_TRAINED.get(file.stem, "standard"), _DIGITS_ARCHITECTURE[file.stem.split("_")[1]],
            "onnxfim sample_models (Apache-2.0)", "pixel", file, SAMPLE_MODELS / "digits.npz", None,
        )  # fmt: skip


def audited(subject: Subject) -> Audit:
    """The audit that a row is of."""
    samples = onnxfim.load_samples(subject.data, subject.file, limit=SAMPLES)
    own = subject.attacks is None and subject.name not in _VARIANTS and subject.task == "8x8 digits"
    settings = onnxfim.Settings(
        samples=SAMPLES, replay=0, bounds=False, input_scale=subject.input_scale, attack="l2" if own else None
    )
    return onnxfim.audit(subject.file, samples, settings=settings)


def row(subject: Subject) -> ReferenceModel:
    """A model's row."""
    audit = audited(subject)
    found = robustness(audit)
    assert found.level is not None, f"{subject.name}: not known to be pixels"
    assert audit.calibration.accuracy is not None
    white = 255 * found.level
    figures = pixel_figures(audit, found.curve("flip_radius"), found.level)
    flips, boundary = (_half(found, source) for source in ("flip_radius", "boundary_distance"))
    lam, factor = audit.aggregates["lambda_max_calibrated"], lambda_in_pixels(audit, found.level)
    attack, attacked = _attack(subject, found)

    def figure(a: Any, factor: float | None) -> ReferenceFigure:
        return ReferenceFigure(*(None if x is None or factor is None or x <= 0 else _rounded(x * factor) for x in a))

    return ReferenceModel(
        name=subject.name,
        sha256=audit.model.sha256,
        training=subject.training,
        group="standard" if subject.training.startswith("standard") else "robust",
        architecture=subject.architecture,
        origin=subject.origin,
        scale=subject.scale,
        variant_of=_VARIANTS.get(subject.name),
        samples=len(audit.samples),
        accuracy=audit.calibration.accuracy,
        temperature=_rounded(audit.calibration.temperature),
        flip_radius=figure(flips, 1 / white),
        boundary_distance=figure(boundary, 1 / white),
        lambda_mean=figure(dataclasses.astuple(figures["lambda_max_calibrated"]), 1.0),
        lambda_geometric_mean=figure((lam.geometric_mean.value, lam.geometric_mean.low, lam.geometric_mean.high), factor),
        lambda_median=figure((lam.median.value, lam.median.low, lam.median.high), factor),
        attack_l2=attack,
        attacked=attacked,
    )


def _half(found: Robustness, source: Source) -> tuple[float | None, ...]:
    """The distance at which half have fallen, and its interval."""
    curve = found.curve(source)
    return (None,) * 3 if curve is None else dataclasses.astuple(curve.reached[1])[1:]


def _attack(subject: Subject, found: Robustness) -> tuple[float | None, int]:
    """The median smallest attack over rightly classified samples, a failed one counted as farther than all, and how many."""
    if subject.attacks is not None:
        with np.load(subject.attacks) as z:
            distances = np.sort(z["min_l2_pixel"][z["clean"].astype(bool)].astype(float))
        distances = np.where(np.isfinite(distances), distances, np.inf)
        middle = float(np.median(np.sort(distances)))
        return (_rounded(middle) if np.isfinite(middle) else None), len(distances)
    curve = found.curve("attack")
    if curve is None:
        return None, 0
    return _rounded(curve.reached[1].epsilon), curve.standing


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


def main(names: list[str]) -> None:
    """Measure the rows (all, or those named), and write the table after each."""
    kept = {m.name: m for t in reference.reference_table().tasks for m in t.models} if names else {}
    every = list(subjects())
    write([(s.task, kept[s.name]) for s in every if s.name in kept])  # shapes are known from it
    reference.reference_table.cache_clear()
    for subject in every:
        if not names or subject.name in names:
            kept[subject.name] = row(subject)
            print(kept[subject.name], flush=True)
            write([(s.task, kept[s.name]) for s in every if s.name in kept])


def agreement(tasks: Sequence[ReferenceTask], measure: Ranked) -> float:
    """Spearman correlation with the attacks within each task, averaged over the networks; positive where they agree."""
    total, count = 0.0, 0
    for task in tasks:
        known = [(m.attack_l2, f) for m in task.networks if m.attack_l2 is not None and (f := figure_of(m, measure)) is not None]
        if len(known) >= 3:
            attacks, figures = (np.array(column) for column in zip(*known, strict=True))
            rho = spearman(attacks, figures if measure == "flip_radius" else -figures)
            total, count = total + len(known) * (rho or 0.0), count + len(known)
    return total / count if count else 0.0


def write(rows: list[tuple[str, ReferenceModel]]) -> None:
    """The table of these rows; it leads with the measure that orders them best as attacks do."""
    tasks = tuple(dataclasses.replace(t, models=tuple(m for task, m in rows if task == t.task)) for t in TASKS)
    leads = max(get_args(Ranked), key=lambda measure: agreement(tasks, measure))
    table = ReferenceTable(ABOUT, "tests/benchmarks/make_reference.py", f"{SAMPLES} samples at most", leads, tasks)
    text = json.dumps(dataclasses.asdict(table), indent=1, ensure_ascii=False)
    reference.PLACE.write_text(text + "\n", "utf-8")
    reference.reference_table.cache_clear()
    page = PAGE.read_text("utf-8")
    before, after = page.split(BEGIN)[0], page.split(END)[1]
    PAGE.write_text(f"{before}{BEGIN}\n{page_tables()}{END}{after}", "utf-8")


def page_tables() -> str:
    """The table as the page of documentation shows it: a part for each task, the most sensitive first."""
    parts = []
    for task in reference.reference_table().tasks:
        rows = sorted(task.models, key=lambda m: -(m.lambda_mean.value or 0.0))
        head = (
            "| model | trained | accuracy | mean λ_max, calibrated | median flip radius | boundary distance | smallest L2 attack |"
        )
        lines = [f"\n**{task.task}**\n", head, "|---|---|---|---|---|---|---|"]
        for m in rows:
            cells = (m.lambda_mean.value, m.flip_radius.value, m.boundary_distance.value, m.attack_l2)
            name = f"`{m.name}`" + (f" (of `{m.variant_of}`)" if m.variant_of else "")
            figures = " | ".join("–" if x is None else number(x) for x in cells)
            lines.append(f"| {name} | {m.training} | {percent(m.accuracy)} | {figures} |")
        parts.append("\n".join(lines) + "\n")
    return "".join(parts)


if __name__ == "__main__":
    main(sys.argv[1:])
