"""How often a baseline comparison is wrong: a model against itself, and against copies whose mean lambda_max is 20 % higher.

Every audit is made at the step and scheme that the first one chose, as the command line re-uses a baseline's. Paired audits share
the baseline's seed, unpaired ones have the next. The copies are made by scaling weights until the exact mean over the samples is
1.2 times the original's: the last layer (the logits, for the raw measure; a temperature undoes this) and the first layer (for the
calibrated one). A fail by a usual sample alone (`verdict/typical.py`) is counted apart.

`--swapped` draws pairs of unlike models whose samples change places at random: nothing is to be decided of them, in any measure.

    python tests/benchmarks/bench_gates.py --model sample_models/digits_resnet.onnx --seeds 200
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations, product
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from scipy.optimize import brentq

from onnxfim import Audit, Settings, audit
from onnxfim.record.sample import SampleResult
from onnxfim.verdict import compare_to_baseline

ROOT = Path(__file__).resolve().parents[2]
MODELS = [ROOT / f"sample_models/digits_{name}.onnx" for name in ("mlp", "resnet", "resnet_adv", "vgg", "vit")]
RISE = 1.2
LIMIT = 0.1  # the command line's default


def weights_of(proto: onnx.ModelProto, *, last: bool) -> list[str]:
    """Names of the weights to scale: weight and bias of the last layer, the weight alone of the first."""
    constants = {i.name for i in proto.graph.initializer}
    layers = [n for n in proto.graph.node if n.op_type in ("Conv", "Gemm", "MatMul")]
    if last:
        return [i for i in layers[-1].input[1:] if i in constants]
    return [layers[0].input[1]]


def scaled(model: Path, factor: float, folder: Path, *, last: bool) -> Path:
    """A copy of the model with one layer's weights multiplied."""
    proto = onnx.load(model)
    names = weights_of(proto, last=last)
    for tensor in proto.graph.initializer:
        if tensor.name in names:
            tensor.CopyFrom(numpy_helper.from_array((numpy_helper.to_array(tensor) * factor).astype(np.float32), tensor.name))
    path = folder / f"{model.stem}_{'last' if last else 'first'}_{factor:.6f}.onnx"
    onnx.save(proto, path)
    return path


def regressed(model: Path, measure: str, exact: Callable[[Path], Audit], folder: Path) -> tuple[Path, float]:
    """A copy whose exact mean of ``measure`` is 1.2 times the model's, and the ratio that was reached."""
    last = measure == "lambda_max"

    def mean(path: Path) -> float:
        return float(exact(path).aggregates[measure].mean.value or np.nan)

    goal = RISE * mean(model)
    factors = np.array([0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.5, 2.0])
    means = np.array([mean(scaled(model, f, folder, last=last)) for f in factors])
    crossings = [i for i in range(len(factors) - 1) if (means[i] - goal) * (means[i + 1] - goal) < 0]
    if not crossings:
        raise SystemExit(f"no scale of the weights gives {measure} times {RISE}: {dict(zip(factors, means, strict=True))}")
    at = min(crossings, key=lambda i: abs(factors[i] - 1))
    factor = brentq(lambda f: mean(scaled(model, f, folder, last=last)) - goal, factors[at], factors[at + 1], xtol=1e-5)
    path = scaled(model, factor, folder, last=last)
    return path, mean(path) / mean(model)


def swapped(audits: Sequence[Audit], draws: int) -> None:
    """How often two models whose samples change places at random are told to differ, in each pair of audits of one method."""
    rng = np.random.default_rng(0)
    found: Counter[tuple[str, str, float]] = Counter()
    for one, other in combinations(audits, 2):
        if one.run.method != other.run.method:
            continue
        for measure, limit in product(("lambda_max_calibrated", "lambda_max"), (0.0, LIMIT)):
            for _ in range(draws):
                turned = rng.random(len(one.samples)) < 0.5
                pairs = [(a, b)[::-1] if t else (a, b) for a, b, t in zip(one.samples, other.samples, turned, strict=True)]
                now, then = (_at_known_temperature(one, [p[k] for p in pairs]) for k in (0, 1))
                c = compare_to_baseline(now, then, limit, measure=measure, scope="population")
                found[one.run.method, measure, limit] += 1
                for name in c.decided_by if c.verdict == "fail" else ():
                    found[one.run.method, f"{measure}: fail by {name}", limit] += 1
                found[one.run.method, f"{measure}: a usual sample is beyond", limit] += any(t.beyond for t in c.typical)
    for key, number in sorted(found.items()):
        print(*key, number)


def _at_known_temperature(audit: Audit, samples: Sequence[SampleResult]) -> Audit:
    """Temperatures belong to a whole audit, which such pairs are not: they are taken as known."""
    known = [replace(s, lambda_max_calibrated=replace(s.lambda_max_calibrated, at_temperatures=())) for s in samples]  # type: ignore[type-var]
    return replace(audit, samples=tuple(known), calibration=replace(audit.calibration, influences=(), log_error=0.0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "sample_models/digits_resnet.onnx")
    parser.add_argument("--data", type=Path, default=ROOT / "sample_models/digits.npz")
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--swapped", type=int, default=0, metavar="DRAWS")
    options = parser.parse_args()
    with np.load(options.data) as data:
        X, labels = data["inputs"], data["labels"]
    common = Settings(samples=options.samples, providers=("cpu",), batch=256)
    started = time.perf_counter()

    def run(path: Path, settings: Settings) -> Audit:
        return audit(path, X, labels, settings)

    if options.swapped:
        swapped([run(p, replace(common, method=m)) for m in ("gradient", "sketch") for p in MODELS], options.swapped)
        return
    verdicts: dict[tuple[str, str, str, str, float], Counter[str]] = {}
    ratios: dict[tuple[str, str, str], list[float]] = {}

    def record(case: str, measure: str, pairing: str, now: Audit, base: Audit, limits: tuple[float, ...]) -> None:
        for scope, limit in [("samples", limit) for limit in limits] + [("population", LIMIT)]:
            found = compare_to_baseline(now, base, limit, measure=measure, scope=scope)
            assert found.paired == (pairing == "paired")
            verdicts.setdefault((case, measure, pairing, scope, limit), Counter())[found.verdict] += 1
            if found.verdict == "fail" and not found.decided_by[0].endswith(".mean"):
                verdicts[case, measure, pairing, scope, limit]["usual"] += 1
        ratios.setdefault((case, measure, pairing), []).append(float(found.ratio.value or np.nan))

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        copies = {}
        for measure in ("lambda_max_calibrated", "lambda_max"):
            copies[measure], reached = regressed(
                options.model, measure, lambda p: run(p, replace(common, method="exact", step=1e-4, scheme="central")), folder
            )
            print(f"{measure}: exact mean of the copy is {reached:.5f} times the model's")
        first = run(options.model, replace(common, method="sketch"))
        settings = replace(common, method="sketch", step=first.run.step, scheme=first.run.scheme)
        previous: Audit | None = None
        for seed in range(options.seeds + 1):
            at_seed = replace(settings, seed=seed)
            base = run(options.model, at_seed)
            again = run(options.model, at_seed) if seed < 5 else base  # repeats are equal; a few runs show it
            worse = {measure: run(copy, at_seed) for measure, copy in copies.items()}
            for measure in copies:
                if seed < options.seeds:
                    record("itself", measure, "paired", again, base, (LIMIT, 0.0))
                    record("20 % worse", measure, "paired", worse[measure], base, (LIMIT, RISE - 1))
                if previous is not None:
                    record("itself", measure, "unpaired", base, previous, (LIMIT, 0.0))
                    record("20 % worse", measure, "unpaired", worse[measure], previous, (LIMIT, RISE - 1))
            previous = base
    print(f"{options.model.name}, {options.samples} samples, budget {common.budget}, {options.seeds} seeds, "
          f"{time.perf_counter() - started:.0f} s\n")  # fmt: skip
    print(
        "| against | measure | pairing | about | allowed rise | fail | by a usual sample alone | inconclusive | pass | ratio, mean ± sd |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for (case, measure, pairing, scope, limit), found in sorted(verdicts.items()):
        shares = " | ".join(f"{found[v] / options.seeds:.1%}" for v in ("fail", "usual", "inconclusive", "pass"))
        r = np.array(ratios[case, measure, pairing])
        print(f"| {case} | {measure} | {pairing} | {scope} | {limit:.0%} | {shares} | {r.mean():.4f} ± {r.std():.4f} |")


if __name__ == "__main__":
    main()
