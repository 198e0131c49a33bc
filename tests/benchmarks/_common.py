"""What the benchmark scripts share: where the models lie, how a table is printed, statistics of paired audits."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from tests.support import trained  # noqa: E402 - the scripts run from any folder
from tests.support.places import MODELS, OTHERS, SAMPLES  # noqa: E402

SAMPLE_MODELS, SHARED_MODELS = SAMPLES, MODELS


@dataclass(frozen=True)
class Case:
    """A model file, its samples, and its exact values where they are known; ``record`` is what others say of theirs."""

    name: str
    path: Path
    inputs: np.ndarray
    labels: np.ndarray
    exact: Mapping[str, Any] | None
    record: Mapping[str, Any] | None = None


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
    """Whether others' trained models are there; says so where they are not."""
    if not trained.THEIRS:
        print(f"the sample models alone: {OTHERS.name} are not there ({OTHERS.how})")
    return bool(trained.THEIRS)


def case_of(model: trained.Trained) -> Case:
    """A trained model with its samples read."""
    arrays = model.arrays
    return Case(model.name, model.path, arrays["inputs"], arrays["labels"], model.exact if model.stored else None, model.record)


def sample_case(name: str) -> Case:
    """A sample model by its name."""
    return case_of(trained.OURS[name])


def sample_cases() -> list[Case]:
    """The sample models with exact values."""
    return [case_of(model) for model in trained.OURS.values() if model.stored]


def shared_cases() -> list[Case]:
    """Others' trained models, in the order of their manifest."""
    return [case_of(model) for model in trained.THEIRS.values()]


def ratio_of_means(a: np.ndarray, b: np.ndarray, *, replicates: int = 2000) -> tuple[float, float, float]:
    """``mean(a)/mean(b)`` over paired samples with its 95 % bootstrap interval over the samples."""
    draws = np.random.default_rng(0).integers(0, len(a), (replicates, len(a)))
    ratios = a[draws].mean(axis=1) / b[draws].mean(axis=1)
    low, high = np.quantile(ratios, [0.025, 0.975])
    return float(a.mean() / b.mean()), float(low), float(high)
