"""Certified radii of local bounds: never above an attack's, by how much above the weights' bound, and what they cost.

Run by hand: ``python tests/benchmarks/bench_local_bounds.py [--quick] [--models TEXT] [--samples N]``. Lengths are in pixel units (0
to 1) of pictures, in the model's own else. Of each sample that is classified right: the certified radius in L2 and L∞, the smallest
attack that `onnxfim audit --attack` finds, and the L2 radius that the weights' Lipschitz bound leaves. Then attacks inside the
certified radii, each a sample at a distance: projected gradients from random starts where there is a gradient, and random points. No
try may succeed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from _common import Case, arguments, case_of, have_shared, print_table, shared_cases
from bench_attack import pixel_scale
from threadpoolctl import threadpool_limits

from onnxfim.auditing.instruments import scale_field
from onnxfim.auditing.opening import open_subject
from onnxfim.auditing.run import audit
from onnxfim.auditing.stages.local_bounds import _APART, _MOST
from onnxfim.errors import OnnxFimError
from onnxfim.gradients.differentiable import DifferentiableModel
from onnxfim.graph.ends import ending
from onnxfim.graph.load import load_model
from onnxfim.record.settings import Settings
from onnxfim.relaxed.around import Norm, NormBall
from onnxfim.relaxed.network import StepNetwork, network
from onnxfim.relaxed.radius import RadiusSearch
from onnxfim.runtime.hardware import Hardware
from onnxfim.slopes.attacks import Threat, pgd
from tests.support import trained

NORMS: tuple[Norm, ...] = ("l2", "linf")
CPU = Hardware(("cpu",))
SHARES = np.repeat(np.array([1.0, 0.999, 0.9, 0.75]), 8)  # of the certified radius: 64 tries of each sample and norm, in two ways
STEPS = 10


@dataclass(frozen=True)
class Certified:
    """Radii of one norm, (n,), and processor seconds of a sample."""

    radii: np.ndarray
    seconds: float


def network_of(case: Case) -> tuple[StepNetwork, float]:
    """The network of a file, and by how much its scores have to differ."""
    graph = load_model(case.path).graph
    output = graph.outputs[0].name
    end = ending(graph, output)
    scores = end.logits or output
    found = network(graph, input_name=graph.inputs[0].name, scores=scores, sample_shape=case.inputs.shape[1:])
    return found, _APART if end.logits else 0.0


def certified(net: StepNetwork, apart: float, norm: Norm, X: np.ndarray, predictions: np.ndarray, scale: np.ndarray) -> Certified:
    search = RadiusSearch(net, NormBall(norm, scale), apart)
    with threadpool_limits(limits=1):
        started = time.process_time()
        radii = np.array([search.radius(x, int(c)) for x, c in zip(X, predictions, strict=True)])
        return Certified(radii, (time.process_time() - started) / max(len(X), 1))


def attacked(case: Case, norm: Norm, count: int) -> Any:
    """An audit with the smallest attack of each sample; None where there is no gradient."""
    span, scale = units_of(case)
    settings = Settings(samples=count, replay=0, flip=False, attack=norm, attack_range=span, input_scale=scale, providers=("cpu",))
    try:
        return audit(case.path, case.inputs, case.labels, replace(settings, method="gradient"))
    except OnnxFimError:
        return audit(case.path, case.inputs[:count], case.labels[:count], replace(settings, attack=None, budget=16))


def units_of(case: Case) -> tuple[tuple[float, float] | None, tuple[float, ...]]:
    """Range of the model's input and d(model input)/d(pixel); the model's own units of what is no picture."""
    if case.record is not None and "mean" not in case.record["scale"]:
        return None, (1.0,)
    return pixel_scale(case)


def tries(case: Case, norm: Norm, X: np.ndarray, predictions: np.ndarray, radii: np.ndarray, scale: np.ndarray) -> tuple[int, int]:
    """How many tries there were inside the certified radii, and how many of them changed the file's own prediction."""
    good = radii > 0
    if not good.any():
        return 0, 0
    x, c = np.repeat(X[good], len(SHARES), axis=0), np.repeat(predictions[good], len(SHARES))
    r = np.repeat(radii[good], len(SHARES)) * np.tile(SHARES, int(good.sum()))
    field = scale.reshape(X.shape[1:])
    threat = Threat(norm, -np.inf, np.inf, field)
    rng = np.random.default_rng(3)
    settings = Settings(providers=("cpu",))
    subject = open_subject(case.path, X, settings)
    moves = [random_moves(x, r, norm, field, rng)]
    try:
        source = subject.differentiable
        if source is None:
            raise OnnxFimError("no gradient")
        model = DifferentiableModel(
            source.proto, input_name=source.input_name, output_name=source.logits, shape=X.shape[1:],
            num_outputs=subject.info.num_outputs, settings=settings, base_dir=source.base_dir, hardware=CPU,
        )  # fmt: skip
        moves.append(pgd(model.loss_gradient, x, c, threat, r, steps=STEPS, restarts=2, rng=rng)[1])
    except OnnxFimError:
        moves.append(random_moves(x, r, norm, field, rng))
    broken = 0
    for delta in moves:
        moved = (x + delta).astype(x.dtype)
        size = threat.size(moved.astype(np.float64) - x)
        inside = size <= np.repeat(radii[good], len(SHARES))  # rounding to the input's type may lead out
        z = subject.forward.outputs(moved)
        broken += int(((z[:, :, 0].argmax(axis=1) != c) & inside).sum())
    return len(x) * len(moves), broken


def random_moves(x: np.ndarray, r: np.ndarray, norm: Norm, field: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    v = rng.standard_normal(x.shape)
    length = r.reshape(-1, *(1,) * (x.ndim - 1))
    if norm == "linf":
        return np.asarray(np.sign(v) * length * field)
    return np.asarray(v / np.sqrt((v**2).sum(axis=tuple(range(1, x.ndim)), keepdims=True)) * length * field)


def rows_of(cases: list[Case], count: int, totals: dict[str, int]) -> Iterator[list[object]]:
    for case in cases:
        try:
            net, apart = network_of(case)
        except OnnxFimError as error:
            yield [case.name, None, None, None, None, None, None, None, None, str(error)[:70]]
            continue
        if net.cost > _MOST:
            yield [case.name, None, None, None, None, None, None, None, None, f"too large: {net.cost:.0e} multiplications"]
            continue
        _, given = units_of(case)
        field = scale_field(given, case.inputs.shape[1:])
        scale = np.ones(net.size) if field is None else field.ravel()
        X = case.inputs[:count]
        predictions = open_subject(case.path, X, Settings(providers=("cpu",))).forward.outputs(X)[:, :, 0].argmax(axis=1)
        right = predictions == case.labels[:count]
        X, predictions = X[right], predictions[right]
        found = {norm: certified(net, apart, norm, X, predictions, scale) for norm in NORMS}
        audits = {norm: attacked(case, norm, count) for norm in NORMS}
        above = 0
        shares: list[str | None] = []
        for norm in NORMS:
            t, b = tries(case, norm, X, predictions, found[norm].radii, scale)
            totals["tries"] += t
            totals["broken"] += b
            by = {s.index: s.attack_distance.value for s in audits[norm].samples if s.attack_distance is not None}
            reached = np.array([np.inf if (d := by.get(int(i))) is None else d for i in np.flatnonzero(right)])
            above += int((found[norm].radii > reached).sum()) + b
            usual = float(np.median(reached))
            shares.append(f"{np.median(found[norm].radii) / usual:.1%}" if math.isfinite(usual) else None)
        totals["above"] += above
        decades = None
        bound = audits["l2"].bound
        if bound is not None and bound.available and bound.log10_lipschitz is not None:
            odds = np.array([math.log(max(min(s.confidence, 1 - 1e-12) - 1e-6, 0.5) / (1 - max(min(s.confidence, 1 - 1e-12) - 1e-6, 0.5)))
                             for s in audits["l2"].samples])[right]  # fmt: skip
            weights = odds / (math.sqrt(2) * 10**bound.log10_lipschitz * scale.max())
            ok = (weights > 0) & (found["l2"].radii > 0)
            decades = f"{np.median(np.log10(found['l2'].radii[ok] / weights[ok])):+.1f}" if ok.any() else None
        l2, linf = found["l2"], found["linf"]
        yield [
            case.name, len(X), f"{np.median(l2.radii):.3g}", shares[0], decades, f"{np.median(linf.radii):.3g}", shares[1],
            f"{(l2.radii > 0).mean():.0%}", f"{l2.seconds:.2f} / {linf.seconds:.2f}", above,
        ]  # fmt: skip


def main() -> None:
    given = arguments(__doc__, ("--samples", {"type": int, "default": 16, "help": "samples of each model"}))
    cases = [case_of(m) for m in trained.OURS.values()]
    if not given.quick and have_shared():
        cases += shared_cases()
    cases = [c for c in cases if given.models in c.name]
    if given.quick:
        cases = [c for c in cases if c.name == "digits_mlp"] or cases[:1]
    totals = {"tries": 0, "broken": 0, "above": 0}
    headers = ["model", "right", "L2 radius, median", "of the attack's", "decades over the weights", "L∞ radius, median",
               "of the attack's", "above 0", "processor s, L2 / L∞", "above an attack"]  # fmt: skip
    print_table(headers, rows_of(cases, given.samples, totals), title="Certified radii by local bounds")
    print(f"\n{totals['tries']:,} tries inside certified radii, {totals['broken']} changed a prediction; "
          f"{totals['above']} radii above an attack's")  # fmt: skip


if __name__ == "__main__":
    main()
