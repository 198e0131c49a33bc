"""What a comparison decided, in words: the answer, what it rests on, each pair; the same on every surface."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from textwrap import wrap

from onnxfim.record.decision import Aggregate
from onnxfim.record.foreign_text import visible
from onnxfim.report.numbers import count, inline_label, known_ends, number, p_words, percent
from onnxfim.verdict.comparison import Comparison, Entry, Pair
from onnxfim.verdict.decided import Decision, MeasureTest, Question

_LEAST_NAME = 8  # letters of a model's name in a terminal's table
_SPARED = (3, 5, 4)  # columns that a narrow terminal goes without, the first first: relative, over/under, accuracy
#: What the signs of a table of pairs mean.
SIGNS_NOTE = "+ the row's model is more robust than the column's, − less, · not decided, ≠ the measures disagree."
_NAMED = 3  # models that a sentence names at most
#: How a ratio of each question is said, of the second model against the first.
_TIMES: dict[Question, str] = {
    "distance": "times as far", "boundary": "times as far", "log_lambda": "times as sensitive, sample by sample",
    "mean_lambda": "times as sensitive on average",
}  # fmt: skip


@dataclass(frozen=True)
class Standing:
    """One model in the order of a comparison, as tables print it.

    ``ranks`` are those that the decided pairs leave open; ``over`` and ``under`` count the models that it is decided to be more and
    less robust than; ``distance`` is the median of what ranks.
    """

    position: int
    name: str
    ranks: str
    distance: Aggregate | None
    relative: str
    accuracy: str
    over: int
    under: int


def names_of(comparison: Comparison) -> tuple[str, ...]:
    """The models' names, without a file ending that says nothing."""
    whole = [visible(e.name) for e in comparison.entries]
    short = [n.removesuffix(".onnx") for n in whole]
    return tuple(short if len(set(short)) == len(short) else whole)


def ranks_of(entry: Entry) -> str:
    """``3``, or ``2-6`` where several ranks are open."""
    return f"{entry.rank_low}" if entry.rank_low == entry.rank_high else f"{entry.rank_low}-{entry.rank_high}"


def standings(comparison: Comparison) -> tuple[Standing, ...]:
    """The models from the most robust on."""
    names = names_of(comparison)
    found = []
    for i in comparison.order:
        e = comparison.entries[i]
        mine = [d.better for d in _decided(comparison, i) if d.better is not None]
        found.append(
            Standing(
                i, names[i], ranks_of(e), _ranking_value(comparison, e),
                number(e.relative) if e.relative is not None else "–",
                percent(e.accuracy) if e.accuracy is not None else "–",
                mine.count(i), len(mine) - mine.count(i),
            )
        )  # fmt: skip
    return tuple(found)


def by_distances(comparison: Comparison) -> bool:
    """Whether distances rank the models, not λ_max."""
    return comparison.ranked_by in ("flip_radius", "boundary_distance")


def ranking_label(comparison: Comparison) -> str:
    """What the models are ranked by: ``median flip radius``, ``mean calibrated λ_max``."""
    by = comparison.ranked_by or comparison.measure
    return f"{'median' if by_distances(comparison) else 'mean'} {inline_label(by)}"


def ranking_units(comparison: Comparison) -> str:
    """Units of what the models are ranked by."""
    return distance_units(comparison) if by_distances(comparison) else visible(comparison.units)


def distance_units(comparison: Comparison) -> str:
    """Units of the entries' distances; without any of their own, those that lambda_max is per square of."""
    if comparison.distance_units:
        return f"{visible(comparison.distance_units)}, L2"
    unit = comparison.units.rpartition("per squared ")[2] or "input unit"
    return f"{visible(unit)}s, L2"


def headline(comparison: Comparison) -> str:
    """The answer in a sentence."""
    names = names_of(comparison)
    if all(e.mean.value is None for e in comparison.entries):
        return "Nothing was measured, so nothing can be ranked."
    if comparison.baseline is not None:
        return _against_baseline(comparison, names)
    if len(names) == 2:
        return _of_two(comparison.pairs[0], names)
    best = comparison.order[0]
    mine = _decided(comparison, best)
    open_to = [names[j] for j in comparison.order[1:] if (pair := comparison.pair(best, j)) is None or not pair.told]
    if not open_to:
        worst = max(d.p for d in mine)
        return f"{names[best]} is the most robust of {len(names)}: decided against every other ({p_words(worst)})."
    if len(open_to) == len(names) - 1:
        return f"No model is shown to be the most robust; {names[best]} leads by {ranking_label(comparison)}."
    return f"{names[best]} leads, but is not told apart from {_listed(open_to)}."


def sentences(comparison: Comparison) -> tuple[str, ...]:
    """How much is decided, how sure that is, and where measures disagree."""
    names = names_of(comparison)
    several = len(comparison.pairs) > 1
    found = []
    if several:
        found.append(
            f"{comparison.told} of {count(len(comparison.pairs), 'pair')} decided; the chance that any of them is decided wrongly "
            f"is at most {percent(comparison.level)}."
        )
    torn = [p for p in comparison.pairs if p.decided is not None and p.decided.agreement == "disagree"]
    if torn:
        pairs = _listed([f"{names[p.first]} and {names[p.second]}" for p in torn])
        found.append(
            f"The measures disagree on {pairs}." if len(torn) == 1 else f"The measures disagree on {len(torn)} pairs: {pairs}."
        )
    if comparison.told < len(comparison.pairs) and several:
        found.append("What is not decided may be chance: with other samples of the same kind the order may turn.")
    return tuple(found)


def pair_words(pair: Pair, names: Sequence[str]) -> str:
    """What is decided about a pair, and by what."""
    d = pair.decided
    if d is None:
        return "not tested"
    if d.better is None:
        return "the measures disagree" if d.agreement == "disagree" else "not decided"
    by = d.of(d.by) if d.by is not None else None
    told = f"{names[d.better]} is more robust, by {inline_label(by.measure) if by else 'λ_max'}"
    return f"{told}; the measures disagree" if d.agreement == "disagree" else told


def test_words(test: MeasureTest) -> str:
    """One measure of a pair: ``flip radius 1.69 times as far (1.48 to 1.93), p = 7e-08``."""
    ends = known_ends(test.ratio.low, test.ratio.high)
    value = "not bounded" if test.ratio.value is None else number(test.ratio.value)
    more = f"; {test.note}" if test.note else ""
    return f"{test_label(test)}: {value} {_TIMES[test.question]}{f' ({ends})' if ends else ''}, {p_words(test.p_adjusted)}{more}"


def test_label(test: MeasureTest) -> str:
    """What a test is of: the measure, and of λ_max whether it is of each sample or of the mean."""
    name = inline_label(test.measure)
    return {"log_lambda": f"{name} of each sample", "mean_lambda": f"mean {name}"}.get(test.question, name)


def sign_of(comparison: Comparison, row: int, column: int) -> str:
    """``+`` where the row's model is decided to be more robust, ``−`` where less, ``≠`` where measures disagree, ``·`` where open.

    Empty for a model against itself, and for pairs that were not tested.
    """
    pair = comparison.pair(row, column)
    if pair is None or (d := pair.decided) is None:
        return ""
    if d.better is None:
        return "≠" if d.agreement == "disagree" else "·"
    return "+" if d.better == row else "−"


def _lead(pair: Pair) -> MeasureTest | None:
    """The test that the answer on two models tells: the one that decided, else the first; None where it tells none."""
    d = pair.decided
    if d is None or all(t.better is None for t in d.measures):
        return None
    return d.of(d.by) if d.by is not None else d.measures[0]


def _of_two(pair: Pair, names: Sequence[str]) -> str:
    first, second = names[pair.first], names[pair.second]
    d, lead = pair.decided, _lead(pair)
    if d is not None and all(t.better is None for t in d.measures):
        return f"{first} and {second} are equal on every sample."
    if d is None or lead is None or d.better is None:
        told = f": {test_words(lead)}" if lead is not None else ""
        why = "the measures disagree" if d is not None and d.agreement == "disagree" else "neither is shown to be more robust"
        return f"{first} and {second}: {why}. {second} against {first}{told}." if told else f"{first} and {second}: {why}."
    other = second if d.better == pair.first else first
    return f"{names[d.better]} is more robust than {other}. {second} against {first}: {test_words(lead)}."


def _against_baseline(comparison: Comparison, names: Sequence[str]) -> str:
    at = comparison.baseline
    assert at is not None
    found = [p.decided for p in comparison.pairs if p.decided is not None]
    worse = sum(d.better == at for d in found)
    better = sum(d.better not in (None, at) for d in found)
    left = len(found) - better - worse
    return f"Against {names[at]}: {better} of {count(len(found), 'model')} more robust, {worse} less, {left} not decided."


def _decided(comparison: Comparison, i: int) -> list[Decision]:
    return [p.decided for p in comparison.pairs if i in (p.first, p.second) and p.decided is not None]


def _ranking_value(comparison: Comparison, entry: Entry) -> Aggregate | None:
    by = comparison.ranked_by
    return {"flip_radius": entry.flip_radius, "boundary_distance": entry.boundary_distance}.get(by, entry.mean)


def _listed(words: Sequence[str]) -> str:
    named = list(words[:_NAMED])
    if len(words) > _NAMED:
        named.append(f"{len(words) - _NAMED} more")
    return named[0] if len(named) == 1 else f"{', '.join(named[:-1])} and {named[-1]}"


def terminal_lines(comparison: Comparison, *, width: int = 80) -> Iterator[str]:
    """The answer first, then one line a model within ``width`` columns; of up to three pairs, a line for each measure."""
    for sentence in (headline(comparison), *sentences(comparison)):
        yield from wrap(sentence, width, break_long_words=False, break_on_hyphens=False)
    rows = standings(comparison)
    label = ranking_label(comparison)
    cells = [
        (r.ranks, r.name, _interval(r.distance), r.relative, r.accuracy.replace("\u00a0", " "), f"{r.over}/{r.under}") for r in rows
    ]
    head = ("rank", "model", label, "relative", "accuracy", "over/under")
    widths = [max(len(row[k]) for row in (head, *cells)) for k in range(len(head))]
    kept = list(range(len(head)))
    for column in _SPARED:
        if sum(widths[k] + 2 for k in kept if k != 1) + _LEAST_NAME > width:
            kept.remove(column)
    widths[1] = max(_LEAST_NAME, min(widths[1], width - sum(widths[k] + 2 for k in kept if k != 1)))
    short = [shortened(row[1], widths[1], gap="...") for row in (head, *cells)]
    for row, name in zip((head, *cells), short, strict=True):
        # A name that would look like another's is told whole, over several lines.
        parts = [name] if short.count(name) == 1 else [row[1][k : k + widths[1]] for k in range(0, len(row[1]), widths[1])]
        shown = [parts[0] if k == 1 else cell for k, cell in enumerate(row)]
        yield "  ".join(shown[k].ljust(widths[k]) for k in kept).rstrip()
        yield from (" " * (widths[0] + 2) + part for part in parts[1:])
    if len(comparison.pairs) <= _NAMED:
        names = names_of(comparison)
        for pair in comparison.pairs:
            lead = _lead(pair) if len(names) == 2 and comparison.baseline is None else None  # the answer told it already
            about = pair_words(pair, names) if lead is None else "the other measures"
            told = f"{names[pair.second]} against {names[pair.first]}: {about}"
            yield from wrap(told, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
            if pair.decided is not None:
                for t in (t for t in pair.decided.measures if t is not lead):
                    yield from wrap(
                        f"  {test_words(t)}", width, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
                    )  # fmt: skip


def shortened(text: str, most: int, *, gap: str = "…") -> str:
    """The text in so many letters at most: its middle is left out, for names of a family differ at their ends."""
    if len(text) <= most:
        return text
    kept = max(most - len(gap), 2)
    return f"{text[: kept // 2]}{gap}{text[-(kept - kept // 2) :]}"


def _interval(a: Aggregate | None) -> str:
    if a is None or a.value is None:
        return known_ends(None if a is None else a.low, None) or "not measured"
    ends = known_ends(a.low, a.high)
    return f"{number(a.value)} ({ends})" if ends and a.low != a.high else number(a.value)
