"""Predictions under random noise: is what is said so, what does it cost, and what does it tell apart?

python tests/benchmarks/bench_noise.py coverage   # simulated audits: how often all that is said holds at once
python tests/benchmarks/bench_noise.py passes     # looks against confidence sequences, exactly: rows and decided share
python tests/benchmarks/bench_noise.py decided    # the sample models: decided share against rows
python tests/benchmarks/bench_noise.py twins      # float32, float16 and int8 side by side
python tests/benchmarks/bench_noise.py planted    # 200 audits of a file that fails with a known chance
python tests/benchmarks/bench_noise.py speed      # processor time of a row with noise over that of a bare row

--quick makes a small part of each.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from _common import SAMPLE_MODELS, arguments, print_table
from scipy.special import betaln

import onnxfim
from onnxfim import Settings
from onnxfim.graph.load import load_model
from onnxfim.record.noises import noises
from onnxfim.record.successive_looks import CHUNK, looks, noise_level
from onnxfim.runtime.forward import OnnxForward
from onnxfim.runtime.hardware import Hardware
from onnxfim.slopes.kinds import SoftmaxLogits
from onnxfim.slopes.noisy_rows import NoisyRows
from onnxfim.verdict.noise_shares import population
from tests.support import models
from tests.support.failing_under_noise import at_rest, failing
from tests.support.simulated_looks import borders_of, exact_chances, simulated_audits

SHARE, BUDGET = 0.99, 4000
QUICK: dict[str, Any] = {"replay": 0, "bounds": False, "flip": False, "providers": ("cpu",)}
TRUTHS = (1.0, 0.9999, 0.999, 0.998, 0.997, 0.995, 0.9901, 0.9899, 0.985, 0.98, 0.97, 0.95, 0.9, 0.5)


def coverage(quick: bool) -> None:
    """Whole audits by the code that decides: samples of known shares, drawn from a population of which the stable part is known."""
    audits, n = (300, 50) if quick else (5000, 50)
    mixtures = {
        "all just below: 0.9899": ((0.9899,), (1.0,)),
        "all at it: 0.99": ((0.99,), (1.0,)),
        "all at 0.97": ((0.97,), (1.0,)),
        "half 0.9895, half 0.9905": ((0.9895, 0.9905), (0.5, 0.5)),
        "9 of 10 at 0.9999, 1 at 0.98": ((0.9999, 0.98), (0.9, 0.1)),
        "1, 0.999, 0.995, 0.985, 0.9": ((1.0, 0.999, 0.995, 0.985, 0.9), (0.3, 0.3, 0.1, 0.1, 0.2)),
    }

    def rows() -> Iterator[list[Any]]:
        for name, (values, weights) in mixtures.items():
            rng = np.random.default_rng(0)
            p = rng.choice(values, (audits, n), p=weights)
            true = float(sum(w for v, w in zip(values, weights, strict=True) if v >= SHARE))
            plan = looks(SHARE, noise_level(n, 1), BUDGET)
            found = simulated_audits(plan, p, rng)
            held, right = found.held.all(axis=1), found.right.all(axis=1)
            pairs = list(zip(found.stable.sum(axis=1).tolist(), (n - found.unstable.sum(axis=1)).tolist(), strict=True))
            ends = {pair: population(*pair, n, 1) for pair in set(pairs)}
            whole = np.array([ends[pair][0] <= true <= ends[pair][1] for pair in pairs])
            each = [f"{100 * np.mean(v):.2f} %" for v in (held, right, whole, held & right & whole)]
            yield [name, *each, f"{100 * (found.stable | found.unstable).mean():.0f} %", f"{found.tries.mean():,.0f}"]

    head = [
        "true shares",
        "all intervals hold (99 %)",
        "no wrong decision (99 %)",
        "population (96 %)",
        "all at once (95 %)",
        "decided",
    ]
    print_table([*head, "rows a sample"], rows(), title=f"{audits:,} audits of {n} samples, {SHARE:g}, {BUDGET:,} rows at most")
    print("\nThe same with a level ten times as high, so that a missing correction would show:")
    loose = looks(SHARE, 10 * noise_level(n, 1), BUDGET)
    found = simulated_audits(loose, np.full((audits, n), SHARE), np.random.default_rng(1))
    print(f"all intervals hold at a nominal 90 %: {100 * found.held.all(axis=1).mean():.2f} %")


def passes(quick: bool) -> None:
    """Rows that a sample takes and how often it is decided, exactly: our looks, and confidence sequences looked at every 32 rows."""
    level = noise_level(200, 1)
    plans: dict[str, list[tuple[int, int, int]]] = {"looks": borders_of(looks(SHARE, level, BUDGET))}
    for a, b in ((0.5, 0.5), (0.5, 50.0), (0.1, 1.0)):
        plans[f"beta mixture {a:g}, {b:g}"] = mixture(level, a, b)
    truths = TRUTHS[::3] if quick else TRUTHS
    told = {name: [exact_chances(plan, p) for p in truths] for name, plan in plans.items()}
    rows = ([name, *(f"{c.tries:,.0f}" for c in found)] for name, found in told.items())
    print_table(["rows", *map(str, truths)], rows, title=f"level {level:g} of a sample (200 samples), {BUDGET:,} rows at most")
    shares = ([name, *(f"{100 * (c.stable + c.unstable):.1f} %" for c in found)] for name, found in told.items())
    print_table(["decided", *map(str, truths)], shares)


def mixture(level: float, a: float, b: float) -> list[tuple[int, int, int]]:
    """Borders of a confidence sequence: a share is left out where the mixture of all others is 1/level times as likely.

    Robbins (1970), Annals of Mathematical Statistics 41; failures have a Beta(a, b) prior. Valid at every number of rows.
    """
    found = []
    for tries in range(CHUNK, BUDGET + 1, CHUNK):
        lost = np.arange(tries + 1)
        ratio = betaln(a + lost, b + tries - lost) - betaln(a, b) - lost * math.log(1 - SHARE) - (tries - lost) * math.log(SHARE)
        out = ratio >= math.log(1 / level)
        fewer, more = out & (lost < tries * (1 - SHARE)), out & (lost > tries * (1 - SHARE))
        found.append((tries, int(np.flatnonzero(fewer).max(initial=-1)), int(np.flatnonzero(more).min(initial=tries + 1))))
    return found


def digits(n: int) -> tuple[np.ndarray, np.ndarray]:
    with np.load(SAMPLE_MODELS / "digits.npz") as data:
        return data["inputs"][:n], data["labels"][:n]


def decided(quick: bool) -> None:
    """How many samples are decided by so many rows at most."""
    X, y = digits(60 if quick else 200)
    names = (
        ("digits_mlp", "digits_resnet")
        if quick
        else ("digits_mlp", "digits_resnet", "digits_vgg", "digits_vit", "digits_resnet_int8")
    )
    budgets = (500, 4000) if quick else (250, 500, 1000, 2000, 4000, 8000)

    def rows() -> Iterator[list[Any]]:
        for name in names:
            for noise in ("gaussian:0.1", "uniform:0.3"):
                with tempfile.TemporaryDirectory() as cache:
                    cells = []
                    for budget in budgets:
                        settings = Settings(**{**QUICK, "method": "sketch", "budget": 12}, noise=(noise,), noise_budget=budget)
                        (found,) = onnxfim.audit(SAMPLE_MODELS / f"{name}.onnx", X, y, settings, cache_dir=cache).noise
                        left = found.samples - found.stable_samples - found.unstable_samples
                        share = 100 * (1 - left / found.samples)
                        cells.append(
                            f"{share:.0f} % ({found.stable_samples}/{found.unstable_samples}), {found.tries / found.samples:,.0f}"
                        )
                yield [name, noise, *cells]

    title = f"{len(X)} samples: decided (stable/unstable), rows a sample; by rows at most"
    print_table(["model", "noise", *(f"{b:,}" for b in budgets)], rows(), title=title)


def twins(quick: bool) -> None:
    """One network in float32, float16 and int8 under the same noise: the very same rows."""
    X, y = digits(60 if quick else 300)
    sizes = ("gaussian:0.1",) if quick else ("gaussian:0.05", "gaussian:0.1", "gaussian:0.2", "uniform:8/255")

    def rows() -> Iterator[list[Any]]:
        every = {}
        for name in ("digits_resnet", "digits_resnet_fp16", "digits_resnet_int8"):
            settings = Settings(**{**QUICK, "method": "sketch", "budget": 12}, noise=sizes)
            every[name] = onnxfim.audit(SAMPLE_MODELS / f"{name}.onnx", X, y, settings)
        for k, noise in enumerate(sizes):
            first = [s.noise[k] for s in every["digits_resnet"].samples]
            for name, audit in every.items():
                s, own = audit.noise[k], [t.noise[k] for t in audit.samples]
                other = sum(
                    a.decided != b.decided and "open" not in (a.decided, b.decided) for a, b in zip(first, own, strict=True)
                )
                share = f"{100 * (s.population.value or 0):.1f} % ({100 * (s.population.low or 0):.1f} to {100 * (s.population.high or 0):.1f})"
                open_ones = s.samples - s.stable_samples - s.unstable_samples
                yield [noise, name, s.stable_samples, s.unstable_samples, open_ones, share, other, f"{s.tries:,}"]

    head = [
        "noise",
        "file",
        "stable",
        "unstable",
        "open",
        "stable share of the population (95 %)",
        "decided otherwise than float32",
        "rows",
    ]
    print_table(head, rows(), title=f"{len(X)} samples, keep their prediction with 99 %")


def planted(quick: bool) -> None:
    """Whole audits of a file that changes its class with a known chance: what it is called."""
    runs, n = (10, 8) if quick else (200, 8)

    def rows() -> Iterator[list[Any]]:
        for chance in (0.03, 0.011, 0.009, 0.001, 0.0001):
            with tempfile.TemporaryDirectory() as folder:
                path = models.save(failing(chance, 0.2), Path(folder) / "model.onnx")
                counts, tries, gates = {"stable": 0, "unstable": 0, "open": 0}, 0, 0
                wrong, calls = 0, 0
                for seed in range(runs):
                    settings = Settings(
                        **{**QUICK, "method": "sketch", "budget": 12}, noise=("gaussian:0.2",), seed=seed, batch=1000
                    )
                    audit = onnxfim.audit(path, at_rest(n, seed=seed), settings=settings)
                    for s in audit.samples:
                        (t,) = s.noise
                        counts[t.decided] += 1
                        calls += t.decided == "stable"
                        wrong += not t.low <= 1 - chance <= t.high
                    gates += any(s.noise[0].decided == "stable" for s in audit.samples)
                    tries += audit.noise[0].tries
            total = runs * n
            yield [
                f"{100 * chance:g} %",
                *(f"{100 * counts[k] / total:.1f} %" for k in counts),
                gates,
                wrong,
                f"{tries / total:,.0f}",
            ]

    head = [
        "fails with",
        "called 99 % stable",
        "unstable",
        "open",
        "audits with any called stable",
        "intervals that miss",
        "rows a sample",
    ]
    print_table(head, rows(), title=f"{runs} audits of {n} samples each")


def speed(quick: bool) -> None:
    """Processor time of rows with noise, drawn, moved, answered and counted, over that of the same number of bare rows."""

    def rows() -> Iterator[list[Any]]:
        for name, path, X in shapes(quick):
            file = load_model(path)
            forward = OnnxForward(
                path, input_name=file.graph.inputs[0].name, output_name=file.graph.outputs[0].name, shape=X.shape[1:], dtype=X.dtype,
                hardware=Hardware(("cpu",), spinning=False),
            )  # fmt: skip
            forward.find_batch(X)
            before = SoftmaxLogits().predictions(forward.outputs(X))
            bare = np.repeat(X, CHUNK, axis=0)
            each = least(lambda f=forward, b=bare: f.outputs(b), 1)  # type: ignore[misc]
            chunks = int(min(max((0.1 if quick else 0.7) / each, 1), 64))
            parts = [(k, c) for c in range(chunks) for k in range(len(X))]

            def plain(bare: np.ndarray = bare, chunks: int = chunks, forward: OnnxForward = forward, n: int = len(X)) -> None:
                for _ in range(chunks * n * CHUNK // len(bare)):
                    forward.outputs(bare)

            base = least(plain)
            cells = []
            for noise in noises(("gaussian:0.1", "uniform:0.1")):
                trial = NoisyRows(forward, SoftmaxLogits(), noise, 0)
                spent = least(lambda t=trial, b=before, p=parts, x=X: list(t.kept(x, b, p, np.arange(len(x)))))  # type: ignore[misc]
                cells.append(f"{spent / base:.2f}")
            yield [name, X[0].size, forward.batch, f"{1e6 * base / (len(parts) * CHUNK):.2f}", *cells]

    head = ["model", "numbers of a sample", "batch", "bare row, µs", "gaussian", "uniform"]
    print_table(head, rows(), title="64 samples at a time, in batches as audits find them")


def shapes(quick: bool) -> Iterator[tuple[str, Path, np.ndarray]]:
    X, _ = digits(64)
    for name in ("digits_mlp", "digits_resnet") if quick else ("digits_mlp", "digits_resnet", "digits_vit", "digits_resnet_int8"):
        yield name, SAMPLE_MODELS / f"{name}.onnx", X
    with tempfile.TemporaryDirectory() as folder:
        for d, hidden in ((784, 256), (3072, 512)):
            rng = np.random.default_rng(0)
            nodes = [("Gemm", ["x", "A"], ["h"], {}), ("Relu", ["h"], ["r"], {}), ("Gemm", ["r", "B"], ["z"], {})]
            weights = {"A": rng.standard_normal((d, hidden), np.float32) / 30, "B": rng.standard_normal((hidden, 10), np.float32)}
            made = models.model(nodes, weights, shape=(d,), out=(10,))
            yield (
                f"MLP of {d} and {hidden}",
                models.save(made, Path(folder) / f"{d}.onnx"),
                rng.standard_normal((64, d), np.float32),
            )


def least(call: Callable[[], object], times: int = 5) -> float:
    """The least processor time of a few calls."""
    call()
    found = []
    for _ in range(times):
        start = time.process_time()
        call()
        found.append(time.process_time() - start)
    return min(found)


TABLES = {f.__name__: f for f in (coverage, passes, decided, twins, planted, speed)}

if __name__ == "__main__":
    args = arguments(__doc__, ("table", {"nargs": "*", "choices": [*TABLES, []], "default": []}))
    for name in args.table or TABLES:
        TABLES[name](args.quick)
