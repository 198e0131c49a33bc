"""Relations such as ``lambda_max.mean < 5`` that an audit must fulfil, decided on the 95 % interval."""

from __future__ import annotations

import difflib
import math
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass

from onnxfim.errors import SettingsError
from onnxfim.results import Audit, Verdict

_RELATION = re.compile(r"\s*([A-Za-z_][\w.]*)\s*(<=|>=|<|>)\s*([-+\d.eE]+)\s*(%?)\s*")
_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
_STATISTICS = ("mean", "median", "p95", "max")


@dataclass(frozen=True)
class Outcome:
    """Whether a relation holds on the whole interval (``pass``), nowhere in it (``fail``), or neither; and why, in a line."""

    verdict: Verdict
    message: str


def expect(audit: Audit, relation: str) -> Outcome:
    """Whether ``relation`` holds for an audit.

    Args:
        audit: What was measured.
        relation: ``NAME OPERATOR NUMBER``; the name is a measure's statistic (``lambda_max.p95``) or ``clean_accuracy``, the
            number may end in ``%``.

    Raises:
        SettingsError: not of that form, or no such name.
    """
    match = _RELATION.fullmatch(relation)
    try:
        bound = float(match.group(3)) / (100 if match.group(4) else 1) if match else math.nan
    except ValueError:
        bound = math.nan
    if match is None or not math.isfinite(bound):
        raise SettingsError(f"{relation!r}: cannot be read, expected NAME OPERATOR NUMBER such as 'lambda_max.mean < 5'.")
    holds = _OPERATORS[match.group(2)]
    value, low, high = _reading(audit, match.group(1), relation)
    if value is None:
        return Outcome("inconclusive", f"{relation}: {match.group(1)} was not measured")
    known = [end for end in (low, high) if end is not None]
    kept = [holds(end, bound) for end in known]
    text = f"{relation}: {match.group(1)} = {value!r}"
    if len(known) == 2:
        text += f", 95 % interval {low!r} to {high!r}"
    else:
        return Outcome("inconclusive", f"{text}, whose interval is not known")
    if all(kept):
        return Outcome("pass", f"{text}, all of which fulfils it")
    if any(kept):
        return Outcome("inconclusive", f"{text}, which holds the bound: more samples or a larger budget would tell")
    return Outcome("fail", f"{text}, none of which fulfils it")


def _reading(audit: Audit, name: str, relation: str) -> tuple[float | None, float | None, float | None]:
    if name == "clean_accuracy":
        c = audit.calibration
        return c.accuracy, c.accuracy_low, c.accuracy_high
    measure, _, statistic = name.partition(".")
    if measure not in audit.aggregates or statistic not in _STATISTICS:
        known = ["clean_accuracy", *(f"{m}.{s}" for m in audit.aggregates for s in _STATISTICS)]
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
        raise SettingsError(f"{relation!r}: {name!r} is no measure of this audit. The nearest name is {near[0]!r}.")
    found = getattr(audit.aggregates[measure], statistic)
    return found.value, found.low, found.high
