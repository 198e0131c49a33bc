"""A comparison as CSV: one line a model, or one line a pair and measure."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from onnxfim.record.decision import Aggregate
from onnxfim.report.comparison_words import standings
from onnxfim.report.csv_samples import as_cell
from onnxfim.verdict.comparison import Comparison

_STATISTICS = ("mean", "raw", "calibrated", "boundary_distance", "flip_radius", "certified_radius", "certified_radius_linf")
#: Columns of the models, in order; those named like an entry's field hold it.
MODELS = (
    "rank", "rank_low", "rank_high", "name", "path", "sha256", "decided_better_than", "decided_worse_than", "relative",
    *(f"{s}{end}" for s in _STATISTICS for end in ("", "_low", "_high")),
    "accuracy", "accuracy_low", "accuracy_high", "temperature", "measure", "ranked_by", "units", "step", "scheme", "method", "seed",
    "provider", "evaluations", "log10_fisher_bound", "samples", "data", "data_sha256",
)  # fmt: skip
#: Columns of the pairs; ``ratio`` is the second model's over the first's.
PAIRS = (
    "first", "second", "better", "by", "p_decided", "agreement", "question", "measure", "samples", "unfound", "ratio", "ratio_low",
    "ratio_high", "p", "p_adjusted", "more_robust", "significant", "decides", "test",
)  # fmt: skip


def render_comparison_csv(comparison: Comparison) -> str:
    """The models from the most robust on as CSV text with a header; numbers in full precision, empty where not known."""
    rows = []
    for s in standings(comparison):
        e = comparison.entries[s.position]
        row: dict[str, Any] = {name: getattr(e, name) for name in MODELS if hasattr(e, name)}
        for name in _STATISTICS:
            row |= _ends(name, getattr(e, name))
        rows.append(
            row
            | {"decided_better_than": s.over, "decided_worse_than": s.under}
            | {"measure": comparison.measure, "ranked_by": comparison.ranked_by, "units": comparison.units}
            | {"samples": comparison.count, "data": comparison.data, "data_sha256": comparison.data_sha256}
        )
    return _written(MODELS, rows)


def render_pairs_csv(comparison: Comparison) -> str:
    """Every test of every pair as CSV text with a header, in the order of the pairs."""
    names = [e.name for e in comparison.entries]
    rows = []
    for pair in comparison.pairs:
        if (d := pair.decided) is None:
            continue
        told = {"first": names[pair.first], "second": names[pair.second], "by": d.by, "p_decided": d.p, "agreement": d.agreement}
        told["better"] = None if d.better is None else names[d.better]
        for t in d.measures:
            more = None if t.better is None else names[t.better]
            rows.append(
                told
                | {"question": t.question, "measure": t.measure, "samples": t.count, "unfound": t.unfound, "more_robust": more}
                | _ends("ratio", t.ratio)
                | {"p": t.p, "p_adjusted": t.p_adjusted, "significant": t.significant, "decides": t.decides, "test": t.test}
            )
    return _written(PAIRS, rows)


def _ends(name: str, a: Aggregate | None) -> dict[str, float | None]:
    return {} if a is None else {name: a.value, f"{name}_low": a.low, f"{name}_high": a.high}


def _written(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    sink = io.StringIO()
    writer = csv.DictWriter(sink, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: as_cell(v) if isinstance(v, str) else v for k, v in row.items()} for row in rows)
    return sink.getvalue()
