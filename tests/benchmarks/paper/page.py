"""docs/paper.md and its figures, and answers.json beside results.json: written from results.json, nothing by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import (
    answers_again,
    answers_conversion,
    answers_correlation,
    answers_published,
    answers_ranking,
    answers_seeds,
    answers_shift,
    answers_strength,
    answers_twins,
)
from .answer import Answer, Cell, Table, told
from .population import TRAINED_SHARE, Model, Results
from .resampling import REPLICATES
from .statistics import mean, median
from .verdicts import CALIBRATED, HOLDS, NOT, UNDECIDED

HERE = Path(__file__).resolve().parent
DOCS = HERE.parents[2] / "docs"
RESULTS, ANSWERS = HERE / "results.json", HERE / "answers.json"
PAPER = "Zhang, Li, Wang, Wang, Jin (2026), *Measuring Model Robustness via Fisher Information*, [arXiv:2606.04767](https://arxiv.org/abs/2606.04767)"

SAID = {HOLDS: "hold", CALIBRATED: "hold after calibration", NOT: "do not hold", UNDECIDED: "are undecided"}


def answers(results: Results) -> list[Answer]:
    """All of them, in the page's order."""
    found = [
        answers_correlation.answer(results), answers_ranking.answer(results), answers_strength.answer(results), answers_seeds.answer(results),
        answers_conversion.answer(results), answers_shift.answer(results), answers_published.answer(results), answers_twins.answer(results),
        answers_again.answer(results),
    ]  # fmt: skip
    return [a for a in found if a is not None]


def cell(value: Cell) -> str:
    """A cell of a Markdown table."""
    return told(value).replace("|", "\\|")


def markdown(table: Table) -> list[str]:
    """A table with its note; nothing where it has no rows."""
    if not table.rows:
        return []
    head = "| " + " | ".join(cell(h) or " " for h in table.head) + " |"
    rows = ["| " + " | ".join(cell(c) for c in row) + " |" for row in table.rows]
    return [head, "|" + "---|" * len(table.head), *rows, "", *([table.note, ""] if table.note else [])]


def folded(words: str, lines: Sequence[str]) -> list[str]:
    """A part that opens on a click."""
    return ['<details markdown="1">', f"<summary>{words}</summary>", "", *lines, "", "</details>", ""]


def shortened(line: str) -> str:
    """Its first sentence and its last: the figures between stand in the answer itself."""
    sentences = line.split(". ")
    return line if len(sentences) < 3 else f"{sentences[0]}. {sentences[-1]}"


def section(answer: Answer) -> list[str]:
    """One answer: its first table open, the others folded."""
    shown = [t for t in answer.tables if t.rows]
    lines = [f"## {answer.title}", "", f"**Claim.** {answer.claim}", "", f"**Measured.** {answer.measured}", "",
             f"**Verdict: {answer.verdict}.** {answer.line}", "", f"Rule: {answer.rule}.", ""]  # fmt: skip
    for figure in answer.figures:
        lines += [f"![{figure.alt}](paper/{figure.name}.svg)", ""]
    for table in shown[:1]:
        lines += markdown(table)
    for table in shown[1:]:
        lines += folded(f"{table.title or table.head[0]}, {len(table.rows)} rows", markdown(table))
    return lines


def row(results: Results, model: Model) -> tuple[Cell, ...]:
    """One model of the list."""
    values = {k: model.samples(k) for k in ("lambda_raw", "lambda_calibrated", "l2", "right")}
    size = min(len(values["l2"]), len(values["right"]))
    hit = values["l2"][:size][values["right"][:size] > 0]

    def of(tell: Any, array: np.ndarray) -> Cell:
        return float(tell(array)) if len(array) else None

    accuracy = model.number("accuracy")
    least = results.least_accuracy(str(model.data))
    state = model.failed or ("left out: accuracy" if accuracy < least else "")
    return (
        model.name, model.data, None if np.isnan(accuracy) else f"{accuracy:.1%}", " / ".join(f"{r:.0%}" for r in model.robust()) or None,
        of(median, hit), of(mean, values["lambda_raw"]), of(mean, values["lambda_calibrated"]), model.number("temperature"), state,
    )  # fmt: skip


def models_list(results: Results) -> list[str]:
    """Every model with accuracy and attacks, by block."""
    lines: list[str] = []
    head = (
        "model",
        "data",
        "accuracy",
        "robust accuracy at the three radii",
        "smallest L2, median of the right",
        "λ raw, mean",
        "λ calibrated, mean",
        "temperature",
        "",
    )
    for block in dict.fromkeys(str(m.block) for m in results.models):
        chosen = [m for m in results.models if m.block == block]
        lines += folded(f"{block}: {len(chosen)} models", markdown(Table(head, [row(results, m) for m in chosen])))
    return lines


def failures(results: Results) -> list[str]:
    """Models without a complete record, and those that did not learn their task."""
    failed = [(m.name, str(m.failed)) for m in results.models if m.failed]
    weak = [
        (m.name, f"accuracy {m.number('accuracy'):.1%}, under {results.least_accuracy(str(m.data)):.1%}")
        for m in results.models if not m.failed and m.number("accuracy") < results.least_accuracy(str(m.data))
    ]  # fmt: skip
    missed = [n for m in results.models for n in m.part("attack").get("missed") or ()]
    lines = [
        f"{len(results.models)} models, {len(failed)} without a complete record, {len(weak)} left out of all comparisons because their accuracy is under "
        f"chance plus {TRAINED_SHARE:.0%} of the way from chance to the data set's best. How the correlations change without that rule is told "
        "[there](#does-λ-order-models-as-attacks-do).",
        f"The L∞ ensemble left {sum(missed):,} images standing, over all models and radii, although an L2 attack had found one within that radius."
        if missed else "",
        "",
    ]  # fmt: skip
    return [*lines, *(folded("which, and why", markdown(Table(("model", "why"), [*failed, *weak]))) if failed or weak else [])]


def costs(results: Results) -> list[str]:
    """Seconds of one thread, by stage and data set."""
    blocks = list(dict.fromkeys((str(m.data), "others" if m.block == "others" else "ours") for m in results.models))
    rows: list[tuple[Cell, ...]] = []
    total = 0.0
    for data, kind in blocks:
        chosen = [m for m in results.models if m.data == data and (m.block == "others") == (kind == "others")]
        seconds = [sum((m.entry.get(s) or {}).get("seconds") or 0.0 for m in chosen) for s in ("train", "audit", "attack")]
        if sum(seconds):
            total += sum(seconds)
            rows.append((data, len(chosen), *(f"{s:,.0f}" for s in seconds)))
    table = Table(
        ("data set", "models", "train, s", "audit, s", "attack, s"),
        rows,
        f"Seconds of one thread; {total / 3600:.1f} hours in all, half of it on two cores.",
    )
    return markdown(table)


LIMITS = """- Small nets on small grey images, and others' models as they are. What holds here need not hold at 224x224 and with 100 million parameters.
- CIFAR-10 is here by others' models alone, ImageNet by one of them, which no correlation over models can be told of; CIFAR-100 not at all.
- The training part of PneumoniaMNIST at hand lacks most normal images; one medical data set is not "medical images".
- Attacks give upper bounds of the distance: a model that hides its gradients looks more robust than it is.
- λ is a local quantity of second order: an estimate, no certificate. The temperature is fitted on the images that are then audited.
- Intervals over models treat configurations as drawn at random from those that could have been; they were chosen. Percentile intervals of a rank
  correlation near 1 lie too low, since samples are drawn twice; at the threshold of 0.5 they hold the truth 95 to 97 % of the time (simulated).
- Each verdict is judged by itself; with this many of them one or two intervals are expected to miss."""


def method(results: Results) -> list[str]:
    """What was done, from the results' own notes."""
    data = [(d, n.get("note"), n.get("train"), n.get("test"), n.get("epsilon")) for d, n in results.json["data"].items()]
    attacks = [(a.get("data"), a.get("block"), a.get("attacks"), a.get("how")) for a in results.json.get("attacks", ())]
    versions = ", ".join(f"{k} {v}" for k, v in (results.json.get("versions") or {}).items())
    return [
        "Every model is trained, exported to ONNX and audited from that file by the product. The first test images are audited and attacked, the same ones for "
        "all models of a data set. The truth of a model is the median over its rightly classified images of the smallest L2 distance that any attack "
        "found, and its robust accuracy under the ensemble at the radius of training. Correlations are Spearman's, turned so that + means "
        "*ordered as attacks order*. Intervals are percentiles of "
        f"{results.replicates:,} bootstrap replicates of two levels: models, all seeds of one configuration together, and samples, the same ones for all models. "
        "A distance that was looked for and not found is read as twice the longest of its data set.",
        "",
        *markdown(Table(("data set", "what it is", "training images", "test images", "ε (L∞, of training)"), data)),
        *(folded("attacks", markdown(Table(("data set", "block", "attacks", "how"), attacks))) if attacks else []),
        f"Made with {versions}." if versions else "", "",
    ]  # fmt: skip


def page(results: Results, found: Sequence[Answer]) -> str:
    """The text of docs/paper.md."""
    counted = [m for m in results.models if not m.failed]
    counts = {v: sum(a.verdict == v for a in found) for v in (HOLDS, CALIBRATED, NOT, UNDECIDED)}
    lines = [
        "<!-- Written by `python -m tests.benchmarks.paper report`; change the code, not this page. -->", "",
        "# The paper answered", "",
        f"{PAPER}, makes claims about the spectral norm λ of the input Fisher information, and leaves questions open. Here they are held against {len(counted)} "
        f"classifiers with their attacks on {', '.join(results.data_sets)}" + (" and models of others" if results.foreign else "") + ". "
        "Every number is computed from `tests/benchmarks/paper/results.json`; the numbers below are also in `answers.json` beside it. "
        "`python -m tests.benchmarks.paper all --work FOLDER` makes all of it again.", "",
        f"Of {len(found)} answers {', '.join(f'{n} {SAID[v]}' for v, n in counts.items() if n)}.",
        "",
        "| question | verdict | in short |", "|---|---|---|",
        *(f"| {cell(a.title)} | **{a.verdict}** | {cell(shortened(a.line))} |" for a in found), "",
        *(line for a in found for line in section(a)),
        "## How it was measured", "", *method(results),
        "## What failed", "", *failures(results),
        "## All models", "", *models_list(results),
        "## What it cost", "", *costs(results),
        "## Limits", "", LIMITS, "",
    ]  # fmt: skip
    return "\n".join(lines).replace("\n\n\n", "\n\n").rstrip() + "\n"


def write(results_path: Path, docs: Path, *, answers_path: Path | None = None, replicates: int = REPLICATES) -> list[Answer]:
    """Write ``docs/paper.md``, ``docs/paper/*.svg`` and answers.json (beside the results, if not told otherwise).

    Args:
        results_path: results.json.
        docs: Folder of the pages.
        answers_path: Where the machine-readable answers go.
        replicates: Of the bootstrap.
    """
    results = Results(json.loads(results_path.read_text(encoding="utf-8")), replicates)
    found = answers(results)
    whole = {"schema": 1, "replicates": replicates, "answers": {a.key: a.json() for a in found}}
    (answers_path or results_path.with_name("answers.json")).write_text(
        json.dumps(whole, ensure_ascii=False, indent=0) + "\n", encoding="utf-8"
    )
    (docs / "paper").mkdir(parents=True, exist_ok=True)
    for figure in (f for a in found for f in a.figures):
        (docs / "paper" / f"{figure.name}.svg").write_text(figure.svg, encoding="utf-8")
    (docs / "paper.md").write_text(page(results, found), encoding="utf-8")
    return found


def report(folder: Any, again: str | None = None) -> None:
    """The stage ``report``: gather the run's records into results.json, and write the page from it.

    Args:
        folder: The run's ``Folder``.
        again: The data set whose block was made once more.
    """
    from .cells import grid
    from .collect import collect
    from .data_sets import DATA_SETS

    size = collect(folder, grid(DATA_SETS, again=again), RESULTS)
    print(f"report: {RESULTS.name} has {size:,} bytes", flush=True)
    for answer in write(RESULTS, DOCS):
        print(f"report: {answer.title} {answer.verdict}: {answer.line}", flush=True)
