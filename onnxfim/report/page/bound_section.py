"""What graph and weights alone allow, as printed: the architecture's class and its spectral bound."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from onnxfim.record.bound import LOG10_ZERO, Architecture, Bound, ClosedForm, Factor, Share
from onnxfim.record.foreign_text import visible
from onnxfim.record.sample import SampleResult
from onnxfim.report.charts.bars import NamedBar, shortened, signed_bars
from onnxfim.report.charts.marks import Chart, at_both_widths
from onnxfim.report.numbers import count, number, power_of_ten, two_decimals
from onnxfim.report.page.quantities import Quantity
from onnxfim.report.page.view import BoundView, FactorLine, FormLine, Tile
from onnxfim.report.vocabulary import FAMILY_WORDS

MOST_FACTORS = 200
MOST_SHARES = 200
_SLACK = 5e-4  # decades: what rounding in float32 may put a measurement above the bound of a linear map


def bound_view(
    architecture: Architecture | None,
    bound: Bound | None,
    forms: Sequence[ClosedForm],
    samples: Sequence[SampleResult] = (),
) -> BoundView | None:
    """The section on class and bound, compared with what was measured on ``samples``; None where there is neither."""
    if architecture is None and bound is None:
        return None
    shares = bound.shares if bound else ()
    return BoundView(
        family=FAMILY_WORDS.get(architecture.family, visible(architecture.family)) if architecture else None,
        evidence=tuple(visible(e) for e in architecture.evidence) if architecture else (),
        reason=visible(bound.reason) or "no reason recorded" if bound and not bound.available else None,
        answer=_answer(samples, bound) if bound else "",
        tiles=_tiles(samples, bound) if bound else (),
        shares=at_both_widths(lambda width: _share_chart(shares, width)),
        shares_note=_shares_note(shares),
        forms=_forms(forms, architecture.family if architecture else ""),
        factors=tuple(_factor(f) for f in bound.factors[:MOST_FACTORS]) if bound else (),
        factors_note=_factors_note(bound.factors) if bound else "",
        assumptions=tuple(visible(a) for a in bound.assumptions) if bound else (),
    )


def upper(log10: float, *, digits: int = 3) -> str:
    """The number of this logarithm with three digits, rounded up; any magnitude."""
    if log10 <= LOG10_ZERO:
        return "0"
    exponent = math.floor(log10)
    mantissa = math.ceil(10 ** (log10 - exponent + digits - 1) * (1 - 1e-12)) / 10 ** (digits - 1)
    if -3 <= exponent < 6:
        return number(mantissa * 10.0**exponent)
    return f"{mantissa:.{digits - 1}f}×{power_of_ten(exponent)}"


def log_text(log10: float | None) -> str:
    """A logarithm with two decimals, rounded up; ``−∞`` for the logarithm of zero."""
    if log10 is None:
        return "not available"
    if log10 <= LOG10_ZERO:
        return "−∞"
    return f"{math.ceil(100 * log10 * (1 - 1e-12 * math.copysign(1, log10))) / 100:.2f}".replace("-", "−")


def _measured(samples: Sequence[SampleResult]) -> tuple[float | None, float | None]:
    """The largest raw lambda_max and the largest logit sensitivity over the samples."""
    lambdas = [v for s in samples if (v := s.lambda_max.value) is not None]
    slopes = [v for s in samples if (v := s.logit_sensitivity.value) is not None]
    return max(lambdas, default=None), max(slopes, default=None)


def _gap(log10: float | None, measured: float | None) -> float | None:
    """Decades between a bound and what was measured, None where either is missing or zero."""
    if log10 is None or log10 <= LOG10_ZERO or measured is None or measured <= 0:
        return None
    return log10 - math.log10(measured)


def _answer(samples: Sequence[SampleResult], bound: Bound) -> str:
    if not bound.available:
        return "No bound of the whole model is available; what could be bounded is shown."
    where = "Under the assumptions below" if bound.assumptions else "For every input whatever"
    gap = _gap(bound.log10_fisher, _measured(samples)[0])
    if gap is None:
        return f"{where}, λ_max is at most ½L²."
    if gap < -_SLACK:
        return (
            f"The largest measured λ_max lies {_decades(-gap)} above the bound. That cannot be: one of the two is wrong, "
            "and neither is to be used."
        )
    return (
        f"{where}, λ_max is at most ½L². That is {_decades(gap)} above the largest value measured on the given "
        "samples: the bound says what the weights allow, not what the data meet."
    )


def _decades(value: float) -> str:
    return f"{value:.1f} decade{'' if f'{value:.1f}' == '1.0' else 's'}"


def _tiles(samples: Sequence[SampleResult], bound: Bound) -> tuple[Tile, ...]:
    top, slope = _measured(samples)
    rows = (
        ("log₁₀ L", bound.log10_lipschitz, slope, "‖J‖₂", "Lipschitz constant of the logits, L2"),
        ("log₁₀ ½L²", bound.log10_fisher, top, "λ_max", "bound of the Fisher information"),
    )
    tiles = []
    for label, log10, measured, what, note in rows:
        if log10 is None:
            tiles.append(Tile(label, Quantity("not available"), "an operator has no finite bound"))
            continue
        tiles.append(Tile(label, Quantity(log_text(log10), upper(log10), "upper bound"), note))
        gap = _gap(log10, measured)
        if gap is not None:
            tiles.append(Tile(f"Bound / measured {what}", Quantity(_decades(gap)), f"{what} measured: at most {number(measured)}"))
    local = _local_gaps(samples)
    if local:
        note = f"max 2p(1−p)·L² over λ_max, median of {count(len(local), 'sample')}"
        tiles.append(Tile("Bound / measured, by sample", Quantity(_decades(float(np.median(local)))), note))
    return tuple(tiles)


def _local_gaps(samples: Sequence[SampleResult]) -> list[float]:
    """Decades between each sample's own bound and its measured lambda_max, where both are above zero."""
    gaps = (_gap(b.value, s.lambda_max.value) for s in samples if (b := s.log10_fisher_bound) is not None)
    return [g for g in gaps if g is not None]


def _share_chart(shares: Sequence[Share], width: int) -> Chart | None:
    shown = _largest(shares)
    rows = [
        NamedBar(
            _node_name(s),
            s.log10_gain,
            two_decimals(s.log10_gain, sign=True),
            f"{visible(s.node)} ({visible(s.op)}): {s.log10_gain:+.3f}, {s.log10_total:.3f} up to here; {count(s.nodes, 'node')}",
        )
        for s in shown
    ]
    top = sorted(shares, key=lambda s: -s.log10_gain)[:3]
    largest = ", ".join(f"{visible(s.node)} ({visible(s.op)}) {s.log10_gain:+.2f}" for s in top)
    return signed_bars(
        rows,
        name="shares",
        title="Share of each layer or block in the logarithm of L",
        description=f"{count(len(shares), 'layer or block', 'layers and blocks')} in graph order; the largest: {largest}.",
        axis="gain in log₁₀ L",
        width=width,
    )


def _node_name(share: Share) -> str:
    """The node's name, with its operator where the name does not tell it, short enough for a line."""
    told = share.op.lower() in share.node.lower()
    return shortened(visible(share.node if told else f"{share.node} {share.op}"), 60)


def _largest(shares: Sequence[Share]) -> list[Share]:
    """The largest shares, still in graph order."""
    kept = sorted(sorted(range(len(shares)), key=lambda i: -abs(shares[i].log10_gain))[:MOST_SHARES])
    return [shares[i] for i in kept]


def _shares_note(shares: Sequence[Share]) -> str:
    if not shares:
        return ""
    left = len(shares) - MOST_SHARES
    rest = math.fsum(s.log10_gain for s in shares) - math.fsum(s.log10_gain for s in _largest(shares))
    more = f" The {left:,} smallest are not drawn; together they add {two_decimals(rest, sign=True)}." if left > 0 else ""
    top = max(shares, key=lambda s: s.log10_gain)
    most = f"‘{_node_name(top)}’ adds most: a factor of {upper(top.log10_gain)}." if top.log10_gain > 0 else ""
    return f"{most}{more}".strip()


def _forms(forms: Sequence[ClosedForm], family: str) -> tuple[FormLine, ...]:
    return tuple(
        FormLine(
            FAMILY_WORDS.get(f.family, visible(f.family)),
            visible(f.formula),
            "no layer of this kind" if f.log10_lipschitz is None else log_text(f.log10_lipschitz),
            f.family == family,
        )
        for f in forms
    )


def _factor(factor: Factor) -> FactorLine:
    return FactorLine(
        node=visible(factor.node),
        op=visible(factor.op),
        shape=" × ".join(str(n) for n in factor.shape) or "–",
        norm=upper(factor.log10_norm),
        log10=log_text(factor.log10_norm),
        method=visible(factor.method),
        kind=visible(factor.kind),
        rigorous=factor.rigorous,
        note=visible(factor.note),
    )


def _factors_note(factors: Sequence[Factor]) -> str:
    if not factors:
        return "No layer could be bounded."
    loose = sum(not f.rigorous for f in factors)
    parts = [f"{count(len(factors), 'layer')}, in graph order; norms are rounded up."]
    if loose:
        parts.append(
            f"{count(loose, 'norm')} without the mark of rigour {'is' if loose == 1 else 'are'} for information and in no bound."
        )
    if len(factors) > MOST_FACTORS:
        parts.append(f"The first {MOST_FACTORS} of {len(factors):,}; the rest is in the JSON.")
    return " ".join(parts)
