"""Does every bracket hold, how wide is it, what does it cost, and how far inside lie the distances that slopes and λ predict?

    python tests/benchmarks/bench_bracket.py [--quick] [--samples N] [--models NAME]

Of each model an audit with and one without brackets on the same samples; the one with them looks for flips in both norms, and attacks
nothing. Per sample and norm: whether the guaranteed length is at most that of the shortest move that changed the prediction, the ratio
of the two, and where the estimates lie between them: 0 is the guaranteed end, 1 the other one, on the log scale. Costs are ratios to
the audit without brackets, of forward passes and of processor time; that of the local bounds stands by itself. Lengths of others' models
are in pixel units.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from _common import Case, arguments, have_shared, print_table, sample_case, sample_cases, shared_cases

import onnxfim
from onnxfim import Audit, Settings
from onnxfim.auditing.stages import local_bounds
from onnxfim.record.guarantees import Bracket, Norm

SHARED = (
    "mnist_mlp2x256_standard", "mnist_mlp2x256_pgd", "cifar_cnna_sgd", "cifar_cnna_kw", "cifar_cnna_madry", "cifar_resnet8_qdq_int8",
)  # fmt: skip
OTHERS = ("digits_resnet_fp16", "digits_resnet_int8", "digits_resnet_softmax")
SLACK = 1e-4  # relative: of the lengths, not of the boundary


@dataclass(frozen=True)
class Cost:
    """Forward passes and seconds of the processor, and what of these the local bounds took."""

    passes: int
    seconds: float
    bounding: float = 0.0


def audited(case: Case, samples: int, *, bracket: bool) -> tuple[Audit, Cost]:
    """The case's audit, and what it cost."""
    spent, own = [0.0], local_bounds.bound_locally

    def timed(*args: Any) -> Any:
        began = time.process_time()
        try:
            return own(*args)
        finally:
            spent[0] += time.process_time() - began

    scale = None if case.record is None else tuple(1 / float(s) for s in np.atleast_1d(case.record["scale"]["std"]))
    settings = Settings(samples=samples, replay=0, bracket=bracket, providers=("cpu",), input_scale=scale)
    local_bounds.bound_locally = timed
    try:
        began = time.process_time()
        audit = onnxfim.audit(case.path, case.inputs, case.labels, settings)
        return audit, Cost(audit.run.evaluations, time.process_time() - began, spent[0])
    finally:
        local_bounds.bound_locally = own


def brackets(audit: Audit, norm: Norm) -> list[Bracket]:
    """The brackets of a norm that have both ends."""
    return [b for s in audit.samples for b in s.bracket if b.norm == norm and b.high is not None and b.low > 0]


def places(found: list[Bracket], which: str) -> np.ndarray:
    """Where an estimate lies in its bracket on the log scale: 0 is the low end, 1 the high one."""
    told = [(math.log(b.low), math.log(b.high or 1.0), getattr(b, which)) for b in found if getattr(b, which)]
    return np.array([(math.log(e) - low) / max(high - low, 1e-9) for low, high, e in told])


def estimates(found: list[Bracket], which: str) -> str:
    """The share that lies inside, and the median place."""
    at = places(found, which)
    if not len(at):
        return "–"
    return f"{np.mean((at >= 0) & (at <= 1)):.0%}, {np.median(at):.2f}"


def rows(cases: list[Case], samples: int) -> Iterator[tuple[Any, ...]]:
    """A row for each norm of each model."""
    for case in cases:
        audited(case, 2, bracket=True)  # what is imported and kept in memory by the first is no part of the cost
        _, before = audited(case, samples, bracket=False)
        audit, after = audited(case, samples, bracket=True)
        for summary in audit.bracket:
            every = [b for s in audit.samples for b in s.bracket if b.norm == summary.norm]
            broken = sum(b.high is not None and b.low > b.high * (1 + SLACK) for b in every)
            found, by = brackets(audit, summary.norm), [b.low_from for b in every if b.low_from]
            width = [(b.high or 0.0) / b.low for b in found]
            first = summary.norm == "l2"
            yield (
                case.name if first else "",
                "L2" if first else "L∞",
                f"{len(every) - broken} of {len(every)}",
                max(set(by), key=by.count) if by else "nothing",
                f"{summary.low.value:.3g}" if summary.low.value else "0",
                f"{summary.high.value:.3g}" if summary.high.value is not None else "–",
                f"{np.median(width):.3g}" if len(width) > len(every) / 2 else "–",
                estimates(found, "first_order"),
                estimates(found, "fisher"),
                f"{after.passes / before.passes:.2f}" if first else "",
                f"{(after.seconds - after.bounding) / before.seconds:.2f}" if first else "",
                f"{after.bounding / max(len(audit.samples), 1):.2g} s" if first else "",
            )


def main() -> None:
    """Print the table."""
    args = arguments(__doc__, ("--samples", {"type": int, "default": 20, "help": "samples of each model"}))
    samples = 4 if args.quick else args.samples
    cases = [*sample_cases(), *(sample_case(name) for name in OTHERS)]
    if not args.quick and have_shared():
        cases += [c for c in shared_cases() if c.name in SHARED]
    cases = [c for c in ([sample_case("digits_mlp")] if args.quick else cases) if args.models in c.name]
    heads = (
        "model", "norm", "low ≤ high", "low from", "median low", "median high", "median high / low",
        "first-order: inside, place", "λ: inside, place", "passes ×", "processor ×", "local bounds, a sample",
    )  # fmt: skip
    print_table(heads, rows(cases, samples), title=f"Brackets of {samples} samples of each model")


if __name__ == "__main__":
    main()
