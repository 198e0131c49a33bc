"""Every small graph and every trained model whose truth is known: what an audit says, and whether it holds.

Run by hand: ``python tests/benchmarks/bench_truth.py [--quick] [--models TEXT] [--write]``; ``--write`` makes docs/truth.md.

A row is *wrong* where an audit whose verdict is not inconclusive tells something untrue: fewer samples' intervals hold the truth than
95 % intervals may miss by chance, or the mean lies off the truth's by more than the estimates' own noise. The exit code is then 1.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from _common import ROOT, arguments, have_shared, print_table
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from scipy.special import softmax
from scipy.stats import binom

from onnxfim.auditing.run import audit
from onnxfim.errors import OnnxFimError
from onnxfim.record.audit import Audit
from onnxfim.record.settings import Settings
from tests.support import trained
from tests.support.places import CASES, MORE_MODELS

PAGE = ROOT / "docs" / "truth.md"
_LEVEL = 0.95
_CHANCE = 0.01  # of calling a right interval wrong
_TWIN = 0.25  # by which a rounded file may differ from its float original
_FLOAT32 = 5e-2  # what stored values that are themselves float32 are good to
_EXACT = 2e-3  # float32 passes against float64 values
_NO_SLOPE = ("trees", "softmax_over_batch")
_KINKED = ("maxpool_on_constant",)
_SATURATED = ("all_right",)
_METHODS = ("auto", "gradient", "sketch", "exact")


@dataclass(frozen=True)
class Subject:
    """A model with its samples, and what is true of it.

    Attributes:
        name: What the table calls it.
        model: Its file.
        inputs, labels: Samples; labels may be None.
        truth: lambda_max of the first samples, (n,), or two ends of it, (n, 2); None where it is not known.
        flat: Whether there is no slope at all, or no function of one sample: any value is wrong.
        slack: Relative error of the truth itself.
        mean_within: Where single samples are not told, the share by which the mean may differ from ``truth``'s.
        methods: How it is audited.
        samples: How many samples.
        note: Where the truth comes from.
    """

    name: str
    model: Path
    inputs: np.ndarray
    labels: np.ndarray | None
    truth: np.ndarray | None
    flat: bool = False
    slack: float = _EXACT
    mean_within: float | None = None
    methods: tuple[str, ...] = ("auto",)
    samples: int = 64
    note: str = ""
    options: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """What one audit said, beside the truth."""

    subject: Subject
    method: str
    verdict: str
    reason: str
    kind: str
    mean: str
    truth: str
    covered: str
    wrong: bool
    passes: float | None
    seconds: float


def small_graphs() -> Iterator[Subject]:
    """Graphs with an analytic truth, by every method."""
    if not CASES.is_dir():
        return
    told = json.loads((CASES / "cases.json").read_text("utf-8"))
    for name, facts in told.items():
        with np.load(CASES / f"{name}.npz") as data:
            inputs, labels = data["inputs"], data.get("labels")
        truth = None if facts.get("truth") is None else np.asarray(facts["truth"], float)
        if "truth_outside" in facts:
            truth = np.stack([truth, np.asarray(facts["truth_outside"], float)], axis=1)
        path = CASES / f"{name}.onnx"
        flat = name in _NO_SLOPE
        if name in _SATURATED:  # the stored truth cancels where p is saturated
            truth = central(path, inputs)
        if truth is None and not flat:
            truth = one_sided(path, inputs) if name in _KINKED else central(path, inputs)
        yield Subject(name, path, inputs, labels, truth, flat, methods=_METHODS, note="analytic, float64")


def central(path: Path, X: np.ndarray) -> np.ndarray:
    """lambda_max by float64 central differences of the graph, (N,); NaN where it cannot be run."""
    evaluate = reference(path)
    return np.array([_top(_slopes(evaluate, x, 1e-5 * X.std()), evaluate(x[None])[0]) for x in X])


def one_sided(path: Path, X: np.ndarray) -> np.ndarray:
    """The scores' energy along ±v in float64, (N, 2): v is the best direction of gradients beside the sample, where it has none itself."""
    evaluate, rng, spread = reference(path), np.random.default_rng(0), X.std()
    found = []
    for x in X:
        best = (0.0, np.zeros(x.size))
        for _ in range(3):
            beside = x + 1e-3 * spread * rng.standard_normal(x.shape)
            J = _slopes(evaluate, beside, 1e-7 * spread)
            A = _scores(evaluate(beside[None])[0], J)
            value, V = np.linalg.eigh(A.T @ A)
            best = max(best, (float(value[-1]), V[:, -1]), key=lambda pair: pair[0])
        z, h = evaluate(x[None])[0], 1e-6 * spread
        sides = [(evaluate((x.ravel() + sign * h * best[1]).reshape(1, *x.shape))[0] - z) / h for sign in (1, -1)]
        found.append(sorted(float((_scores(z, s) ** 2).sum()) for s in sides))
    return np.array(found)


def reference(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """The graph in float64 on onnx's own evaluator: (N, *shape) to (N, K); NaN where it fails."""
    model = onnx.load(path)
    for constant in model.graph.initializer:
        if constant.data_type == onnx.TensorProto.FLOAT:
            constant.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(constant).astype(np.float64), constant.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.i == onnx.TensorProto.FLOAT:
                attribute.i = onnx.TensorProto.DOUBLE
    evaluator = ReferenceEvaluator(model)

    def evaluate(X: np.ndarray) -> np.ndarray:
        try:
            return np.asarray(evaluator.run(None, {model.graph.input[0].name: X.astype(np.float64)})[0])
        except IndexError:
            return np.full((len(X), 2), np.nan)

    return evaluate


def _slopes(evaluate: Callable[[np.ndarray], np.ndarray], x: np.ndarray, h: float) -> np.ndarray:
    """J by central differences, (K, d)."""
    moves = h * np.eye(x.size).reshape(-1, *x.shape)
    return ((evaluate(x + moves) - evaluate(x - moves)) / (2 * h)).T


def _scores(z: np.ndarray, D: np.ndarray) -> np.ndarray:
    """``√p ⊙ (D − pᵀD)`` of slopes D (K, …), relative to the likeliest class: nothing cancels where p is saturated."""
    p = softmax(z)
    E = D - D[p.argmax()]
    return np.sqrt(p).reshape(-1, *[1] * (D.ndim - 1)) * (E - np.tensordot(p, E, 1))


def _top(J: np.ndarray, z: np.ndarray) -> float:
    A = _scores(z, J)
    return float(np.linalg.norm(A, 2) ** 2) if np.isfinite(A).all() else np.nan


def float_models(known: Mapping[str, trained.Trained]) -> Iterator[Subject]:
    """Trained models with stored exact values, by gradients and by a sketch."""
    for model in known.values():
        if not model.stored:
            continue
        arrays, stored = model.arrays, model.exact
        truth = np.array([s["lambda_max"] for s in stored["samples"]])
        by_float32 = "float32" in str(stored.get("source", ""))
        yield Subject(
            model.name, model.path, arrays["inputs"], arrays["labels"], truth, slack=_FLOAT32 if by_float32 else _EXACT,
            methods=("auto", "sketch"), samples=len(truth), note="float32 differences" if by_float32 else "float64 autograd",
        )  # fmt: skip


def rounded_models(known: Mapping[str, trained.Trained]) -> Iterator[Subject]:
    """int8 and float16 files: the truth is that of their float32 original."""
    for model in known.values():
        if model.parent is None:
            continue
        parent, count = known[model.parent], 64
        found = audit(
            parent.path, parent.arrays["inputs"], parent.arrays["labels"], Settings(samples=count, replay=0, providers=("cpu",))
        )
        truth = np.array([np.nan if s.lambda_max.value is None else s.lambda_max.value for s in found.samples])
        half = "fp16" in model.name
        yield Subject(
            model.name, model.path, model.arrays["inputs"], model.arrays["labels"], truth, mean_within=_TWIN, samples=count,
            slack=_FLOAT32, methods=("auto", "sketch") if half else ("auto",), note=f"of {parent.name}, by gradients",
        )  # fmt: skip


def unknown_models(known: Mapping[str, trained.Trained]) -> Iterator[Subject]:
    """Models of which no exact value is stored."""
    for model in known.values():
        if not model.stored and model.parent is None:
            arrays = model.arrays
            yield Subject(model.name, model.path, arrays["inputs"], arrays["labels"], None, note="none stored")


def measured(subject: Subject, method: str) -> Row:
    """One audit of a subject, judged."""
    settings = Settings(samples=subject.samples, method=method, replay=0, bounds=True, providers=("cpu",), **subject.options)
    started = time.perf_counter()
    try:
        found = audit(subject.model, subject.inputs, subject.labels, settings)
    except OnnxFimError as error:
        text = " ".join(str(error).split())
        return Row(subject, method, "refused", text, "–", "–", _mean_text(subject.truth), "–", False, None, 0.0)
    seconds = time.perf_counter() - started
    return judged(subject, method, found, seconds)


def judged(subject: Subject, method: str, found: Audit, seconds: float) -> Row:
    """An audit beside the truth."""
    inconclusive = found.verdict == "inconclusive"
    errors = [f.id for f in found.findings if f.level == "error"]
    group = found.aggregates["lambda_max"].mean
    kinds = sorted({s.lambda_max.kind for s in found.samples if s.lambda_max.value is not None})
    covered, wrong = coverage(subject, found)
    mean = "none" if group.value is None else f"{group.value:.4g}"
    if group.value is not None:
        mean += " (no interval)" if group.low is None or group.high is None else f" [{group.low:.3g}, {group.high:.3g}]"
    indices = [s.index for s in found.samples if s.lambda_max.value is not None]
    truth = None if subject.truth is None else subject.truth[[i for i in indices if i < len(subject.truth)]]
    return Row(
        subject, method, found.verdict, ", ".join(errors), ", ".join(kinds) or "none", mean, _mean_text(truth), covered,
        wrong and not inconclusive, found.run.evaluations / max(len(found.samples), 1), seconds,
    )  # fmt: skip


def coverage(subject: Subject, found: Audit) -> tuple[str, bool]:
    """(how many intervals hold the truth, whether that is too few, or a value stands where there is none)."""
    with_value = [s for s in found.samples if s.lambda_max.value is not None]
    if subject.truth is None:
        claims = subject.flat and bool(with_value)
        return ("no slope exists" if claims else "–"), claims
    hits = total = 0
    values, truths, noise = [], [], []
    for s in with_value:
        if s.index >= len(subject.truth):
            continue
        e, ends = s.lambda_max, np.atleast_1d(subject.truth[s.index])
        if not np.isfinite(ends).all():
            continue
        low, high = (e.value if e.low is None else e.low), (e.value if e.high is None else e.high)
        if e.kind == "lower bound":
            high = np.inf
        hits += bool(low * (1 - subject.slack) <= ends.min() and ends.max() <= high * (1 + subject.slack))
        total += 1
        values.append(e.value)
        truths.append(ends.mean())
        noise.append((high - low) / 3.92 if e.kind == "estimate" and np.isfinite(high) else 0.0)
    if not total:
        return "–", False
    ratio = float(np.mean(values) / np.mean(truths)) if np.mean(truths) > 0 else 1.0
    text = f"{hits} of {total}, mean × {ratio:.3f}"
    if subject.mean_within is not None:
        return text, abs(ratio - 1) > subject.mean_within
    fewest = int(binom.ppf(_CHANCE, total, _LEVEL))
    own = 3 * float(np.sqrt(np.sum(np.square(noise)))) / total / float(np.mean(truths)) if np.mean(truths) > 0 else 0.0
    off = subject.truth.ndim == 1 and abs(ratio - 1) > max(own, 0.05)
    return text, hits < fewest or off


def _mean_text(truth: np.ndarray | None) -> str:
    if truth is None:
        return "none"
    if truth.ndim == 2:
        if not len(truth):
            return "–"
        means = sorted(np.nanmean(truth, axis=0))
        return f"{means[0]:.4g} to {means[1]:.4g}"
    return f"{np.nanmean(truth):.4g}" if len(truth) else "–"


HEADERS = (
    "model",
    "method",
    "verdict",
    "kind",
    "mean λ_max",
    "truth",
    "intervals that hold it",
    "passes a sample",
    "why inconclusive",
)


def cells(row: Row) -> Sequence[object]:
    """The cells of a row."""
    verdict = f"**WRONG** ({row.verdict})" if row.wrong else row.verdict
    passes = None if row.passes is None else f"{row.passes:.0f}"
    return row.subject.name, row.method, verdict, row.kind, row.mean, row.truth, row.covered, passes, row.reason or None


def page(rows: Sequence[Row]) -> str:
    """The text of docs/truth.md."""
    wrong = sum(r.wrong for r in rows)
    lines = [
        "# Against the truth",
        "",
        "What an audit says of graphs and models whose λ_max is known: small graphs with an analytic truth, trained models with float64",
        "autograd values, rounded files beside their float32 originals. No gate was set, so that the verdict of a sound audit is",
        "*measured*. A row would be WRONG where the verdict is not inconclusive and the intervals hold the truth of fewer samples than",
        "95 % intervals miss by chance, or the mean is off by more than the estimates' noise and 5 % (25 % for int8 beside float32).",
        "The models are not part of this repository (names as in the list of models that tests use). Intervals of the mean are those of",
        "the population that the samples come from; *no interval* where so few samples carry the mean that it has a lower end only.",
        "Made by `python tests/benchmarks/bench_truth.py --write`.",
        "",
        f"{len(rows)} audits, {wrong} wrong.",
        "",
        "| " + " | ".join(HEADERS) + " |",
        "|" + "---|" * len(HEADERS),
    ]
    for row in rows:
        lines.append("| " + " | ".join("–" if c is None else str(c).replace("|", "\\|") for c in cells(row)) + " |")
    return "\n".join(lines) + "\n"


def subjects(*, quick: bool) -> Iterator[Subject]:
    """All subjects; the small graphs and the sample models alone where ``quick``."""
    yield from small_graphs()
    yield from float_models(trained.OURS)
    if quick or not have_shared():
        return
    yield from rounded_models(trained.OURS)
    yield from float_models(trained.THEIRS)
    yield from rounded_models(trained.THEIRS)
    yield from unknown_models(trained.THEIRS)
    if MORE_MODELS.is_dir():
        yield from float_models(trained.MORE)
        yield from rounded_models(trained.MORE)


if __name__ == "__main__":
    options = arguments(
        __doc__,
        ("--write", {"action": "store_true", "help": "write docs/truth.md"}),
        ("--jobs", {"type": int, "default": 1, "help": "audits at a time"}),
    )
    rows: list[Row] = []

    def coming() -> Iterator[Sequence[object]]:
        chosen = (s for s in subjects(quick=options.quick) if options.models in s.name)
        with ProcessPoolExecutor(options.jobs) as pool:
            waiting = [pool.submit(measured, subject, method) for subject in chosen for method in subject.methods]
            for job in waiting:
                rows.append(job.result())
                yield cells(rows[-1])

    print_table(HEADERS, coming(), title="Against the truth")
    print(f"\n{len(rows)} audits, {sum(r.wrong for r in rows)} wrong")
    if options.write:
        PAGE.write_text(page(rows), "utf-8")
    sys.exit(any(r.wrong for r in rows))
