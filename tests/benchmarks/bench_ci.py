"""What the recipes of docs/ci.md decide: on a planted rise of 20 % and on no change, by which evidence, and how often suggested gates err.

Each seed draws other samples. The command of each recipe is what its own shell calls, once on main and once in a pull request, with
the host's programs made up (`tests/support/recipes.py`); it is then run as it is, in this process. The model with the rise gives the
same logits on all of the data (`tests/support/regressed.py`) and a mean λ_max, raw and calibrated, 1.2 times as large over them;
the unchanged model is another file with the same function (its hidden units in another order).

    python tests/benchmarks/bench_ci.py --seeds 50
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path
from unittest.mock import patch

import numpy as np
import onnx
from click.testing import CliRunner
from onnx import numpy_helper
from scipy.optimize import brentq

from onnxfim import Audit, Settings, audit, check, suggest
from onnxfim.auditing.summary import all_aggregates
from onnxfim.cli import main as onnxfim
from onnxfim.record.statistics import wilson
from onnxfim.verdict import compare_to_baseline
from tests.support.places import SAMPLES as MODELS
from tests.support.recipes import Host
from tests.support.regressed import more_sensitive

HOSTS = ("github", "gitlab", "jenkins")
QUICK = Settings(replay=0, bounds=False, providers=("cpu",))
_RECORDER = """#!/bin/sh
python3 -c 'import json, os, sys; json.dump([sys.argv[1:], {k: v for k, v in os.environ.items() if k.startswith("ONNXFIM_")}], open(os.environ["HOST_STATE"] + "/command.json", "w"))' "$@"
"""  # fmt: skip


def reordered(source: Path, path: Path) -> Path:
    """The same function in another file: the first layer's hidden units in another order."""
    proto = onnx.load(source)
    first, second = [n for n in proto.graph.node if n.op_type == "Gemm"][:2]
    constants = {t.name: t for t in proto.graph.initializer}
    order = np.random.default_rng(0).permutation(numpy_helper.to_array(constants[first.input[1]]).shape[0])
    for name, axis in ((first.input[1], 0), (first.input[2], 0), (second.input[1], 1)):
        weights = np.ascontiguousarray(np.take(numpy_helper.to_array(constants[name]), order, axis=axis))
        constants[name].CopyFrom(numpy_helper.from_array(weights, name))
    onnx.save(proto, path)
    return path


def risen(source: Path, path: Path, X: np.ndarray, y: np.ndarray, rise: float) -> Path:
    """A copy whose mean calibrated λ_max over all the data is ``rise`` times the model's."""

    def mean(file: Path) -> float:
        return float(audit(file, X, y, QUICK).aggregates["lambda_max_calibrated"].mean.value or np.nan)

    goal = rise * mean(source)
    amount = brentq(lambda a: mean(more_sensitive(source, path, X, a)) - goal, 0.0, 100.0, rtol=1e-4)
    return more_sensitive(source, path, X, amount)


def command(name: str, folder: Path, *, pull: bool) -> tuple[list[str], dict[str, str]]:
    """Arguments and variables that a recipe runs onnxfim with, on main or in a pull request with a baseline."""
    host = Host(folder / "checkout", folder / "host", onnxfim=_RECORDER)
    host.folder.mkdir(exist_ok=True)
    (host.state / "report.json").write_text("{}", "utf-8")
    (host.state / "ran").touch()
    host.run(name, pull=pull)
    arguments, variables = json.loads((host.state / "command.json").read_text("utf-8"))
    return arguments, variables


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    """The working folder, for a while."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def outcome(arguments: list[str], variables: dict[str, str]) -> int:
    """The exit code of a recipe's command."""
    with patch.dict(os.environ, variables):
        return CliRunner().invoke(onnxfim, arguments).exit_code


def tally(found: Counter[int], seeds: int) -> str:
    """Shares of pass, fail, inconclusive and did not run."""
    return " | ".join(f"{found[code] / seeds:.0%}" for code in (0, 1, 4, 2))


def baselines(options: argparse.Namespace, X: np.ndarray, y: np.ndarray) -> None:
    """The table of the recipes."""
    source = MODELS / "digits_mlp.onnx"
    found: dict[tuple[str, str], Counter[int]] = {}
    started = time.process_time()
    with tempfile.TemporaryDirectory() as temporary, patch.dict(os.environ, {"XDG_CACHE_HOME": f"{temporary}/cache"}):
        folder = Path(temporary)
        models = {
            "no change": reordered(source, folder / "same.onnx"),
            "20 % worse": risen(source, folder / "worse.onnx", X, y, 1.2),
        }
        commands = {}
        for name in HOSTS:
            for pull in (False, True):
                (folder / f"{name}{pull}").mkdir()
                commands[name, pull] = command(name, folder / f"{name}{pull}", pull=pull)
        for seed in range(options.seeds):
            at = np.random.default_rng(seed).permutation(len(X))  # the recipes audit the first 100, and take the accuracy of all
            for name in HOSTS:
                work = folder / "work"
                shutil.rmtree(work, ignore_errors=True)
                (work / "onnxfim-reports").mkdir(parents=True)
                np.savez(work / "samples.npz", inputs=X[at], labels=y[at])
                with inside(work):
                    shutil.copy(source, "model.onnx")
                    code = outcome(*commands[name, False])
                    found.setdefault((name, "main itself"), Counter())[code] += 1
                    arguments, variables = commands[name, True]
                    kept = Path(kept_at(arguments, variables))
                    kept.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy("onnxfim-reports/report.json", kept)
                    for change, model in models.items():
                        shutil.copy(model, "model.onnx")
                        found.setdefault((name, change), Counter())[outcome(arguments, variables)] += 1
    print(
        f"digits_mlp, the recipes' 100 of {len(X)} samples, {options.seeds} seeds, {time.process_time() - started:.0f} s of processor time\n"
    )
    print("| recipe | change | pass | fail | inconclusive | did not run |\n|---|---|---|---|---|---|")
    for (name, change), codes in found.items():
        print(f"| {name} | {change} | {tally(codes, options.seeds)} |")


def kept_at(arguments: list[str], variables: dict[str, str]) -> str:
    """Where a recipe's command reads its baseline."""
    return variables.get("ONNXFIM_BASELINE") or arguments[arguments.index("--baseline") + 1]


def part(whole: Audit, at: np.ndarray) -> Audit:
    """The audit of some of the samples, at the temperature of all; what each was measured to be does not depend on the others."""
    samples = tuple(whole.samples[i] for i in at)
    right = sum(s.prediction == s.label for s in samples)
    ends = wilson(right, len(samples))
    calibration = replace(whole.calibration, accuracy=right / len(samples), accuracy_low=ends[0], accuracy_high=ends[1])
    return replace(
        whole, samples=samples, calibration=calibration, data=replace(whole.data, count=len(samples)),
        aggregates=all_aggregates(samples, seed=0),
    )  # fmt: skip


def suggested(options: argparse.Namespace, X: np.ndarray, y: np.ndarray) -> None:
    """The table of the suggested gates: each set from one half of a draw, and decided on the other."""
    found: dict[tuple[str, str, int], Counter[str]] = {}
    gates: Counter[int] = Counter()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        mlp = MODELS / "digits_mlp.onnx"
        cases = [
            ("digits_mlp", "none", mlp, mlp),
            ("digits_mlp", "λ_max × 1.2", mlp, risen(mlp, folder / "a.onnx", X, y, 1.2)),
            ("digits_mlp", "λ_max × 10", mlp, risen(mlp, folder / "c.onnx", X, y, 10.0)),
            ("digits_resnet_adv", "none", MODELS / "digits_resnet_adv.onnx", MODELS / "digits_resnet_adv.onnx"),
            ("digits_resnet_adv", "trained without attacks", MODELS / "digits_resnet_adv.onnx", MODELS / "digits_resnet.onnx"),
            ("digits_vgg", "none", MODELS / "digits_vgg.onnx", MODELS / "digits_vgg.onnx"),
        ]
        whole = {model: audit(model, X, y, QUICK) for _, _, *models in cases for model in models}
        for count in options.counts:
            for seed in range(options.seeds):
                order = np.random.default_rng(seed).permutation(len(X))
                first, second = np.sort(order[:count]), np.sort(order[count : 2 * count])
                base = {}
                for name, change, model, now in cases:
                    if name not in base:
                        base[name] = part(whole[model], first)
                    wanted = suggest(base[name]).fail_on
                    assert check(base[name], fail_on=wanted).verdict in ("pass", "inconclusive")
                    if check(base[name], fail_on=wanted).verdict == "inconclusive":  # an unsound draw: no gate but findings.error
                        found.setdefault((name, change, count), Counter())["refused"] += 1
                        continue
                    gates[len(wanted)] += 1
                    verdict = check(part(whole[now], second), fail_on=wanted).verdict
                    found.setdefault((name, change, count), Counter())[verdict] += 1
    print(
        f"\nGates suggested from n samples, decided on n others; {options.seeds} seeds; gates an audit: {dict(sorted(gates.items()))}\n"
    )
    print("| model | change | n | pass | fail | inconclusive | no gates: unsound |\n|---|---|---|---|---|---|---|")
    for (name, change, count), verdicts in found.items():
        shares = " | ".join(f"{verdicts[v] / options.seeds:.0%}" for v in ("pass", "fail", "inconclusive", "refused"))
        print(f"| {name} | {change} | {count} | {shares} |")


def evidence(options: argparse.Namespace, X: np.ndarray, y: np.ndarray) -> None:
    """The table of baselines by method, pairing and scope: what the mean decides, and what a usual sample adds."""
    source = MODELS / "digits_mlp.onnx"
    found: dict[tuple[str, str, str, str], Counter[str]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        models = {
            "no change": reordered(source, folder / "same.onnx"),
            "20 % worse": risen(source, folder / "worse.onnx", X, y, 1.2),
        }
        for method, seed in product(("sketch", "gradient"), range(options.seeds)):
            at = np.random.default_rng(seed).permutation(len(X))
            base = audit(source, X[at], y[at], replace(QUICK, samples=100, method=method, seed=seed))
            again = replace(base.settings, step=base.run.step, scheme=base.run.scheme)
            for (change, model), other in product(models.items(), (0, 1000)):
                if other and method == "gradient":  # it has no directions
                    continue
                now = audit(model, X[at], y[at], replace(again, seed=seed + other))
                for scope in ("samples", "population"):
                    c = compare_to_baseline(now, base, 0.1, scope=scope)
                    by_usual = c.verdict == "fail" and not c.decided_by[0].endswith(".mean")
                    key = (method, "other directions" if other else "the same", scope, change)
                    found.setdefault(key, Counter())["usual" if by_usual else c.verdict] += 1
    print(f"\nBaselines of digits_mlp, 100 samples, 10 % allowed, {options.seeds} seeds")
    print("| method | directions | about | change | fail by the mean | fail by a usual sample alone | inconclusive | pass |")
    print("|---|---|---|---|---|---|---|---|")
    for key, verdicts in sorted(found.items()):
        shares = " | ".join(f"{verdicts[v] / options.seeds:.0%}" for v in ("fail", "usual", "inconclusive", "pass"))
        print(f"| {' | '.join(key)} | {shares} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--counts", type=int, nargs="+", default=[100, 200])
    parser.add_argument("--only", choices=["recipes", "suggested", "evidence"])
    options = parser.parse_args()
    with np.load(MODELS / "digits.npz") as data:
        X, y = data["inputs"], data["labels"]
    if options.only in (None, "recipes"):
        baselines(options, X, y)
    if options.only in (None, "suggested"):
        suggested(options, X, y)
    if options.only in (None, "evidence"):
        evidence(options, X, y)


if __name__ == "__main__":
    main()
