"""The attack replay as printed: robust accuracy, smallest distances, and how the measures rank the samples against them."""

from __future__ import annotations

from collections.abc import Sequence

from onnxfim.record.audit import AttackSummary, Audit, Correlation
from onnxfim.record.foreign_text import visible
from onnxfim.record.measures import BY_NAME, CONFIDENCE
from onnxfim.record.robustness import Robustness, SurvivalCurve, SurvivalPoint
from onnxfim.report.human import attack_line, attacked_at, robustness_of
from onnxfim.report.numbers import (
    MISSING,
    count,
    inline_label,
    measure_label,
    number,
    percent,
    percent_interval,
    seconds,
    short,
    two_decimals,
)
from onnxfim.report.page.human_section import reached_quantity
from onnxfim.report.page.quantities import Quantity
from onnxfim.report.page.view import AttackView, CorrelationLine, Fact, LadderLine, Tile
from onnxfim.report.vocabulary import NORM_WORDS

_SIGNS = {1: "positive", -1: "negative"}
_FALLEN = {0.1: "A tenth has fallen at", 0.5: "Accuracy halves at", 0.9: "Nine tenths have fallen at"}
_AS_EXPECTED, _OTHER_WAY = "ranks as expected", "ranks the other way"


def attack_view(audit: Audit) -> AttackView | None:
    """The attack section, or None without an attack."""
    attack = audit.attack
    if attack is None:
        return None
    told = robustness_of(audit)
    curve = told.curve("attack")
    norm = NORM_WORDS.get(attack.norm, visible(attack.norm))
    asked = audit.settings.epsilon is not None
    lines = tuple(_line(c) for c in attack.correlations)
    return AttackView(
        answer=_answer(attack, norm, attack_line(told), asked=asked or curve is None),
        tiles=_tiles(attack, norm, curve, told, asked=asked or curve is None),
        ladder=() if curve is None else tuple(_rung(p, curve, told) for p in curve.ladder),
        ladder_units=f"{norm}, {visible(attack.units)}",
        correlations=lines,
        correlations_answer=_correlations_answer(attack.correlations),
        facts=_facts(attack, norm, asked=asked),
    )


def _answer(attack: AttackSummary, norm: str, line: str | None, *, asked: bool) -> str:
    """What was left at which distance; at one radius alone where that was asked for: the default one is where half have fallen."""
    parts = [] if line is None else [line]
    if asked:
        what = "keep their own prediction" if attack.by_prediction else "are still predicted correctly"
        parts.append(
            f"Of {count(attack.samples, 'attacked sample')}, {percent(attack.robust_accuracy)} {what} after the attack within "
            f"{norm} ε = {short(attack.epsilon)}, {percent(attack.clean_accuracy)} without it."
        )
    if attack.by_prediction:
        parts.append("There are no labels: accuracy here is agreement with the model's own predictions.")
    return " ".join(parts)


def _tiles(attack: AttackSummary, norm: str, curve: SurvivalCurve | None, told: Robustness, *, asked: bool) -> tuple[Tile, ...]:
    units = visible(attack.units)
    tiles = [Tile("Accuracy without attack", Quantity(percent(attack.clean_accuracy)), count(attack.samples, "sample"))]
    if curve is not None:
        note = f"{norm}, {units}; upper bound"
        tiles += [Tile(_FALLEN[found.share], reached_quantity(found, curve, told), note) for found in curve.reached]
    if asked:
        tiles.append(
            Tile(
                f"Robust accuracy at ε\u00a0=\u00a0{short(attack.epsilon)}",
                Quantity(
                    percent(attack.robust_accuracy), percent_interval(attack.robust_accuracy_low, attack.robust_accuracy_high)
                ),
                f"{norm}, {units}; a stronger attack can only lower it",
            )
        )
    tiles += [
        Tile("No attack found", Quantity(f"{attack.failed:,}"), f"of {count(attack.samples, 'sample')}"),
        Tile("Cost", Quantity(seconds(attack.seconds)), count(attack.evaluations, "pass", "passes")),
    ]
    return tuple(tiles)


def _rung(point: SurvivalPoint, curve: SurvivalCurve, told: Robustness) -> LadderLine:
    left = Quantity(percent(point.left), percent_interval(point.low, point.high))
    return LadderLine(attacked_at(point.epsilon, curve, told), left)


def _facts(attack: AttackSummary, norm: str, *, asked: bool) -> tuple[Fact, ...]:
    chosen = "" if asked else ", the median smallest attack: by choice, half are left there"
    return (
        Fact("Norm and radius", f"{norm}, ε = {short(attack.epsilon)}{chosen}"),
        Fact("Units", visible(attack.units)),
        Fact("Values kept within", f"{number(attack.input_low)} to {number(attack.input_high)}"),
        Fact("Steps", f"{attack.steps:,}"),
        Fact("Restarts", f"{attack.restarts:,}"),
        Fact("Judged by", "the model's own predictions" if attack.by_prediction else "the labels"),
    )


def _line(c: Correlation) -> CorrelationLine:
    name, sign = measure_label(c.measure), _sign(c.measure)
    return CorrelationLine(
        measure=name,
        coefficient=_signed(c.coefficient),
        interval="–" if c.low is None or c.high is None else f"{_signed(c.low)} to {_signed(c.high)}",
        count=f"{c.count:,}",
        expected=_SIGNS.get(sign, "–"),
        reading=_reading(c, sign),
        x=None if c.coefficient is None else _place(c.coefficient),
        low=_place(c.low if c.low is not None else c.coefficient or 0.0),
        high=_place(c.high if c.high is not None else c.coefficient or 0.0),
    )


def _sign(measure: str) -> int:
    """Which way a measure is expected to rank with the distance of the attack."""
    known = BY_NAME.get(measure)
    return known.sign if known is not None else 1 if measure == CONFIDENCE else 0


def _signed(value: float | None) -> str:
    return MISSING if value is None else two_decimals(value, sign=True)


def _place(value: float) -> float:
    return round(50 + 50 * min(1.0, max(-1.0, value)), 1)


def _reading(c: Correlation, sign: int) -> str:
    if c.coefficient is None or c.low is None or c.high is None:
        return "not known"
    if c.low <= 0 <= c.high:
        return "zero is not ruled out"
    if not sign:
        return "differs from zero"
    return _AS_EXPECTED if c.coefficient * sign > 0 else _OTHER_WAY


def _correlations_answer(correlations: Sequence[Correlation]) -> str:
    if not correlations:
        return ""
    readings = [(inline_label(c.measure), _reading(c, _sign(c.measure))) for c in correlations]
    good = [name for name, reading in readings if reading == _AS_EXPECTED]
    bad = [name for name, reading in readings if reading == _OTHER_WAY]
    parts = [
        f"On these samples {_listed(good)} {'ranks' if len(good) == 1 else 'rank'} as expected: the steeper, the closer the attack."
        if good
        else "On these samples no measure is shown to rank the samples as the attack does."
    ]
    if bad:
        parts.append(f"The other way round: {_listed(bad)}.")
    return " ".join(parts)


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
