"""What is guaranteed, what is estimated, as printed: brackets, noise, smoothing, a verifier; each number with its kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from onnxfim.record.audit import Audit
from onnxfim.record.decision import Aggregate
from onnxfim.record.foreign_text import visible
from onnxfim.record.guarantee_summaries import BracketSummary, CertifiedShare, DecidedAt, NoiseSummary, SmoothingSummary
from onnxfim.record.guarantees import NoiseStability
from onnxfim.record.robustness import Robustness
from onnxfim.record.sample import SampleResult
from onnxfim.report import words
from onnxfim.report.charts.bracket_chart import CROSS, DASHES, MARKS, WORDS, bracket_chart, key_marker, many
from onnxfim.report.charts.certified_curves import STROKES_OF, certified_chart
from onnxfim.report.charts.marks import WIDE, at_both_widths
from onnxfim.report.guarantee_words import (
    brackets_in,
    contradicting,
    contradiction_words,
    length,
    plainly,
    shown_brackets,
    smoothing_words,
    sources_of,
)
from onnxfim.report.human import levels, robustness_of
from onnxfim.report.numbers import (
    MISSING,
    count,
    known_ends,
    level_words,
    number,
    number_above,
    number_below,
    percent,
    percent_interval,
    short,
)
from onnxfim.report.page.guarantees_view import (
    BracketView,
    DecidedLine,
    GuaranteesView,
    NoiseRow,
    NoiseView,
    SmoothingRow,
    SmoothingView,
    UnsteadyRow,
)
from onnxfim.report.page.known_rows import known_columns, known_rows
from onnxfim.report.page.quantities import Quantity
from onnxfim.report.page.tables import MOST_ROWS, class_name
from onnxfim.report.page.verifier_section import verifier_view
from onnxfim.report.page.view import LegendEntry, Tile
from onnxfim.report.vocabulary import NORM_WORDS

_LEAST = 6  # samples that noise moves most
_OF_ANOTHER = "It answers with the class that the file gives most often under Gaussian noise; of the file alone it says nothing."
_RADII = 5  # columns of the table of certified shares


def guarantees_view(audit: Audit) -> GuaranteesView | None:
    """The section, or None where nothing of the kind was run."""
    brackets = tuple(_bracket(audit, b) for b in shown_brackets(audit))
    noise, smoothing, verifier = _noise(audit), _smoothing(audit), verifier_view(audit)
    parts = tuple(
        name
        for name, there in (("bracket", brackets), ("noise", noise), ("smoothed classifier", smoothing), ("verifier", verifier))
        if there
    )
    if not parts:
        return None
    total = len(audit.samples)
    more = (
        f"The first {MOST_ROWS} of {total:,}, the most sensitive first; all are in the JSON and the CSV."
        if total > MOST_ROWS
        else ""
    )
    ordered = words.most_sensitive(audit)
    known = {s.index for s in ordered}
    ordered += [s for s in audit.samples if s.index not in known]
    return GuaranteesView(
        parts=parts,
        brackets=brackets,
        noise=noise,
        smoothing=smoothing,
        verifier=verifier,
        columns=known_columns(audit),
        rows=known_rows(audit, ordered[:MOST_ROWS]),
        rows_note=more,
        named=any(s.name and s.name != str(s.index) for s in audit.samples),
    )


def _bracket(audit: Audit, b: BracketSummary) -> BracketView:
    norm, found = NORM_WORDS[b.norm], brackets_in(audit, b.norm)
    units = visible(b.units)
    rows = [(s.index, x) for s, x in found]
    wrong = contradicting(audit, b.norm) if b.contradictions else frozenset()
    return BracketView(
        id=f"bracket-{b.norm}",
        title=f"From both sides, {norm}",
        answer=_bracket_answer(audit, b),
        wrong=contradiction_words(b),
        tiles=_bracket_tiles(audit, b),
        figure=at_both_widths(lambda width: bracket_chart(rows, units=b.units, width=width, wrong=wrong)),
        keys=_bracket_keys(audit, b),
        notes=_bracket_notes(audit, b, first=b is shown_brackets(audit)[0]),
        units=f"{norm}, {units}",
        decided=tuple(_decided(d, b, robustness_of(audit)) for d in b.decided),
    )


def _bracket_answer(audit: Audit, b: BracketSummary) -> str:
    told = robustness_of(audit)
    if not b.low.value:
        low = f"On at least half of {count(b.samples, 'sample')} no distance is guaranteed"
    else:
        low = (
            f"For half of {count(b.samples, 'sample')}, no change shorter than {length(b.low.value, b.norm, b.units, told)} "
            "changes the prediction: guaranteed, in exact arithmetic"
        )
    if b.high.value is None:
        return f"{low}. On half of them or more, no move was found that does."
    does = "one was found that does" if b.low.value else "a move was found that changes the prediction, on half of them"
    apart = f" The two sides lie a factor of {number(b.width)} apart on the middle sample." if b.width is not None else ""
    return f"{low}; at {length(b.high.value, b.norm, b.units, told, above=True)} {does}.{apart}"


def _bracket_tiles(audit: Audit, b: BracketSummary) -> tuple[Tile, ...]:
    found = [x for _, x in brackets_in(audit, b.norm)]
    low_by, high_by = sources_of([x.low_from for x in found]), sources_of([x.high_from for x in found])
    low, high = Quantity(MISSING), Quantity("none found")
    if b.low.value is not None:
        low = Quantity("nothing", None, "lower bound")
        if b.low.value:
            low = Quantity(number_below(b.low.value), known_ends(b.low.low, b.low.high), "lower bound")
    if b.high.value is not None:
        high = Quantity(number_above(b.high.value), known_ends(b.high.low, b.high.high), "upper bound")
    apart = [
        Tile("Apart, median", Quantity(f"× {number(w)}"), "the found over the guaranteed length: what is not known")
        for w in (b.width,)
        if w is not None
    ]
    estimates = [
        Tile(
            label,
            Quantity(f"{tried - outside:,} of {tried:,}", None, "estimate"),
            "samples with both ends on which the estimate lies between",
        )
        for label, tried, outside in (
            ("First order, inside", b.first_order_tried, b.first_order_outside),
            ("From λ_max, inside", b.fisher_tried, b.fisher_outside),
        )
        if tried
    ]
    return (
        Tile("Guaranteed, median", low, f"in exact arithmetic; {low_by}" if low_by else _why_nothing(audit, b), "holding"),
        Tile("Found, median", high, f"of the file as it ran; {high_by or 'nothing found'}", "flipped"),
        *apart,
        *estimates,
    )


def _why_nothing(audit: Audit, b: BracketSummary) -> str:
    """Why no length is guaranteed, as the samples tell it most often."""
    tried = (s.certified_radius if b.norm == "l2" else s.certified_radius_linf for s in audit.samples)
    reasons = Counter(e.reason for e in tried if e is not None and e.reason)
    return visible(reasons.most_common(1)[0][0]) if reasons else "no bound reaches this file's outputs"


def _bracket_keys(audit: Audit, b: BracketSummary) -> tuple[LegendEntry, ...]:
    found = [x for _, x in brackets_in(audit, b.norm)]
    lines = many(len(found), WIDE)
    there = {
        "high": True, "low": True, "first_order": any(x.first_order is not None for x in found),
        "fisher": any(x.fisher is not None for x in found),
    }  # fmt: skip
    keys = []
    for name in ("high", "first_order", "fisher", "low"):
        series, _, hollow = MARKS[name]
        if there[name]:
            keys.append(
                LegendEntry(series, DASHES[name] if lines else "0 99", "" if lines else key_marker(name), WORDS[name], hollow)
            )
    if lines:
        keys.append(LegendEntry("", "", "", "Lines: medians of neighbours. Band: the middle 80 % of what is guaranteed among them"))
    elif any(x.high is None for x in found) or any(x.low == 0 for x in found):
        keys.append(LegendEntry("", "", "", "Open triangles at an edge: nothing found, or nothing guaranteed"))
    if b.contradictions:
        keys.append(LegendEntry("wrong", "0 99", CROSS, "the two sides contradict one another", open=True))
    return tuple(keys)


def _bracket_notes(audit: Audit, b: BracketSummary, *, first: bool) -> tuple[str, ...]:
    """What holds of both norms is told with the first."""
    found = [x for _, x in brackets_in(audit, b.norm)]
    by = plainly([x.low_from for x in found])
    between = "Between the two sides nothing is known: a shorter move may exist, or none. The estimates there promise nothing."
    notes = [between] if first else []
    if by and first:
        notes.append(
            f"The lower side ({by}) is of the function that the file describes, in exact arithmetic. Rounding on a provider, "
            "and int8, may move a prediction that is even to the last digits."
        )
    if b.fisher_outside or b.first_order_outside:
        parts = [
            f"{what} on {outside:,} of {tried:,}"
            for what, outside, tried in (
                ("first order", b.first_order_outside, b.first_order_tried),
                ("λ_max", b.fisher_outside, b.fisher_tried),
            )
            if outside
        ]
        notes.append(f"Estimates outside their own bracket: {', '.join(parts)}. There they are wrong, and the two sides hold.")
    return tuple(notes)


def _decided(d: DecidedAt, b: BracketSummary, told: Robustness) -> DecidedLine:
    n = max(1, b.samples)

    def share(k: int) -> str:
        return f"{percent(k / n)} ({k:,})"

    in_steps = b.norm == "linf" and told.level is not None and b.units == told.units
    exact = float(f"{d.epsilon:.3g}") == d.epsilon
    return DecidedLine(
        levels(d.epsilon, told) if in_steps else short(d.epsilon) if exact else number(d.epsilon),
        kept=share(d.kept),
        open=share(d.open),
        lost=share(d.lost),
        kept_width=round(100 * d.kept / n, 1),
        open_width=round(100 * d.open / n, 1),
        lost_width=round(100 * d.lost / n, 1),
    )


def _noise(audit: Audit) -> NoiseView | None:
    tried = [n for n in audit.noise if n.samples]
    if not tried:
        return None
    worst = min(tried, key=lambda n: n.stable_samples / n.samples)
    same = len({n.stable for n in tried}) == 1
    answer = (
        f"Under {visible(worst.noise)}, {worst.stable_samples:,} of {count(worst.samples, 'sample')} are shown to keep their "
        f"prediction with a probability of at least {level_words(worst.stable)}, {_none_or(worst.unstable_samples)} shown not to."
    )
    return NoiseView(
        answer=answer,
        rows=tuple(_noise_row(n) for n in tried),
        least=tuple(_least_stable(audit)),
        notes=(
            f"Said of the file as it ran, on its provider, with {_confidences(tried)} confidence for all samples of a noise at "
            "once; no slope and no linearity is assumed. It is said of random noise: a change that someone chooses needs to be "
            "far shorter.",
            "A sample is open where the rows that it may have do not decide it (--noise-budget)."
            + ("" if same else " The probability that is asked for differs between the noises."),
        ),
    )


def _none_or(n: int) -> str:
    return "none is" if n == 0 else f"{n:,} {'is' if n == 1 else 'are'}"


def _confidences(tried: Iterable[NoiseSummary]) -> str:
    return " and ".join(dict.fromkeys(level_words(n.confidence) for n in tried))


def _noise_row(n: NoiseSummary) -> NoiseRow:
    open_ones = n.samples - n.stable_samples - n.unstable_samples
    return NoiseRow(
        noise=visible(n.noise),
        units=visible(n.units),
        stable=f"≥\u00a0{level_words(n.stable)}",
        here=Quantity(
            percent(n.stable_samples / n.samples), percent_interval(n.share.low, n.share.high) if open_ones else "all are decided"
        ),
        population=Quantity(
            percent_interval(n.population.low, n.population.high) or MISSING,
            None if n.population.low is None else f"{level_words(n.confidence)} interval",
        ),
        unstable=f"{n.unstable_samples:,}",
        open=f"{open_ones:,}",
        tries=f"{n.tries:,}",
    )


def _least_stable(audit: Audit) -> Iterable[UnsteadyRow]:
    """The samples that are not stable, those that keep their prediction least first."""
    found: list[tuple[SampleResult, NoiseStability]] = [
        (s, n) for s in audit.samples for n in s.noise if n.tries and n.decided != "stable"
    ]
    for s, n in sorted(found, key=lambda pair: (pair[1].kept / pair[1].tries, pair[0].index))[:_LEAST]:
        yield UnsteadyRow(
            index=s.index,
            name=visible(s.name),
            prediction=class_name(s.prediction, audit) or "–",
            noise=visible(n.noise),
            kept=Quantity(percent(n.kept / n.tries), percent_interval(n.low, n.high)),
            tries=f"{n.tries:,}",
            word=n.decided,
        )


def _smoothing(audit: Audit) -> SmoothingView | None:
    tried = [s for s in audit.smoothing if s.samples]
    if not tried:
        return None
    radii = _common_radii(tried)
    best = max(tried, key=lambda s: sum(p.share for p in s.curve) / max(1, len(s.curve)))
    clean = tried[0].clean_accuracy
    return SmoothingView(
        answer=f"{smoothing_words(best)}.",
        figure=at_both_widths(lambda width: certified_chart(tried, width=width)),
        clean="" if clean is None else percent(clean),
        radii=tuple(short(r) for r in radii),
        units=visible(tried[0].units),
        labelled=tried[0].labelled,
        rows=tuple(_smoothing_row(s, k, radii) for k, s in enumerate(tried)),
        caveats=tuple(dict.fromkeys(visible(s.caveat) for s in tried if s.caveat)) or (_OF_ANOTHER,),
        notes=(
            f"Each sample's radius holds with {_levels(tried)} confidence. Bands and intervals (95 %) hold the sampling of the "
            "data. Where the smoothed classifier abstains it counts as "
            + ("wrong." if tried[0].labelled else "not certified; without labels, it is counted with the file's own prediction."),
        ),
    )


def _levels(tried: Iterable[SmoothingSummary]) -> str:
    return " and ".join(dict.fromkeys(level_words(s.confidence) for s in tried))


def _common_radii(tried: Iterable[SmoothingSummary]) -> tuple[float, ...]:
    """Round radii from 0 to where the last curve ends."""
    most = max((p.radius for s in tried for p in s.curve if p.share > 0), default=0.0)
    if most <= 0:
        return (0.0,)
    from onnxfim.report.charts.axes import linear_ticks

    return tuple(t.value for t in linear_ticks(0.0, most, most=_RADII))


def _smoothing_row(s: SmoothingSummary, k: int, radii: Iterable[float]) -> SmoothingRow:
    series, dash = STROKES_OF[k % len(STROKES_OF)]
    return SmoothingRow(
        sigma=short(s.sigma),
        series=series,
        dash=dash,
        agrees=f"{s.agrees:,} of {s.samples:,}",
        abstained=f"{s.abstained:,}",
        at=tuple(_certified_within(s.curve, r) for r in radii),
        median=_median_radius(s.median),
        average="–" if s.average is None else number_below(s.average),
    )


def _median_radius(median: Aggregate | None) -> Quantity:
    if median is None or median.value is None:
        return Quantity(MISSING)
    return Quantity(number_below(median.value), known_ends(median.low, median.high))


def _certified_within(curve: Iterable[CertifiedShare], radius: float) -> Quantity:
    """The share at the next radius that is known, which is no larger than that at the one asked for; 0 beyond the last."""
    at = next((p for p in curve if p.radius >= radius - 1e-12), None)
    return Quantity("0\u00a0%") if at is None else Quantity(percent(at.share), percent_interval(at.low, at.high))
