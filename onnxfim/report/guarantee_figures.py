"""The numbers of guarantees one by one, for formats that hold names and values: each with its interval, its kind and its units."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from onnxfim.record.audit import Audit
from onnxfim.record.guarantee_summaries import BracketSummary, NoiseSummary, SmoothingSummary, VerifierSummary
from onnxfim.record.statistics import clopper_pearson
from onnxfim.report.guarantee_words import brackets_in, plainly, shown_brackets, telling_radii
from onnxfim.report.numbers import known_ends, number_above, number_below, percent, percent_interval, short
from onnxfim.report.vocabulary import NORM_WORDS

_RADII = 6  # of a curve of certified shares
LOWER, UPPER = "lower bound", "upper bound"


@dataclass(frozen=True)
class GuaranteedFigure:
    """One number.

    Attributes:
        name: As a gate calls it, such as ``noise[uniform:8/255].stable_share``, or in its manner.
        label: In words.
        value: The number.
        low, high: Ends of its interval, None where there is none.
        confidence: Level of the interval.
        kind: What it is, and of which function.
        units: What it is in; ``share`` of shares.
        part: The samples that it is of.
    """

    name: str
    label: str
    value: float
    low: float | None
    high: float | None
    confidence: float
    kind: str
    units: str
    part: str

    @property
    def plain(self) -> str:
        """The name in letters, digits, ``_``, ``-`` and ``.`` alone: ``noise.uniform_8_255.stable_share``."""
        return plain_name(self.name.replace("[", ".").replace("]", "").replace("@", "_at_"))


def guaranteed_figures(audit: Audit) -> Iterator[GuaranteedFigure]:
    """All of them; none of what was not run."""
    for b in shown_brackets(audit):
        yield from _of_bracket(audit, b)
    for n in audit.noise:
        yield from _of_noise(n)
    for s in audit.smoothing:
        yield from _of_smoothing(s)
    if audit.verifier is not None:
        yield from _of_verifier(audit.verifier)


def _of_bracket(audit: Audit, b: BracketSummary) -> Iterator[GuaranteedFigure]:
    found = [x for _, x in brackets_in(audit, b.norm)]
    norm, units, part = NORM_WORDS[b.norm], b.units, f"{b.samples} samples"
    by = plainly([x.low_from for x in found])
    sure = f"{LOWER}, guaranteed in exact arithmetic{f' by {by}' if by else ''}"
    seen = f"{UPPER}, found on the file as it ran"
    if b.low.value is not None:
        label = f"Median guaranteed distance, {norm}"
        yield GuaranteedFigure(
            f"bracket.{b.norm}.guaranteed_median", label, b.low.value, b.low.low, b.low.high, b.low.confidence, sure, units, part
        )
    if b.high.value is not None:
        label = f"Median distance found, {norm}"
        yield GuaranteedFigure(
            f"bracket.{b.norm}.found_median", label, b.high.value, b.high.low, b.high.high, b.high.confidence, seen, units, part
        )
    for at in b.decided:
        for word, n, kind in (("kept", at.kept, sure), ("lost", at.lost, seen)):
            told = "keep their prediction" if word == "kept" else "lose it"
            label = f"Samples that {told} within ε = {short(at.epsilon)}, {norm}"
            # Both shares are lower bounds: a sample that is open may be either.
            name, what = f"bracket.{b.norm}.{word}@{at.epsilon:g}", kind.replace(UPPER, LOWER)
            yield _share(name, label, n, b.samples, what, part)
    wrong = f"Samples whose two ends contradict one another, {norm}"
    yield _counted(f"bracket.{b.norm}.contradictions", wrong, b.contradictions, "count", "samples", part)


def _share(name: str, label: str, n: int, of: int, kind: str, part: str) -> GuaranteedFigure:
    """A share of the samples, with the interval of their sampling."""
    low, high = clopper_pearson(n, of) if of else (None, None)
    return GuaranteedFigure(name, label, n / of if of else 0.0, low, high, 0.95, kind, "share", part)


def _counted(name: str, label: str, n: int, kind: str, units: str, part: str) -> GuaranteedFigure:
    return GuaranteedFigure(name, label, float(n), None, None, 0.0, kind, units, part)


def _of_noise(n: NoiseSummary) -> Iterator[GuaranteedFigure]:
    if not n.samples:
        return
    name, part = f"noise[{n.noise}]", f"{n.samples} samples"
    kind = f"of the file as it ran, {100 * n.confidence:g}% confidence for all samples at once"
    of = f"stable under noise {n.noise} (p >= {n.stable:g})"
    share = n.stable_samples / n.samples if n.share.value is None else n.share.value
    yield GuaranteedFigure(
        f"{name}.stable_share_here",
        f"Share of these samples {of}",
        share,
        n.share.low,
        n.share.high,
        n.confidence,
        kind,
        "share",
        part,
    )
    if n.population.value is not None:
        p = n.population
        yield GuaranteedFigure(
            f"{name}.stable_share", f"Share of such samples in general {of}", share, p.low, p.high, n.confidence, kind, "share",
            f"the population of these {part}",
        )  # fmt: skip


def _of_smoothing(s: SmoothingSummary) -> Iterator[GuaranteedFigure]:
    name, part = f"smoothing[{s.sigma:g}]", f"{s.samples} samples"
    kind = f"{LOWER}, of the smoothed classifier, {100 * s.confidence:g}% confidence for each sample"
    certified = "certified_accuracy" if s.labelled else "certified_share"
    for p in telling_radii(s.curve, _RADII):
        what = "Certified accuracy" if s.labelled else "Share certified for the file's own prediction"
        label = f"{what} of the smoothed classifier (sigma = {s.sigma:g}) within L2 radius {p.radius:g} in {s.units}"
        yield GuaranteedFigure(f"{name}.{certified}@{p.radius:g}", label, p.share, p.low, p.high, 0.95, kind, "share", part)
    if s.median is not None and s.median.value is not None:
        label, m = f"Median certified radius of the smoothed classifier (sigma = {s.sigma:g})", s.median
        yield GuaranteedFigure(
            f"{name}.radius.median", label, m.value or 0.0, m.low, m.high, m.confidence, kind, f"{s.units}, L2", part
        )
    if s.accuracy is not None:
        label = f"Accuracy of the smoothed classifier (sigma = {s.sigma:g}), abstentions counted as wrong"
        yield _share(f"{name}.accuracy", label, round(s.accuracy * s.samples), s.samples, "of the smoothed classifier", part)


def _of_verifier(v: VerifierSummary) -> Iterator[GuaranteedFigure]:
    part, kind = f"{v.samples} samples, boxes in {NORM_WORDS[v.norm]}", "count, of a verifier's own conversion"
    for word, n in (
        ("unsat", v.unsat), ("sat", v.sat), ("unknown", v.unknown), ("timeout", v.timeout), ("error", v.error),
        ("not_followed", v.not_followed), ("contradictions", v.contradictions), ("disbelieved", v.disbelieved),
    ):  # fmt: skip
        yield _counted(f"verifier.{word}", f"Verifier: {word.replace('_', ' ')}", n, kind, "boxes", part)


def figure_words(f: GuaranteedFigure) -> tuple[str, str | None]:
    """A number as printed, and its interval; a length is rounded to the safe side."""
    if f.units == "share":
        return percent(f.value), percent_interval(f.low, f.high)
    if f.units in ("samples", "boxes"):
        return f"{f.value:,.0f}", None
    return number_above(f.value) if f.kind.startswith(UPPER) else number_below(f.value), known_ends(f.low, f.high)


def plain_name(noise: str) -> str:
    """A text as part of a name: ``uniform:8/255`` becomes ``uniform_8_255``."""
    return re.sub(r"[^\w.-]+", "_", noise, flags=re.ASCII)
