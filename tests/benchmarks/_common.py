"""What the benchmark scripts share: where the models lie, how a table is printed, statistics of paired audits."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

SAMPLE_MODELS = ROOT / "sample_models"
SHARED_MODELS = ROOT / ".." / "shared" / "models"


@dataclass(frozen=True)
class Case:
    """A model file, its samples, and its exact values where they are known."""

    name: str
    path: Path
    inputs: np.ndarray
    labels: np.ndarray
    exact: dict[str, Any] | None
    record: dict[str, Any] | None = None


def arguments(doc: str | None, *more: tuple[str, dict[str, Any]]) -> argparse.Namespace:
    """Parsed arguments: ``--quick`` and ``--models``, and what a script adds."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small part of it, in under 20 seconds")
    parser.add_argument("--models", default="", help="only models whose name holds this text")
    for flag, options in more:
        parser.add_argument(flag, **options)
    return parser.parse_args()


def print_table(headers: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str = "") -> None:
    """Print a Markdown table row by row, as the rows come."""
    if title:
        print(f"\n### {title}\n")
    print("| " + " | ".join(headers) + " |")
    print("|" + "---|" * len(headers), flush=True)
    for row in rows:
        print("| " + " | ".join("–" if cell is None else str(cell) for cell in row) + " |", flush=True)


def have_shared() -> bool:
    """Whether the real trained models are there; says so where they are not."""
    found = (SHARED_MODELS / "manifest.json").is_file()
    if not found:
        print(f"skipped: the real trained models are not at {SHARED_MODELS}")
    return found


def sample_case(name: str) -> Case:
    """A sample model by its name, with the exact values of its float32 original where it has its own."""
    reference = json.loads((SAMPLE_MODELS / "reference.json").read_text(encoding="utf-8"))
    data = np.load(SAMPLE_MODELS / "digits.npz")
    return Case(name, SAMPLE_MODELS / f"{name}.onnx", data["inputs"], data["labels"], reference.get(name))


def sample_cases() -> list[Case]:
    """The sample models with exact values."""
    reference = json.loads((SAMPLE_MODELS / "reference.json").read_text(encoding="utf-8"))
    return [sample_case(name) for name in reference]


def shared_cases() -> list[Case]:
    """The real trained models, in the order of their manifest; data is read once per file."""
    records = json.loads((SHARED_MODELS / "manifest.json").read_text(encoding="utf-8"))
    data = {name: dict(np.load(SHARED_MODELS / name)) for name in {r["data"] for r in records}}
    cases = []
    for record in records:
        name = record["model"].removesuffix(".onnx")
        exact = SHARED_MODELS / "exact" / f"{name}.json"
        truth = json.loads(exact.read_text(encoding="utf-8")) if exact.is_file() else None
        arrays = data[record["data"]]
        cases.append(Case(name, SHARED_MODELS / record["model"], arrays["inputs"], arrays["labels"], truth, record))
    return cases


def ratio_of_means(a: np.ndarray, b: np.ndarray, *, replicates: int = 2000) -> tuple[float, float, float]:
    """``mean(a)/mean(b)`` over paired samples with its 95 % bootstrap interval over the samples."""
    draws = np.random.default_rng(0).integers(0, len(a), (replicates, len(a)))
    ratios = a[draws].mean(axis=1) / b[draws].mean(axis=1)
    low, high = np.quantile(ratios, [0.025, 0.975])
    return float(a.mean() / b.mean()), float(low), float(high)
