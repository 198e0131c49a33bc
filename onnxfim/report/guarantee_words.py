"""What is guaranteed and what was found, in sentences; the same on every surface. Each tells its kind, and of what it is said."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from onnxfim.record.audit import Audit
from onnxfim.record.foreign_text import visible
from onnxfim.record.guarantee_summaries import (
    BracketSummary,
    CertifiedShare,
    NoiseSummary,
    SmoothingSummary,
    VerifierSummary,
)
from onnxfim.record.guarantees import Bracket, Norm
from onnxfim.record.robustness import Robustness
from onnxfim.record.sample import SampleResult
from onnxfim.report.numbers import count, level_words, number, number_above, number_below, percent, percent_interval, short
from onnxfim.report.vocabulary import NORM_WORDS
from onnxfim.verdict.bracketing import contradicts

#: Kinds of what is said here.
GUARANTEED, FOUND, CONFIDENT = "guaranteed", "found", "with stated confidence"
#: Farther apart than this, a guarantee and what was found say nothing together on a first screen.
TELLING = 100.0
_FEW_RADII = 3  # of a smoothed classifier, in one sentence


def shown_brackets(audit: Audit) -> tuple[BracketSummary, ...]:
    """The brackets that were asked for; others, of the bound from the weights alone, are shown where they contradict themselves."""
    asked = audit.settings.bracket or audit.verifier is not None
    return tuple(b for b in audit.bracket if b.samples and (asked or b.contradictions))


def contradicting(audit: Audit, norm: Norm) -> frozenset[int]:
    """Samples whose two sides contradict one another in one norm beyond what rounding explains, by their index."""
    return frozenset(s.index for s, b in brackets_in(audit, norm) if contradicts(audit, s, b))


def bracket_of(sample: SampleResult, norm: Norm) -> Bracket | None:
    """A sample's bracket in one norm."""
    return next((b for b in sample.bracket if b.norm == norm), None)


def brackets_in(audit: Audit, norm: Norm) -> list[tuple[SampleResult, Bracket]]:
    """The samples that have a bracket in one norm, with it."""
    return [(s, b) for s in audit.samples if (b := bracket_of(s, norm)) is not None]


def sources_of(names: Sequence[str]) -> str:
    """What gave the ends: ``local bounds``, or ``local bounds on 180, weights on 20`` where several did; in whichever norm."""
    known = _sources(names)
    if len(known) <= 1:
        return next(iter(known), "")
    return ", ".join(f"{name} on {n:,}" for name, n in known.most_common())


def plainly(names: Sequence[str]) -> str:
    """The same without numbers: ``flip, attack``."""
    return ", ".join(name for name, _ in _sources(names).most_common())


def _sources(names: Sequence[str]) -> Counter[str]:
    """What gave the ends, each with how many; that it was in the other norm is told with each sample."""
    return Counter(visible(n.partition(" in ")[0]) for n in names if n)


def tightest(audit: Audit) -> BracketSummary | None:
    """The norm whose two ends are nearest to one another; None where none has both, or they are decades apart."""
    known = [(b.high.value / b.low.value, b) for b in shown_brackets(audit) if b.low.value and b.high.value]
    ratio, best = min(known, key=lambda pair: pair[0], default=(0.0, None))
    return best if ratio <= TELLING else None


def length(epsilon: float, norm: Norm, units: str, told: Robustness, *, above: bool = False) -> str:
    """A length as printed: rounded to the safe side, and with the steps of 255 that pictures have where all pixels move alike."""
    text = number_above(epsilon) if above else number_below(epsilon)
    if norm == "linf" and told.level is not None and units == told.units:
        return f"{text} ({short(round(epsilon / told.level, 2))}/255)"
    return text


def bracket_line(audit: Audit, told: Robustness) -> str | None:
    """Both ends in one sentence; None where the guarantee is far below what was found, so that it says little."""
    best = tightest(audit)
    if best is None or best.low.value is None or best.high.value is None:
        return None
    found = brackets_in(audit, best.norm)
    by = plainly([b.low_from for _, b in found])
    who = f"half of these {count(best.samples, 'sample')}" if best.samples > 1 else "the one sample"
    where = f"{NORM_WORDS[best.norm]} in {visible(best.units)}"
    by = f", by {by}" if by else ""
    if best.contradictions:
        return (
            f"The two sides contradict one another on {count(best.contradictions, 'sample')} ({where}): what is called "
            "guaranteed here is not to be relied on until the reason is known."
        )
    return (
        f"No change below ε = {length(best.low.value, best.norm, best.units, told)} ({where}) changes the prediction of {who} "
        f"(guaranteed in exact arithmetic{by}{_from(best.low.low)}); one of ε = "
        f"{length(best.high.value, best.norm, best.units, told, above=True)} changes that of "
        f"{'half' if best.samples > 1 else 'it'} (found{_to(best.high.high)})."
    )


def _from(end: float | None) -> str:
    return "" if end is None else f"; 95 % interval: at least {number_below(end)}"


def _to(end: float | None) -> str:
    return "" if end is None else f"; 95 % interval: at most {number_above(end)}"


def contradiction_words(b: BracketSummary) -> str:
    """That the two sides contradict one another, loudly; empty where they do not."""
    if not b.contradictions:
        return ""
    return (
        f"On {count(b.contradictions, 'sample')} a length is called guaranteed that is longer than a move which changed the "
        "prediction. One of the two is wrong: rely on neither, and see the findings."
    )


def noise_line(audit: Audit) -> str | None:
    """What the noise that most samples lose to leaves, in one sentence; None without noise."""
    tried = [n for n in audit.noise if n.samples]
    if not tried:
        return None
    worst = min(tried, key=lambda n: (n.stable_samples / n.samples, n.noise))
    others = f" ({count(len(tried) - 1, 'other noise', 'other noises')} in the report)" if len(tried) > 1 else ""
    return f"{noise_words(worst)}{others}."


def noise_words(found: NoiseSummary) -> str:
    """One noise, without a full stop."""
    still = f"keep their prediction with a probability of at least {level_words(found.stable)}"
    rest = found.samples - found.stable_samples - found.unstable_samples
    parts = []
    if found.unstable_samples:
        parts.append(f"{percent(found.unstable_samples / found.samples)} do not")
    if rest:
        parts.append(f"{percent(rest / found.samples)} are open")
    more = f", {', '.join(parts)}" if parts else ""
    return (
        f"Under noise {visible(found.noise)} (in {visible(found.units)}), {percent(found.stable_samples / found.samples)} of these "
        f"{count(found.samples, 'sample')} {still}{more}: of the file as it ran, {level_words(found.confidence)} confidence "
        "for all at once"
    )


def smoothing_words(found: SmoothingSummary) -> str:
    """One smoothed classifier, without a full stop: never said of the file itself."""
    rungs = ", ".join(f"{percent(p.share)} at {short(p.radius)}" for p in telling_radii(found.curve))
    what = "certified right" if found.labelled else "certified with the file's own prediction"
    beside = "" if found.clean_accuracy is None else f"; the file itself is right on {percent(found.clean_accuracy)}"
    return (
        f"Smoothed with σ = {short(found.sigma)}, {what} within L2 radii in {visible(found.units)}: {rungs or 'nothing'}; of "
        f"the smoothed classifier alone, {level_words(found.confidence)} confidence for each sample{beside}"
    )


def telling_radii(curve: Sequence[CertifiedShare], most: int = _FEW_RADII) -> tuple[CertifiedShare, ...]:
    """Points of a curve of certified shares that tell most: its beginning, and round parts of its fall."""
    if not curve:
        return ()
    first = curve[0]
    aims = [first.share * part for part in (1.0, 0.75, 0.5, 0.25, 0.1, 0.0)[:: 1 if most > _FEW_RADII else 2]]
    chosen = {min(curve, key=lambda p, aim=aim: (abs(p.share - aim), p.radius)).radius for aim in aims}  # type: ignore[misc]
    return tuple(p for p in curve if p.radius in chosen)[:most]


def verifier_words(found: VerifierSummary) -> str:
    """A verifier's answers in a sentence, without a full stop."""
    still = found.unknown + found.timeout
    believed = found.unsat - found.disbelieved
    parts = [f"{believed:,} hold no other prediction", f"{found.sat:,} hold one", f"{still:,} without an answer"]
    if found.disbelieved:
        parts.append(f"{found.disbelieved:,} said to hold none and not believed")
    if found.error:
        parts.append(f"{count(found.error, 'error')}")
    where = f"around {count(found.samples, 'sample')} ({NORM_WORDS[found.norm]})"
    told = f"{count(found.boxes, 'box', 'boxes')} {where}: {', '.join(parts)}"
    if found.not_followed:
        told += (
            f"; at {count(found.not_followed, 'counterexample')} the audited file keeps its prediction: the verifier's "
            "conversion is not this file"
        )
    if found.model is not None:
        told += f"; verified in its place: {visible(found.model)}, so that nothing is guaranteed of the audited file"
    if found.reason is not None:
        told += f"; {visible(found.reason)}"
    if found.contradictions:
        told += f"; {count(found.contradictions, 'answer')} contradict what was found"
        told += " on the file" if found.model is None else ""
    if found.without_control:
        told += (
            f"; no control question could be asked around {count(found.without_control, 'sample')}, of which nothing is certified"
        )
    return told


def verifier_name(found: VerifierSummary) -> str:
    """The program of a verifier's command, without its path."""
    first = (found.command.split() or [""])[0]
    return visible(re.split(r"[\\/]", first)[-1])


def short_lines(audit: Audit) -> Iterator[tuple[str, str]]:
    """A label and a line for each part that was run, for a card."""
    for b in shown_brackets(audit):
        yield "bracket", f"{NORM_WORDS[b.norm]}: {bracket_words(audit, b)}"
    for n in audit.noise:
        yield "noise", _brief_noise(n)
    for s in audit.smoothing:
        yield "smoothed", _brief_smoothed(s)
    if audit.verifier is not None:
        yield "verifier", f"{verifier_name(audit.verifier)}: {verifier_words(audit.verifier)}"


def bracket_words(audit: Audit, b: BracketSummary) -> str:
    """The medians of both ends, and what each is."""
    found = [x for _, x in brackets_in(audit, b.norm)]
    low_by, high_by = plainly([x.low_from for x in found]), plainly([x.high_from for x in found])
    low = "nothing" if not b.low.value else f"{number_below(b.low.value)} ({low_by or 'lower bound'})"
    high = "nothing on half" if b.high.value is None else f"{number_above(b.high.value)} ({high_by or 'upper bound'})"
    loud = f"; CONTRADICTION on {count(b.contradictions, 'sample')}" if b.contradictions else ""
    width = "" if b.width is None else f"; {number(b.width)} times apart"
    return f"guaranteed {low}, found {high}: medians in {visible(b.units)}{width}{loud}"


def _brief_smoothed(s: SmoothingSummary) -> str:
    if not s.samples:
        return f"σ = {short(s.sigma)}: no sample was tried{f': {visible(s.reason)}' if s.reason else ''}"
    rungs = ", ".join(f"{percent(p.share)} within {short(p.radius)}" for p in telling_radii(s.curve))
    beside = "" if s.clean_accuracy is None else f"; the file itself {percent(s.clean_accuracy)} clean"
    what = "certified right" if s.labelled else "certified"
    return (
        f"σ = {short(s.sigma)}: {what} {rungs or 'nowhere'} (L2, {visible(s.units)}; of the smoothed classifier, "
        f"{level_words(s.confidence)} confidence){beside}"
    )


def _brief_noise(n: NoiseSummary) -> str:
    if not n.samples:
        return f"{visible(n.noise)}: no sample was tried"
    ends = percent_interval(n.population.low, n.population.high)
    open_ones = n.samples - n.stable_samples - n.unstable_samples
    more = f", {open_ones:,} open" if open_ones else ""
    of = f"; of the population {ends}" if ends else ""
    return (
        f"{visible(n.noise)}: {n.stable_samples:,} of {count(n.samples, 'sample')} stable at {level_words(n.stable)}{more}{of} "
        f"({level_words(n.confidence)} confidence, as the file ran)"
    )
