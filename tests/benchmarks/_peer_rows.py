"""What onnxfim and each peer did on one model: the images, the calls in turn, and how near the answers come to what is known."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeAlias

import _peers
import numpy as np
from _common import Case
from _peers import ART, CLEVER_MAXIMA, CLEVER_PER_CALL, CLEVER_POOL, FOOLBOX, TORCH, Clever
from _published import DIRECTIONS, best_of_random_directions, best_of_random_rayleigh
from bench_attack import pixel_scale
from scipy.special import softmax
from threadpoolctl import threadpool_limits

import onnxfim
from onnxfim import Settings
from onnxfim.auditing.opening import open_subject
from onnxfim.gradients.differentiable import DifferentiableModel
from onnxfim.record.statistics import spearman
from onnxfim.runtime import session as sessions
from onnxfim.runtime.hardware import Hardware

Array: TypeAlias = np.ndarray[Any, Any]
Call: TypeAlias = Callable[[], object]

SECONDS = 4.0  # of the short calls, in turn
ROUNDS = 3  # of the long ones
BATCHES = (1, 8, 32)
NEARLY, FINALISTS = 1.5, 4  # ways of PyTorch that are measured in turn: how near to the best of the trial, and how many
WHITE = 8  # samples on which the hundred backward passes are timed
SCORED, SCORED_POOL = 20, 8  # images that have a CLEVER score, and its pool in place of 1,024
POOLS = (4, 36)  # whose difference is what a pool costs
ERROR = "error {} at most"
STEP = 1e-3  # of the published black box, per unit direction


@dataclass(frozen=True)
class Subject:
    """A model, the images that all tools get, and what is known of them; ``pixel`` is one pixel unit in units of the input."""

    case: Case
    X: Array
    labels: Array
    truth: Array
    pixel: float
    shift: Array
    span: tuple[float, float]

    @property
    def pixels(self) -> Array:
        """The images in pixels from 0 to 1, float32."""
        return np.clip((self.X - self.shift) / self.pixel, 0, 1).astype(np.float32)

    @cached_property
    def session(self) -> Any:
        return sessions.open_session(self.case.path, Hardware(("cpu",)))[0]

    def logits(self, X: Array) -> Array:
        """Outputs of the file itself, (N, K)."""
        return self.session.run(None, {self.session.get_inputs()[0].name: X})[0]

    @cached_property
    def z(self) -> Array:
        return self.logits(self.X)

    @property
    def right(self) -> Array:
        """Which images the file has right, (N,)."""
        return self.z.argmax(axis=1) == self.labels


def subject(case: Case, count: int) -> Subject:
    """The first images of a model's data, those whose values are known in float64."""
    assert case.exact is not None
    known = case.exact["samples"][:count]
    at = [s["index"] for s in known]
    span, scale = pixel_scale(case)
    assert len(set(scale)) == 1, f"{case.name}: one scale for all channels is assumed"
    mean = np.zeros(1) if case.record is None else np.array(case.record["scale"]["mean"], float)
    shift = (-mean * scale[0]).reshape(-1, 1, 1)
    X = np.ascontiguousarray(case.inputs[at], np.float32)
    low, high = min(span[0], float(X.min())), max(span[1], float(X.max()))  # what rounding adds
    truth = np.array([s["lambda_max"] for s in known])
    return Subject(case, X, np.asarray(case.labels[at], np.int64), truth, scale[0], shift, (low, high))


@dataclass(frozen=True)
class Row:
    """What one tool did on one model; times are seconds a sample.

    ``near`` and ``more`` say how near it came: words with a gap, and what stands in it; ``more`` is for the page of details alone.
    """

    tool: str
    answers: str
    passes: str
    near: Mapping[str, str] = field(default_factory=dict)
    more: Mapping[str, str] = field(default_factory=dict)
    cpu: float | None = None
    wall: float | None = None
    missing: str | None = None
    note: str = ""

    def in_time(self, spent: tuple[float, ...] | None) -> Row:
        """The row with processor and wall seconds, where they were taken."""
        return self if spent is None else replace(self, cpu=spent[0], wall=spent[1])


def spent(call: Call) -> tuple[float, float]:
    """Processor and wall seconds of one call."""
    cpu, wall = time.process_time(), time.perf_counter()
    call()
    return time.process_time() - cpu, time.perf_counter() - wall


def in_turn(calls: Mapping[str, Call], seconds: float, rounds: int) -> dict[str, tuple[float, float]]:
    """Median processor and wall seconds of calls made in turn, so that they meet the same disturbances."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    start, done = time.perf_counter(), 0
    while done < rounds or time.perf_counter() - start < seconds:
        for name, call in calls.items():
            times[name].append(spent(call))
        done += 1
    return {name: (statistics.median(c for c, _ in t), statistics.median(w for _, w in t)) for name, t in times.items()}


def one_thread() -> None:
    """Let every tool have one thread; an audit leaves their number to ONNX Runtime, which takes one for each core."""
    threadpool_limits(1)
    if TORCH.missing is None:
        import torch

        torch.set_num_threads(1)
    made = sessions._session_options
    sessions._session_options = lambda _threads, *rest, **options: made(1, *rest, **options)


def fisher_factor(z: Array, J: Array) -> Array:
    """``A`` (N, K, d) with ``F = AᵀA``, from logits (N, K) and Jacobians (N, K, d), float64."""
    z, J = z.astype(np.float64), J.astype(np.float64)
    p = softmax(z, axis=1)
    J = J - J[np.arange(len(J)), z.argmax(axis=1)][:, None]  # relative to the likeliest class: nothing cancels
    return np.sqrt(p)[:, :, None] * (J - np.einsum("nk,nkd->nd", p, J)[:, None])


def top(z: Array, J: Array) -> Array:
    """lambda_max of each sample, (N,), from logits and Jacobians."""
    A = fisher_factor(z, J)
    return np.linalg.eigvalsh(A @ A.transpose(0, 2, 1))[:, -1]


def derivative(s: Subject) -> DifferentiableModel:
    """The derivative graph as an audit opens it."""
    settings = Settings(providers=("cpu",))
    source = open_subject(s.case.path, s.X, settings).differentiable
    assert source is not None
    return DifferentiableModel(
        source.proto, input_name=source.input_name, output_name=source.logits, shape=s.X.shape[1:], num_outputs=s.z.shape[1],
        settings=settings, base_dir=source.base_dir, hardware=Hardware(("cpu",)),
    )  # fmt: skip


def our_jacobians(model: DifferentiableModel, X: Array, batch: int) -> tuple[Array, Array]:
    """Logits and Jacobians of all rows, so many at a time."""
    K = model.num_outputs
    parts = []
    for start in range(0, len(X), batch):
        x = X[start : start + batch]
        U = np.ascontiguousarray(np.broadcast_to(np.eye(K, dtype=model.dtype)[:, None], (K, len(x), K)))
        z, g = model.vjp(x, U)
        parts.append((z, np.moveaxis(g.reshape(K, len(x), -1), 0, 1)))
    return np.concatenate([z for z, _ in parts]), np.concatenate([J for _, J in parts])


def black_box(s: Subject, rng: np.random.Generator) -> Array:
    """The published black box in forward passes of the file, (N,): 101 rows a sample in one call."""
    found = []
    for x in s.X:
        V = rng.standard_normal((DIRECTIONS, x.size), dtype=np.float32)
        V /= np.linalg.norm(V, axis=1, keepdims=True)
        z = s.logits(np.concatenate([x[None], x + STEP * V.reshape(-1, *x.shape)])).astype(np.float64)
        p, dz = softmax(z[0]), (z[1:] - z[0]) / STEP
        found.append((p * np.square(dz - (dz @ p)[:, None])).sum(axis=1).max())
    return np.array(found)


def off(found: Array, truth: Array) -> str:
    """The largest relative error."""
    return f"{np.abs(found / truth - 1).max():.0e}"


def share(found: Array, truth: Array) -> dict[str, str]:
    """How much of the truth a value from below is."""
    return {"{} of the truth (median)": f"{np.median(found / truth):.2g}"}


def rank(found: Array, smallest: Array) -> str:
    """Spearman's correlation over the images that have both."""
    good = np.isfinite(found) & np.isfinite(smallest)
    rho = spearman(found[good], smallest[good]) if good.sum() > 2 else None
    return "–" if rho is None else f"{rho:.2f}"


def distance(found: Array, smallest: Array) -> dict[str, str]:
    """A distance beside the smallest that is known."""
    return {"{} × the smallest L2 (median)": f"{np.nanmedian(found / smallest):.2f}", "ρ {}": rank(found, smallest)}


def trial(calls: Mapping[Any, Call], times: int) -> dict[Any, float]:
    """The least processor time of each of the calls in some trials, made in turn."""
    trials = [{name: spent(call)[0] for name, call in calls.items()} for _ in range(times)]
    return {name: min(one[name] for one in trials) for name in calls}


def least(calls: Mapping[Any, Call], times: int) -> Any:
    """Which of the calls takes least processor time in some trials."""
    costs = trial(calls, times)
    return min(costs, key=costs.__getitem__)


def fast_ways(net: Any, X: Array, K: int, trials: int) -> dict[str, Call]:
    """PyTorch's ways to the Jacobians (N, K, d) of all rows that a trial finds among the fastest, in all batches; by their names."""
    found: dict[tuple[str, int], Call] = {}
    sizes = [b for b in BATCHES if b < len(X)] + [len(X)]
    for b in sizes:
        found |= {(name, b): way for name, way in _peers.ways(net, X[:b], np.eye(K)).items() if _peers.runs(way)}
    # A trial has the largest batch's rows: the smaller are called so many times.
    costs = trial({key: lambda w=way, n=sizes[-1] // key[1]: [w() for _ in range(n)] for key, way in found.items()}, trials)
    good = sorted((key for key in costs if costs[key] <= NEARLY * min(costs.values())), key=costs.__getitem__)[:FINALISTS]

    def whole(name: str, b: int) -> Call:
        blocks = [_peers.ways(net, X[i : i + b], np.eye(K))[name] for i in range(0, len(X), b)]
        return lambda: np.concatenate([_peers.jacobian_of(name, way) for way in blocks])

    return {f"{name}, {b} at a time": whole(name, b) for name, b in good}


def slopes(s: Subject, net: Any, *, quick: bool) -> list[Row]:
    """Everything that gives lambda_max alone."""
    n, K = s.z.shape
    why = TORCH.missing
    trials = 1 if quick else 3
    model = derivative(s)
    batch = least({b: lambda b=b: our_jacobians(model, s.X, b) for b in BATCHES if b <= n}, trials + 1)
    calls: dict[str, Call] = {
        "ours": lambda: top(*our_jacobians(model, s.X, batch)),
        "black": lambda: black_box(s, np.random.default_rng(0)),
    }
    few, way = min(WHITE, n), ""
    jacobians: dict[str, Call] = {}
    if net is not None:
        jacobians = fast_ways(net, s.X, K, trials)
        calls |= {name: lambda made=made: top(s.z, made()) for name, made in jacobians.items()}
        backward = _peers.ways(net, s.X[:few], np.random.default_rng(0).standard_normal((DIRECTIONS, K)))
        backward = {name: call for name, call in backward.items() if not name.startswith("vmap")}  # which has no cotangents
        calls["white"] = backward[least(backward, trials)]
    took = in_turn(calls, 0.0 if quick else SECONDS, 1 if quick else ROUNDS)

    if jacobians:
        way = min(jacobians, key=lambda name: took[name][0])

    def each(name: str, rows: int = n) -> tuple[float, ...] | None:
        return tuple(t / rows for t in took[name]) if name in took else None

    A = fisher_factor(*our_jacobians(model, s.X, batch))
    rng = np.random.default_rng(1)
    undisturbed = np.array([best_of_random_directions(a, rng) for a in A])
    rayleigh = np.array([best_of_random_rayleigh(a, rng) for a in A])
    black = share(black_box(s, np.random.default_rng(0)), s.truth)
    exact, below, backwards = "λ_max, exact", "λ_max, from below", f"1 + {K}"
    return [
        Row(
            "onnxfim, its derivative graph", exact, backwards, {ERROR: off(top(*our_jacobians(model, s.X, batch)), s.truth)},
            note=f"{batch} at a time",
        ).in_time(each("ours")),
        Row(
            "PyTorch on the same weights", exact, backwards,
            {ERROR: off(top(s.z, jacobians[way]()), s.truth)} if jacobians else {}, missing=why, note=way,
        ).in_time(each(way)),
        Row(
            f"published, {DIRECTIONS} random directions", below, f"{DIRECTIONS + 1} + 0", black,
            note=f"forward passes of the file; without the error of its differences {np.median(undisturbed / s.truth):.2g}",
        ).in_time(each("black")),
        Row(
            f"published, {DIRECTIONS} Rayleigh quotients", below, f"1 + {DIRECTIONS}", share(rayleigh, s.truth), missing=why,
            note="backward passes of PyTorch",
        ).in_time(each("white", few)),
    ]  # fmt: skip


def audited(s: Subject, **more: Any) -> onnxfim.Audit:
    """An audit of the images at default settings."""
    return onnxfim.audit(s.case.path, s.X, s.labels, Settings(providers=("cpu",), attack_range=s.span, **more))


def values(found: onnxfim.Audit, measure: str) -> Array:
    """A measure of all samples in their order, NaN where it has no value."""
    got = [getattr(sample, measure) for sample in sorted(found.samples, key=lambda sample: sample.index)]
    return np.array([np.nan if e is None or e.value is None else e.value for e in got])


def distances(s: Subject, net: Any, *, quick: bool) -> list[Row]:
    """Everything that tells how far an image is from another class; on those that the file has right, in pixel units."""
    right = s.right
    kept: dict[str, Any] = {}

    def keep(name: str, made: Callable[[], Any]) -> Call:
        return lambda: kept.__setitem__(name, made())

    calls: dict[str, Call] = {
        "audit": keep("audit", lambda: audited(s)),
        "attack": keep("attack", lambda: audited(s, attack="l2", attack_samples=len(s.X))),
    }
    pixels = None if net is None else _peers.from_pixels(net, s.pixel, s.shift)
    reasons = {peer.name: peer.missing for peer in (FOOLBOX, ART)}
    if reasons["foolbox"] is None:
        calls["ddn"] = keep("ddn", lambda: _peers.ddn(pixels, s.pixels[right], s.labels[right]))
    clever = None
    if reasons["ART"] is None:
        clever = Clever(pixels, s.X.shape[1:], s.z.shape[1])
        at = int(np.flatnonzero(right)[0])
        for pool in POOLS:
            calls[f"pool {pool}"] = lambda pool=pool: clever.one_class(s.pixels[at], int(s.labels[at]), pool)
    took = in_turn(calls, 0.0, 1 if quick else ROUNDS)
    found = {
        "attack": values(kept["attack"], "attack_distance")[right] / s.pixel,
        "flip": values(kept["audit"], "flip_radius")[right] / s.pixel,
    }
    if "ddn" in kept:
        moved = kept["ddn"]
        wrong = s.logits((moved * s.pixel + s.shift).astype(np.float32)).argmax(axis=1) != s.labels[right]
        length = np.linalg.norm((moved - s.pixels[right]).reshape(len(moved), -1), axis=1)
        found["ddn"] = np.where(wrong, length, np.nan)
    smallest = np.nanmin(np.stack(list(found.values())), axis=0)
    near = {name: distance(d, smallest) for name, d in found.items()}
    n, found_l2 = len(s.X), "smallest L2 change found"
    boundary = rank(values(kept["audit"], "boundary_distance")[right], smallest)
    calibrated = rank(-values(kept["audit"], "lambda_max_calibrated")[right], smallest)
    ours = {
        f"λ_max: {ERROR}": off(values(kept["audit"], "lambda_max"), s.truth),
        **{f"flip radius: {words}" if "×" in words else words: value for words, value in near["flip"].items()},
    }
    more = {"boundary distance: ρ {}": boundary, "λ_max, calibrated: ρ {}": calibrated}
    per = {name: (cpu / n, wall / n) for name, (cpu, wall) in took.items()}
    extra = tuple(max(0.0, a - b) for a, b in zip(per["attack"], per["audit"], strict=True))
    return [
        Row(
            "onnxfim, whole default audit", "λ_max with its interval, calibrated too; boundary distance; flip radius; bound; findings",
            f"{kept['audit'].run.evaluations / n:.0f}", near=ours, more=more, note="opening, self-test and replay included",
        ).in_time(per["audit"]),
        Row(
            "onnxfim, `--attack l2` beside it", found_l2, f"{kept['attack'].attack.evaluations / n:.0f}", near=near["attack"],
            note="with the attack at one radius",
        ).in_time(extra),
        Row("foolbox, DDN of 100 steps", found_l2, "100 + 100", near=near.get("ddn", {}), missing=reasons["foolbox"]).in_time(
            tuple(t / right.sum() for t in took["ddn"]) if "ddn" in took else None
        ),
        clever_row(s, clever, took, smallest, reasons["ART"], quick=quick),
    ]  # fmt: skip


def clever_row(
    s: Subject, clever: Clever | None, took: Mapping[str, tuple[float, float]], smallest: Array, why: str | None, *, quick: bool
) -> Row:
    """CLEVER: its cost scaled up from two small pools and one of the other classes, its scores from a small pool."""
    others = s.z.shape[1] - 1
    passes = f"{CLEVER_POOL * CLEVER_PER_CALL * 2 * others:,}"
    tool, answers = f"ART, CLEVER of {CLEVER_MAXIMA} × {CLEVER_POOL:,} (cost scaled up)", "a lower bound of L2 changes, estimated"
    row = Row(tool, answers, f"{passes} + {passes}", missing=why)
    if clever is None:
        return row
    small, large = (took[f"pool {pool}"] for pool in POOLS)
    cpu, wall = (
        others * (a + (CLEVER_POOL - POOLS[0]) * (b - a) / (POOLS[1] - POOLS[0])) for a, b in zip(small, large, strict=True)
    )
    count, pool = (3, 1) if quick else (SCORED, SCORED_POOL)
    scores = np.array([clever.score(x, pool) for x in s.pixels[s.right][:count]])
    known = smallest[:count]
    near = {**distance(scores, known), "above it on {} images": f"{int((scores > known).sum())} of {len(scores)}"}
    note = f"cost scaled from pools of {POOLS[0]} and {POOLS[1]} and one of {others} classes; {len(scores)} scores, pools of {pool}"
    return replace(row, near=near, cpu=cpu, wall=wall, note=note)


#: What is measured of a model together.
PARTS = {"slopes": slopes, "distances": distances}


def measured(case: Case, part: str, *, quick: bool) -> list[Row]:
    """The rows of one part of a model."""
    s = subject(case, 5 if quick else 32)
    why = TORCH.missing
    return PARTS[part](s, None if why else _peers.torch_net(case.path, s.X, s.z), quick=quick)
