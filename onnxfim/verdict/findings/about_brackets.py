"""Checks of what is guaranteed by what was seen, and of estimates by both."""

from __future__ import annotations

from collections.abc import Iterator

from onnxfim.record.audit import Audit
from onnxfim.record.guarantees import Bracket
from onnxfim.record.sample import SampleResult
from onnxfim.verdict.bracketing import contradicts
from onnxfim.verdict.findings.check import Check
from onnxfim.verdict.guarantors import ATTACK, COUNTEREXAMPLE, FLIP, LOCAL, VERIFIER, WEIGHTS

_NORMS = {"l2": "L2", "linf": "L∞"}
_WHO = {WEIGHTS: "the weights guarantee", LOCAL: "the local bounds guarantee", VERIFIER: "the verifier guarantees"}
_FOUND = {FLIP: "the search for flips", ATTACK: "the attack", COUNTEREXAMPLE: "the replayed counterexample"}
_OFTEN = 0.1  # of the samples: fewer estimates beyond the brackets are not worth a word


def _no_brackets(audit: Audit) -> str | None:
    return None if audit.bracket else "no sample has one prediction that could change"


def _no_predictions(audit: Audit) -> str | None:
    return _no_brackets(audit) or (None if _tried(audit) else "no distance was predicted on a sample that has both ends")


def _contradicted(audit: Audit) -> str | None:
    found = list(_contradictions(audit))
    if not found:
        return None
    sample, worst = max(found, key=lambda pair: pair[1].low / max(pair[1].high or 0.0, 1e-300))
    low_from, high_from = worst.low_from.partition(" in ")[0], worst.high_from.partition(" in ")[0]
    samples = len({s.index for s, _ in found})
    return (
        f"On {samples} samples a guaranteed distance is longer than a move that changed the prediction: most on sample {sample.index}, "
        f"where {_WHO.get(low_from, low_from)} {worst.low:.4g} ({_NORMS[worst.norm]}) and {_FOUND.get(high_from, high_from)} "
        f"changed the prediction at {worst.high or 0.0:.4g}, beyond what rounding explains. One of the two is wrong: trust no guarantee of "
        "this audit, and report this with the model."
    )


def _contradictions(audit: Audit) -> Iterator[tuple[SampleResult, Bracket]]:
    return ((s, b) for s in audit.samples for b in s.bracket if contradicts(audit, s, b))


def _tried(audit: Audit) -> bool:
    return any(b.first_order_tried or b.fisher_tried for b in audit.bracket)


def _estimates_outside(audit: Audit) -> str | None:
    told = []
    for b in audit.bracket:
        pairs = (
            ("the first-order distance", b.first_order_outside, b.first_order_tried),
            ("λ's prediction", b.fisher_outside, b.fisher_tried),
        )
        told += [f"{name} on {n} of {of} ({_NORMS[b.norm]})" for name, n, of in pairs if n > _OFTEN * of]
    if not told:
        return None
    return (
        f"Samples whose estimated distance lies outside their bracket: {', '.join(told)}. The function bends on the way, the "
        "range of the inputs ends, or λ is another pair of classes': read the brackets there, not the estimates."
    )


CHECKS = (
    Check("bracket-contradicted", "error", "A guarantee is refuted by a move that was seen", _contradicted, _no_brackets),
    Check("estimate-outside-bracket", "note", "Estimates lie outside what is known", _estimates_outside, _no_predictions),
)
