"""The replay as printed: measured KL against the quadratic form, flips, and pictures of the worst directions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from onnxfim.record.audit import Audit, DirectionPicture
from onnxfim.record.foreign_text import visible
from onnxfim.record.sample import KLCurve, KLPoint, SampleResult
from onnxfim.report import words
from onnxfim.report.charts.kl_charts import (
    FORM_DASH,
    PANEL,
    PANEL_NARROW,
    SIDE_WORDS,
    SIDES,
    kl_panel,
    reach,
    share_flipped,
    share_holding,
)
from onnxfim.report.charts.marks import Chart, at_both_widths, marker
from onnxfim.report.numbers import count, number, percent, short
from onnxfim.report.page.directions import direction_card, directions_note
from onnxfim.report.page.quantities import Quantity
from onnxfim.report.page.tables import Picture
from onnxfim.report.page.view import (
    CurvePanel,
    Fact,
    LegendEntry,
    PointLine,
    ReachLine,
    ReplayView,
    Tile,
)
from onnxfim.report.vocabulary import ROLE_WORDS


def replay_view(audit: Audit, picture: Picture) -> ReplayView | None:
    """The replay section, or None where nothing was replayed."""
    values = words.lead_values(audit)
    replayed = sorted(
        ((s, s.kl_curve) for s in audit.samples if s.kl_curve is not None and s.kl_curve.points),
        key=lambda pair: -values.get(pair[0].index, -math.inf),
    )
    if not replayed and not audit.directions:
        return None
    curves = [c for _, c in replayed]
    boundary, _ = words.median_boundary(audit)
    chosen = _chosen(replayed, audit.directions)
    distances = _distances(curves, boundary)
    return ReplayView(
        answer=_answer(curves, distances) if curves else "",
        tiles=_tiles(replayed, distances, flips=audit.decides) if curves else (),
        reach=at_both_widths(lambda width: reach(curves, boundary=boundary, flips=audit.decides, width=width)),
        reach_lines=tuple(
            ReachLine(number(d), why, percent(share_holding(curves, d)), percent(share_flipped(curves, d))) for d, why in distances
        ),
        reach_note=_reach_note(audit, replayed) if curves else "",
        flips=audit.decides,
        panels=tuple(_panel(role, s, c, _span([c for _, _, c in chosen])) for role, s, c in chosen),
        keys=_keys(),
        points=tuple(_point(s.index, p) for _, s, c in chosen for p in c.points),
        directions=tuple(direction_card(i, d, audit, picture) for i, d in enumerate(audit.directions)),
        directions_note=directions_note(audit),
    )


def _chosen(
    replayed: Sequence[tuple[SampleResult, KLCurve]], directions: Sequence[DirectionPicture]
) -> list[tuple[str, SampleResult, KLCurve]]:
    """The samples whose curves are drawn: those with pictures where they have curves, else worst, median and best."""
    known = {s.index: (s, c) for s, c in replayed}
    pictured: dict[str, tuple[SampleResult, KLCurve]] = {d.role: known[d.index] for d in directions if d.index in known}
    if len(replayed) < 2:
        return [("The replayed sample", *pair) for pair in replayed]
    if len({s.index for s, _ in pictured.values()}) == len(ROLE_WORDS):
        return [(ROLE_WORDS[role], *pictured[role]) for role in ROLE_WORDS]
    places = {"worst": 0, "median": len(replayed) // 2, "best": len(replayed) - 1}
    return [(ROLE_WORDS[role], *replayed[i]) for role, i in places.items() if not (role == "median" and len(replayed) == 2)]


def _span(curves: Sequence[KLCurve]) -> tuple[float, float] | None:
    """One axis for all panels where their ladders are alike; None where one axis would press them together."""
    ends = [(min(e), max(e)) for c in curves if (e := [p.epsilon for p in c.points if p.epsilon > 0])]
    if not ends:
        return None
    low, high = min(a for a, _ in ends), max(b for _, b in ends)
    longest = max(math.log(b / a) for a, b in ends)
    return (low, high) if math.log(high / low) <= 1.5 * longest + 1e-9 else None


def _distances(curves: Sequence[KLCurve], boundary: float | None) -> list[tuple[float, str]]:
    """The distances at which shares are stated: parts of the median boundary distance, else rungs of the ladder."""
    if not curves:
        return []
    if boundary is not None and boundary > 0:
        parts = ((0.1, "a tenth of the median boundary distance"), (0.5, "half of it"), (1.0, "the median boundary distance"))
        return [(part * boundary, why) for part, why in parts]
    ladder = sorted({p.epsilon for c in curves for p in c.points if p.epsilon > 0})
    places = sorted({len(ladder) // 4, len(ladder) // 2, 3 * len(ladder) // 4}) if ladder else []
    return [(ladder[i], "a rung of the ladder") for i in places]


def _answer(curves: Sequence[KLCurve], distances: Sequence[tuple[float, str]]) -> str:
    if not distances:
        return "Not known: no distance was measured."
    distance, why = distances[0]
    share = share_holding(curves, distance)
    held = sum(c.holds_to is not None and c.holds_to >= distance * (1 - 1e-9) for c in curves)
    judged = (
        "Yes, for small changes"
        if share >= 0.9
        else "For most samples, for small changes"
        if share >= 0.5
        else "Only for smaller changes"
    )
    who = f"on {held:,} of {count(len(curves), 'replayed sample')}"
    return (
        f"{judged}: {who} the measured KL stays within 10 % of ½ λ ε² on both sides of the worst direction up to "
        f"ε = {number(distance)} ({why}). λ is the raw λ_max of the sample."
    )


def _tiles(
    replayed: Sequence[tuple[SampleResult, KLCurve]], distances: Sequence[tuple[float, str]], *, flips: bool
) -> tuple[Tile, ...]:
    curves = [c for _, c in replayed]
    held = sorted(c.holds_to or 0.0 for c in curves)
    middle = float(np.median(held))
    flipped = [c.flips_at for c in curves if c.flips_at is not None]
    ratios = _flip_ratios(replayed)
    tiles = []
    if distances:
        distance, why = distances[0]
        tiles.append(Tile(f"Holds up to ε\u00a0=\u00a0{number(distance)}", Quantity(percent(share_holding(curves, distance))), why))
    tiles.append(
        Tile(
            "Median distance it holds to",
            Quantity(number(middle) if middle > 0 else "none", _quartiles(held) if middle > 0 else None),
            "L2 in input units, with the middle half of the samples" if middle > 0 else "for half of the samples it holds nowhere",
        )
    )
    if flips:
        median = Quantity(number(float(np.median(flipped))) if flipped else "none", _quartiles(flipped) if flipped else None)
        tiles.append(Tile("Median distance of the flip", median, f"{len(flipped):,} of {len(curves):,} flip within the ladder"))
    if ratios:
        median = Quantity(number(float(np.median(ratios))), _quartiles(ratios))
        tiles.append(Tile("Flip / boundary distance", median, "median over the samples that flip"))
    return tuple(tiles)


def _quartiles(values: Sequence[float]) -> str | None:
    low, high = np.quantile(values, [0.25, 0.75])
    return f"{number(float(low))} to {number(float(high))}" if len(values) > 1 else None


def _flip_ratios(replayed: Sequence[tuple[SampleResult, KLCurve]]) -> list[float]:
    """Distance of the flip over the first-order boundary distance, for the samples that have both."""
    return [
        c.flips_at / s.boundary_distance.value
        for s, c in replayed
        if c.flips_at is not None and s.boundary_distance.value is not None and s.boundary_distance.value > 0
    ]


def _reach_note(audit: Audit, replayed: Sequence[tuple[SampleResult, KLCurve]]) -> str:
    parts = [f"{len(replayed):,} of {count(len(audit.samples), 'sample')} were replayed, spread over the ranking."]
    if _flip_ratios(replayed):
        parts.append(
            "The direction that moves the distribution most is not the shortest way to another class, so a flip beyond the "
            "boundary distance is expected; a flip well before it would contradict the first-order distance."
        )
    parts.append(
        "Both shares are known to the distances that were measured, a few on each sample, chosen about where the form ceases to "
        "hold and where the prediction flips. Between two of them the form counts as not holding, the prediction as not flipped."
        if audit.decides
        else "The share is known to the distances that were measured, a few on each sample, chosen about where the form ceases to "
        "hold. Between two of them the form counts as not holding."
    )
    return " ".join(parts)


def _panel(role: str, sample: SampleResult, curve: KLCurve, span: tuple[float, float] | None) -> CurvePanel:
    facts = [
        Fact("Raw λ_max", number(sample.lambda_max.value)),
        Fact("Within 10 %", "nowhere on the ladder" if curve.holds_to is None else f"up to ε = {short(curve.holds_to)}"),
    ]
    if sample.prediction is not None:
        facts.append(Fact("Prediction flips", "not on the ladder" if curve.flips_at is None else f"at ε = {short(curve.flips_at)}"))

    def chart(width: int) -> Chart | None:
        title = f"Measured KL of sample {sample.index} against ½λε²"
        return kl_panel(curve, name=f"kl-{sample.index}", title=title, span=span, flips=sample.prediction is not None, width=width)

    return CurvePanel(role, sample.index, visible(sample.name), tuple(facts), at_both_widths(chart, (PANEL, PANEL_NARROW)))


def _keys() -> tuple[LegendEntry, ...]:
    sides = [
        LegendEntry(side, dash, marker(shape, 17, 6, radius=3.2 if filled else 4.2), f"measured {SIDE_WORDS[side]}", not filled)
        for side, shape, filled, dash in SIDES
    ]
    return (*sides, LegendEntry("quadratic", FORM_DASH, "", "½ λ ε²"))


def _point(index: int, p: KLPoint) -> PointLine:
    ratio = "–" if p.quadratic <= 0 else f"{number(p.along / p.quadratic)} and {number(p.against / p.quadratic)}"
    return PointLine(index, short(p.epsilon), number(p.along), number(p.against), number(p.random), number(p.quadratic), ratio)
