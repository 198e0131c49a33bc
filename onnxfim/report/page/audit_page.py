"""The page of an audit, put together from its sections."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from onnxfim.record.audit import Audit
from onnxfim.record.decision import Aggregates, Finding
from onnxfim.record.foreign_text import visible
from onnxfim.record.measures import BY_NAME, MEASURES, STATISTICS
from onnxfim.record.statistics import temperature_interval
from onnxfim.report import words
from onnxfim.report.charts.histograms import Histogram, distribution
from onnxfim.report.charts.marks import Figure, at_both_widths, marker
from onnxfim.report.charts.scatter import scatter
from onnxfim.report.charts.step_curve import SCHEMES, step_curve, unusable
from onnxfim.report.human import human_lines
from onnxfim.report.meaning import boundary_tile, flip_tile, meaning
from onnxfim.report.numbers import (
    MISSING,
    count,
    measure_label,
    number,
    percent,
    percent_interval,
    seconds,
    short,
    spread,
    statistic_label,
    what_of,
)
from onnxfim.report.page.attack_section import attack_view
from onnxfim.report.page.bound_section import bound_view
from onnxfim.report.page.cover import cover
from onnxfim.report.page.directions import direction_summary
from onnxfim.report.page.facts import how_it_was_run
from onnxfim.report.page.folds import folds
from onnxfim.report.page.gate_section import baseline_view, gate_lines
from onnxfim.report.page.guarantees_section import guarantees_view
from onnxfim.report.page.human_section import survival_view
from onnxfim.report.page.method_section import method_sentences, sources
from onnxfim.report.page.not_run import not_run
from onnxfim.report.page.quantities import Quantity, of_statistic
from onnxfim.report.page.replay_section import replay_view
from onnxfim.report.page.tables import (
    MOST_ROWS,
    Picture,
    card,
    class_columns,
    class_lines,
    classes_note,
    column_head,
    missing_everywhere,
    sample_columns,
    sample_line,
    samples_note,
)
from onnxfim.report.page.view import CurveLine, FindingLine, LegendEntry, SkippedLine, StatisticRow, Tile
from onnxfim.report.page.whole import Page
from onnxfim.report.vocabulary import LEVEL_WORDS, LIMITS, NORM_WORDS, VERDICT_WORDS, Statement
from onnxfim.report.whereabouts import where_it_ran

MOST_SKIPPED = 50
EXTREMES = 6
#: Samples of the table on paper: with them a hundred samples fill at most eight sheets.
PRINT_SAMPLES = 12


def build_page(audit: Audit, picture: Picture, *, print_samples: int = PRINT_SAMPLES) -> Page:
    """Compute the page of ``audit``; ``picture`` takes a picture's name and PNG file and returns where to find it.

    ``print_samples`` are the samples that the table has on paper.
    """
    values = words.lead_values(audit)
    measured = words.most_sensitive(audit)
    ordered = [*measured, *(s for s in audit.samples if s.index not in values)]
    panels = _panels(audit)
    worst = measured[:EXTREMES]
    best = [s for s in reversed(measured[-EXTREMES:]) if s not in worst]
    shown_measures = sample_columns(ordered[:MOST_ROWS])
    front = cover(audit)
    missing = missing_everywhere(ordered[:MOST_ROWS], shown_measures)
    bound = bound_view(audit.architecture, audit.bound, audit.closed_forms, audit.samples)
    replay = replay_view(audit, picture)
    survival = survival_view(audit)
    guarantees = guarantees_view(audit)
    return Page(
        title=f"{front.heading}: robustness audit",
        cover=front,
        summary=_summary(audit),
        notices=words.notices(audit),
        verdict=audit.verdict,
        verdict_word=VERDICT_WORDS[audit.verdict],
        headline=words.headline(audit),
        human=human_lines(audit),
        answers=words.answers(audit),
        gates=gate_lines(audit),
        baseline=baseline_view(audit),
        tiles=_tiles(audit),
        units=visible(audit.units),
        statistic_columns=tuple(s.label for s in STATISTICS),
        statistics=tuple(_statistic_row(key, a) for key, a in _in_order(audit.aggregates)),
        statistics_note=_statistics_note(audit),
        meaning=meaning(audit),
        findings=tuple(_finding(f) for f in words.worst_first(audit.findings)),
        not_run=not_run(audit),
        folds=folds(
            audit,
            survival=survival is not None,
            guarantees=() if guarantees is None else guarantees.parts,
            replay=replay is not None,
            bound=bound is not None,
        ),
        spread=_distribution(panels[-1:]),
        distribution=_distribution(panels),
        distribution_note=_distribution_note(audit),
        curve=at_both_widths(lambda width: step_curve(audit.step, units=visible(audit.units), width=width)),
        curve_note=_curve_note(audit),
        curve_keys=_curve_keys(audit),
        curve_lines=_curve_lines(audit),
        replay=replay,
        attack=attack_view(audit),
        bound=bound,
        scatter=at_both_widths(lambda width: scatter(audit.samples, values, series_title=words.lead_name(audit), width=width)),
        survival=survival,
        guarantees=guarantees,
        features=direction_summary(audit),
        lead=words.lead_name(audit),
        lead_series=words.lead_measure(audit).series,
        class_columns=class_columns(),
        classes=class_lines(audit),
        classes_by="label" if audit.data.labels else "prediction",
        classes_note=classes_note(audit),
        worst=tuple(card(s, audit, picture) for s in worst),
        best=tuple(card(s, audit, picture) for s in best),
        sample_columns=tuple(map(column_head, shown_measures)),
        samples=tuple(sample_line(s, shown_measures, audit, told=missing) for s in ordered[:MOST_ROWS]),
        samples_note=samples_note(audit),
        missing=tuple(Statement(measure_label(m.name), reason) for m, reason in missing.items()),
        print_samples=print_samples,
        named=any(s.name and s.name != str(s.index) for s in audit.samples),
        labelled=audit.data.labels,
        skipped=tuple(SkippedLine(s.index, visible(s.reason)) for s in audit.skipped[:MOST_SKIPPED]),
        skipped_note=_skipped_note(audit),
        run=how_it_was_run(audit),
        method=method_sentences(audit),
        limits=LIMITS,
        sources=sources(audit),
        schema_version=visible(audit.schema_version),
    )


def _finding(finding: Finding) -> FindingLine:
    return FindingLine(visible(finding.id), finding.level, LEVEL_WORDS[finding.level], visible(finding.message))


def _in_order(aggregates: Mapping[str, Aggregates]) -> Iterable[tuple[str, Aggregates]]:
    known = [m.name for m in MEASURES if m.name in aggregates]
    return [(key, aggregates[key]) for key in (*known, *sorted(set(aggregates) - set(known)))]


def _summary(audit: Audit) -> str:
    source = "random inputs" if audit.data.synthetic else visible(audit.data.source)
    return (
        f"{count(len(audit.samples), 'sample')} of {source} · {count(audit.run.evaluations, 'forward pass', 'forward passes')} "
        f"on {visible(where_it_ran(audit))} in {seconds(audit.run.seconds)}"
    )


def _tiles(audit: Audit) -> tuple[Tile, ...]:
    calibration = audit.calibration
    raw, calibrated = audit.aggregates.get("lambda_max"), audit.aggregates.get("lambda_max_calibrated")
    lead = words.lead_aggregate(audit)
    why = visible(calibration.reason) if calibration.reason else "needs labels"
    no_value = (
        "no temperature was fitted"
        if words.lead_values(audit) and audit.data.labels
        else why
        if words.lead_values(audit) or not audit.data.labels
        else "the reason stands on top"
    )
    first = Tile(
        statistic_label("lambda_max_calibrated", "mean"),
        of_statistic(calibrated.mean) if calibrated and words.has_calibrated(audit) else Quantity(MISSING),
        "comparable between models" if words.has_calibrated(audit) else no_value,
        BY_NAME["lambda_max_calibrated"].series,
    )
    if words.lead_measure(audit).name == "lambda_max_standardised" and lead is not None:
        note = "comparable between models: features differ in scale"
        first = Tile(statistic_label("lambda_max_standardised", "mean"), of_statistic(lead.mean), note)
    return (
        first,
        Tile(
            statistic_label("lambda_max", "mean"),
            of_statistic(raw.mean) if raw else Quantity(MISSING),
            "the published quantity",
            BY_NAME["lambda_max"].series,
        ),
        Tile(
            "95th percentile of λ_max",
            of_statistic(lead.p95) if lead else Quantity(MISSING),
            words.lead_name(audit),
            words.lead_measure(audit).series,
        ),
        Tile(statistic_label("boundary_distance", "median"), *boundary_tile(audit)),
        Tile(statistic_label("flip_radius", "median"), *flip_tile(audit)),
        Tile(
            "Clean accuracy",
            Quantity(percent(calibration.accuracy), percent_interval(calibration.accuracy_low, calibration.accuracy_high)),
            why if calibration.accuracy is None else f"mean confidence {percent(calibration.mean_confidence)}",
        ),
        Tile("Temperature", _temperature(audit), _temperature_note(audit, why)),
        *_attacked(audit),
    )


def _attacked(audit: Audit) -> tuple[Tile, ...]:
    """What an attack needed, where there was one."""
    attack = audit.attack
    if attack is None:
        return ()
    found = Quantity(number(attack.median_distance), kind=None if attack.median_distance is None else "upper bound")
    norm = NORM_WORDS.get(attack.norm, visible(attack.norm))
    return (
        Tile(
            "Median attack",
            found,
            f"smallest found, {norm}, {visible(attack.units)}; {attack.failed:,} of {attack.samples:,} failed",
        ),
    )


def _temperature(audit: Audit) -> Quantity:
    c = audit.calibration
    told = None if c.temperature is None else spread(*temperature_interval(c.temperature, c.log_error))
    return Quantity(number(c.temperature), told)


def _temperature_note(audit: Audit, why: str) -> str:
    if audit.calibration.temperature is None:
        return why
    judged = words.confidence_by_temperature(audit)
    return f"1 is calibrated; this model {'fits' if judged == 'fitting' else 'is ' + judged}"


def _statistic_row(key: str, aggregates: Aggregates) -> StatisticRow:
    label, series = measure_label(key), BY_NAME[key].series if key in BY_NAME else ""
    cells = tuple(of_statistic(getattr(aggregates, s.name)) for s in STATISTICS)
    units = visible(aggregates.units) + (f"; {of}" if (of := what_of(key)) else "")
    return StatisticRow(label, units, f"{aggregates.count:,}", cells, series)


def _statistics_note(audit: Audit) -> str:
    groups = audit.aggregates.values()
    whole = [g for g in groups if not g.unfound]
    names = {s.name: s.label for s in STATISTICS}
    how: dict[str, list[str]] = {}
    for key, name in names.items():
        for method in sorted({a.method for g in whole if (a := getattr(g, key)).low is not None and a.high is not None} - {""}):
            how.setdefault(method, []).append(name)
    for measure, group in audit.aggregates.items():
        for key, name in names.items():
            a = getattr(group, key)
            if a.method and (group.unfound or (group.count and (a.low is None or a.high is None))):
                how.setdefault(a.method, []).append(f"{name} of {measure_label(measure)}")
    parts = ["Below each value stands its 95 % interval."]
    if any(0 < getattr(g, key).confidence < 0.95 for g in groups for key in names):
        parts.append("Where so few samples cannot give 95 %, the level that is attained stands beside it.")
    parts += [f"{' and '.join(who)}: {visible(method)}." for method, who in how.items()]
    return " ".join(parts)


def _panels(audit: Audit) -> list[Histogram]:
    """The histograms of λ_max, the one that the page leads with last."""
    found = []
    lead = words.lead_measure(audit).name
    for key in (*(k for k in ("lambda_max", "lambda_max_calibrated") if k != lead), lead):
        estimates = (BY_NAME[key].of(s) for s in audit.samples)
        values = tuple(e.value for e in estimates if e is not None and e.value is not None)
        if values:
            found.append(Histogram(BY_NAME[key].series, BY_NAME[key].label, values, audit.aggregates.get(key)))
    return found


def _distribution(panels: list[Histogram]) -> Figure | None:
    return at_both_widths(lambda width: distribution(panels, units=_units_of(panels), width=width))


def _units_of(panels: list[Histogram]) -> str:
    """What the axis below histograms counts in: the units that they share."""
    # Behind a comma stands at which temperature, which the panel's title has.
    units = sorted({visible(p.aggregates.units).partition(",")[0] for p in panels if p.aggregates is not None})
    return units[0] if len(units) == 1 else "each in its own units"


def _distribution_note(audit: Audit) -> str:
    values = sorted(words.lead_values(audit).values())
    positive = [v for v in values if v > 0]
    if len(positive) < 2:
        return ""
    decades = math.log10(positive[-1] / positive[0])
    factor = number(positive[-1] / positive[0])
    spread = f"From the least to the most sensitive sample, {words.lead_name(audit)} grows by a factor of {factor}."
    return spread + (" So the mean is decided by the right tail." if decades > 1 else "")


def _curve_note(audit: Audit) -> str:
    step = audit.step
    if step.unchosen is not None:
        return f"No step was chosen: {visible(step.unchosen)}."
    given = "was given" if step.given else "was chosen by the ladder"
    parts = [f"The step r = {short(step.step)} {given}; the scheme is {step.scheme} differences."]
    if step.curve:
        stable = (
            "The value is stable around it (a plateau)."
            if step.plateau
            else words.step_bias(step.bias)
            if step.bias is not None
            else "There is no plateau around it: the value holds at this scale only."
        )
        parts.append(stable)
    if step.smallest_usable is not None:
        parts.append(f"The smallest step that resolves anything is {short(step.smallest_usable)}.")
    if step.noise_floor is not None:
        parts.append(f"Rounding noise of one output: {number(step.noise_floor)}.")
    parts.append(
        "Repeated calls agree exactly." if step.repeat_noise == 0 else f"Repeated calls differ by {number(step.repeat_noise)}."
    )
    if step.dither is not None:
        parts.append(f"Points are dithered by ±{number(step.dither)}.")
    if step.curve:
        who = f"{count(len(step.samples), 'sample')}, {count(step.directions, 'direction')} each, "
        parts.append(f"Measured on {who}{count(step.evaluations, 'forward pass', 'forward passes')}.")
    return " ".join(parts)


def _curve_keys(audit: Audit) -> tuple[LegendEntry, ...]:
    """The legend of the curve: the schemes that were measured, and what an open marker means where there is one."""
    texts = {"forward": "forward differences", "central": "central differences", "cross": "dithered cross-Gram"}
    keys = [
        LegendEntry(name, dash, marker(shape, 17, 6), texts[name])
        for name, shape, dash in SCHEMES
        if any(getattr(r, name) is not None for r in audit.step.curve)
    ]
    if unusable(audit.step):
        keys.append(LegendEntry("", "", "", "Open marker on the floor: no usable value at this step"))
    return tuple(keys)


def _curve_lines(audit: Audit) -> tuple[CurveLine, ...]:
    def shown(value: float | None) -> str:
        return "–" if value is None else number(value)

    return tuple(
        CurveLine(
            short(r.step),
            percent(r.relative_step),
            shown(r.forward),
            shown(r.central),
            shown(r.cross),
            "–" if r.error is None else percent(r.error),
            percent(r.unchanged),
            math.isclose(r.step, audit.step.step, rel_tol=1e-9),
        )
        for r in audit.step.curve
    )


def _skipped_note(audit: Audit) -> str:
    if not audit.skipped:
        return ""
    more = f" The first {MOST_SKIPPED} are listed; the rest is in the JSON." if len(audit.skipped) > MOST_SKIPPED else ""
    verb = "is" if len(audit.skipped) == 1 else "are"
    return f"{count(len(audit.skipped), 'sample')} could not be audited and {verb} in no statistic.{more}"
