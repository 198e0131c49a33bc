"""Certified accuracy of smoothed classifiers against the radius, held against an attack on them; and what a certificate costs.

    python tests/benchmarks/bench_smoothing.py [table] [attack] [cost] [--quick] [--models TEXT] [--samples N] [--write]

Tables in the form of Cohen et al. (2019): certified accuracy at round radii, for four standard deviations of the noise. The attack
is projected gradient ascent on the smoothed classifier (SmoothAdv, Salman et al. 2019), by the derivative graphs, of an int8 file by
those of its float32 twin; a success is judged by 2,000 rows of the file itself. Certified accuracy must not be above the attacked
one at any radius, and no certified radius above the length of a success. Costs are processor time. ``--write`` puts the tables into
docs/guarantees.md.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from _common import ROOT, SAMPLE_MODELS, arguments, print_table

import onnxfim
from onnxfim import Audit, Settings
from onnxfim.auditing.opening import open_subject
from onnxfim.auditing.served_model import as_model
from onnxfim.record.smoothing_terms import CHOOSING
from onnxfim.runtime.rows import Forward
from onnxfim.verdict.smoothed_shares import Certified
from tests.support.smoothed_attack import attacked_file

SIGMAS = (0.12, 0.25, 0.5, 1.0)
RADII = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5)
NETS = ("digits_resnet", "digits_resnet_adv", "digits_mlp", "digits_vit", "digits_resnet_int8")
TWINS = {"digits_resnet_int8": "digits_resnet"}  # whose derivative stands for one that there is none of
MORE_ROWS = ("digits_resnet_adv", 10_000)
ATTACKED = (0.25, 0.5, 1.0, 1.5, 2.0)  # in units of the noise
PAGE = ROOT / "docs" / "guarantees.md"
BEGIN, END = "<!-- {name}: written by tests/benchmarks/bench_smoothing.py -->", "<!-- end of {name} -->"


@dataclass(frozen=True)
class Asked:
    """What is asked for: how many samples, and whether the tables go into the page."""

    samples: int
    models: str
    quick: bool
    write: bool

    @property
    def nets(self) -> list[str]:
        return [n for n in NETS if self.models in n][: 2 if self.quick else None]

    @property
    def sigmas(self) -> tuple[float, ...]:
        return SIGMAS[:2] if self.quick else SIGMAS


@cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    """All samples and their labels; the first ones are taken."""
    with np.load(SAMPLE_MODELS / "digits.npz") as file:
        return file["inputs"], file["labels"]


def path_of(name: str) -> Path:
    return SAMPLE_MODELS / f"{name}.onnx"


@cache
def audited(name: str, samples: int, sigmas: tuple[float, ...], budget: int) -> Audit:
    """A net with its certificates and little else."""
    X, y = digits()
    settings = Settings(
        certify=tuple(f"smoothing:{s}" for s in sigmas), certify_budget=budget, replay=0, flip=False, bounds=False, budget=40,
        providers=("cpu",), batch=256,
    )  # fmt: skip
    return onnxfim.audit(path_of(name), X[:samples], y[:samples], settings)


def percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f}"


def certified_rows(asked: Asked) -> Iterator[list[str]]:
    """A row for each net and noise."""
    runs = [(name, 1000) for name in asked.nets]
    if MORE_ROWS[0] in asked.nets and not asked.quick:
        runs.insert(1 + asked.nets.index(MORE_ROWS[0]), MORE_ROWS)
    for name, budget in runs:
        audit = audited(name, asked.samples, asked.sigmas, budget)
        for s in audit.smoothing:
            found = Certified.of(audit, s.sigma)
            cells = [percent(found.share(r).share) for r in RADII]
            at_half = found.share(0.25)
            yield [
                name, f"{budget:,}", f"{s.sigma:g}", percent(s.clean_accuracy), *cells, f"{at_half.low:.2f} to {at_half.high:.2f}",
                percent(s.abstained / s.samples), f"{s.average:.3f}",
            ]  # fmt: skip


def table(asked: Asked) -> list[str]:
    """Certified accuracy at round radii."""
    headers = ["model", "rows", "σ", "clean", *(f"r = {r:g}" for r in RADII), "interval at 0.25", "abstained", "ACR"]
    return printed(headers, certified_rows(asked), f"Certified accuracy in %, {asked.samples} samples of 8×8 pixels from 0 to 1")


def attack_rows(asked: Asked) -> Iterator[list[str]]:
    """What the attack leaves at radii in units of the noise, beside what is certified there."""
    X, y = digits()
    X, y = X[: asked.samples], y[: asked.samples]
    for name in asked.nets:
        audit = audited(name, asked.samples, asked.sigmas, 1000)
        for sigma in asked.sigmas:
            rng = np.random.default_rng([0, int(1000 * sigma)])
            twin = TWINS.get(name)
            attack = attacked_file(path_of(name), X, sigma, twin=None if twin is None else path_of(twin))
            found = Certified.of(audit, sigma)
            radii = np.array(found.radii)
            still, lengths = attack.successes(X, y, np.zeros(X.shape), rng)  # wrong without a move
            broken = np.where(still, 0.0, np.inf)
            cells, above = [], 0
            for factor in ATTACKED:
                radius = factor * sigma
                left = np.flatnonzero(~np.isfinite(broken))
                if len(left):
                    delta = attack.moves(X[left], y[left], np.full(len(left), radius * (1 - 1e-6)), rng)
                    hit, lengths = attack.successes(X[left], y[left], delta, rng)
                    broken[left[hit]] = lengths[hit]
                certified, attacked = (radii >= radius).mean(), (broken > radius).mean()
                above += certified > attacked
                cells.append(f"{percent(certified)} / {percent(attacked)}")
            sure = np.flatnonzero(radii > 0)
            within = 0
            if len(sure):
                delta = attack.moves(X[sure], y[sure], radii[sure] * (1 - 1e-6), rng)
                hit, lengths = attack.successes(X[sure], y[sure], delta, rng)
                broken[sure[hit]] = np.minimum(broken[sure[hit]], lengths[hit])
                within = int(hit.sum())
            wrong = int((radii[sure] > broken[sure]).sum())
            both = sure[np.isfinite(broken[sure])]
            ratio = f"{np.median(broken[both] / radii[both]):.2f}" if len(both) else ""
            yield [name, f"{sigma:g}", *cells, f"{above}", f"{wrong} of {len(sure)}", f"{within}", ratio]


def attack(asked: Asked) -> list[str]:
    """The attack on the smoothed classifiers."""
    headers = [
        "model", "σ", *(f"r = {f:g} σ" for f in ATTACKED), "radii with certified above attacked", "certified above a success",
        "successes within a certified radius", "success over certified, median",
    ]  # fmt: skip
    return printed(
        headers, attack_rows(asked), f"Certified / attacked accuracy of the smoothed classifier in %, {asked.samples} samples"
    )


def cost_rows(asked: Asked) -> Iterator[list[str]]:
    """Processor time of a row of a certificate over that of a bare row, the smallest of a few runs each."""
    X, _ = digits()
    for name in asked.nets:
        count = 20
        forward = open_subject(as_model(path_of(name), Settings()), X, Settings(providers=("cpu",), batch=256)).forward
        bare = bare_seconds(forward, np.repeat(X[:count], 1100, axis=0)) / 1100
        plain = audited_seconds(name, count, ())
        certified = audited_seconds(name, count, ("smoothing:0.02",))
        made = (certified[0] - plain[0]) / (certified[1] - plain[1]) * count
        yield [name, f"{1e6 * bare / count:.1f} µs", f"{1e6 * made / count:.1f} µs", f"{made / bare:.2f}"]


def audited_seconds(name: str, count: int, certify: Sequence[str]) -> tuple[float, int]:
    """Processor time of an audit, the smallest of three, and its passes."""
    X, y = digits()
    settings = Settings(certify=tuple(certify), replay=0, flip=False, bounds=False, budget=40, providers=("cpu",), batch=256)
    runs = []
    for _ in range(3):
        started = time.process_time()
        audit = onnxfim.audit(path_of(name), X[:count], y[:count], settings)
        runs.append((time.process_time() - started, audit.run.evaluations))
    return min(runs)


def bare_seconds(forward: Forward, rows: np.ndarray) -> float:
    """Processor time of these rows as they stand, the smallest of three."""
    runs = []
    for _ in range(3):
        started = time.process_time()
        forward.outputs(rows)
        runs.append(time.process_time() - started)
    return min(runs)


def cost(asked: Asked) -> list[str]:
    """What a row costs."""
    headers = ["model", "a bare row", "a row of a certificate", "ratio"]
    return printed(headers, cost_rows(asked), f"Processor time, {os.cpu_count()} cores")


def printed(headers: Sequence[str], rows: Iterator[list[str]], title: str) -> list[str]:
    """The table's lines, printed as they come."""
    kept: list[list[str]] = []

    def told() -> Iterator[list[str]]:
        for row in rows:
            kept.append(row)
            yield row

    print_table(headers, told(), title=title)
    lines = ["| " + " | ".join(headers) + " |", "|" + "---|" * len(headers)]
    return [f"{title}:", "", *lines, *("| " + " | ".join(row) + " |" for row in kept)]


def write(name: str, lines: Sequence[str]) -> None:
    """Put a table between its marks of the page."""
    begin, end = BEGIN.format(name=name), END.format(name=name)
    text = PAGE.read_text("utf-8")
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    PAGE.write_text(f"{before}{begin}\n\n" + "\n".join(lines) + f"\n\n{end}{after}", "utf-8")


def main() -> None:
    """Make the tables that are asked for, all without a name."""
    tables = {"table": table, "attack": attack, "cost": cost}
    given = arguments(
        __doc__, ("what", {"nargs": "*", "help": "table, attack, cost"}), ("--samples", {"type": int, "default": 200}),
        ("--write", {"action": "store_true"}),
    )  # fmt: skip
    asked = Asked(20 if given.quick else given.samples, given.models, given.quick, given.write)
    for name in given.what or tables:
        lines = tables[name](asked)
        if asked.write:
            write(name, lines)
    print(f"\nrows of a certificate: {CHOOSING} choose the class, the others bound its probability")


if __name__ == "__main__":
    main()
