"""The results as arrays: which models are counted, what is measured of each, and what an attack says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from .resampling import Quantity, Resampling
from .statistics import Array, geometric_mean, mean, median

FAMILIES = ("mlp", "vgg", "resnet", "densenet", "vit")
TRAININGS = ("standard", "pgd", "trades")
SIZES = ("small", "medium", "large")
MIDDLE = 1  # of the three radii: that of training
LEAST_MODELS = 6  # of a data set, for a correlation over models
TRAINED_SHARE = 0.5  # of the way from chance to the best: less accurate models are no classifiers to compare


@dataclass(frozen=True)
class Measure:
    """Something measured of each model; ``sign`` +1 where more of it means more robust, −1 where less does."""

    key: str
    words: str
    sign: int
    tell: Callable[[Array], Array] | None  # of samples, None where it is one number of the model
    right_only: bool = False

    @property
    def name(self) -> str:
        """Key of the measure with what is told of the samples."""
        return f"{self.key} {self.tell.__name__}" if self.tell else self.key


RAW = Measure("lambda_raw", "λ raw, mean", -1, mean)
CALIBRATED = Measure("lambda_calibrated", "λ calibrated, mean", -1, mean)
BOUNDARY = Measure("boundary", "boundary distance, median of the right", 1, median, right_only=True)
FLIP = Measure("flip", "flip radius, median of the right", 1, median, right_only=True)
MEASURES = (
    RAW,
    Measure("lambda_raw", "λ raw, median", -1, median),
    Measure("lambda_raw", "λ raw, geometric mean", -1, geometric_mean),
    CALIBRATED,
    Measure("lambda_calibrated", "λ calibrated, median", -1, median),
    Measure("lambda_calibrated", "λ calibrated, geometric mean", -1, geometric_mean),
    Measure("lambda_standardised_mean", "λ in standardised units, mean", -1, None),
    BOUNDARY,
    FLIP,
    Measure("jacobian", "‖J‖₂, mean", -1, mean),
    Measure("confidence", "confidence, mean", 1, mean),
    Measure("log10_fisher_bound", "bound of λ from the weights", -1, None),
    Measure("log10_lipschitz", "bound of ‖J‖₂ from the weights", -1, None),
    Measure("accuracy", "accuracy (for comparison)", 1, None),
)
PER_SAMPLE = tuple(m for m in MEASURES if m.name.split()[-1] == ("median" if m.right_only else "mean"))


@dataclass(frozen=True)
class Model:
    """One entry of the results."""

    entry: dict[str, Any]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self.entry.get(name)

    @property
    def configuration(self) -> str:
        """What the model is, apart from its seed."""
        if self.block == "others":
            return str(self.name)
        twin = " int8" if self.block == "twin" else ""
        return f"{self.family}-{self.size}-{self.training}-{self.strength:g}{twin}"

    def part(self, stage: str) -> dict[str, Any]:
        """What a stage found, empty where it failed or has not run."""
        found = self.entry.get(stage) or {}
        return {} if "failed" in found else found

    def number(self, key: str) -> float:
        """Accuracy, temperature, a bound…; NaN where it is not known."""
        for stage in ("train", "audit", "attack"):
            if (value := self.part(stage).get(key)) is not None:
                return float(value)
        return float("nan")

    def samples(self, key: str) -> Array:
        """An array over the samples, NaN where not measured; empty where nothing is."""
        audit = self.part("audit")
        found: Sequence[float | None] | None = (audit.get("samples") or {}).get(key)
        if found is None and key in ("black", "white"):
            found = (audit.get("published") or {}).get(key)
        if found is None and key.startswith("l2"):
            found = self.part("attack").get(key)
        return np.array([np.nan if v is None else v for v in found or ()], dtype=float)

    def robust(self, which: str = "ensemble") -> Array:
        """Robust accuracies at the radii, of the ensemble or else of PGD; empty where not attacked."""
        attack = self.part("attack")
        found = attack.get(which) or attack.get("pgd") or ()
        return np.array([np.nan if v is None else v for v in found], dtype=float)


def stack(arrays: Iterable[Array]) -> Array:
    """(M, S), shorter ones filled with NaN."""
    rows = list(arrays)
    width = max((len(r) for r in rows), default=0)
    return np.array([np.concatenate([r, np.full(width - len(r), np.nan)]) for r in rows]).reshape(len(rows), width)


class Population:
    """Models of one data set that can be compared, with their bootstrap."""

    def __init__(self, models: Sequence[Model], *, replicates: int, seed: int = 0) -> None:
        self.models = list(models)
        self.arrays: dict[str, Array] = {}
        self.told: dict[str, Quantity] = {}
        self.resampling = Resampling(
            [m.configuration for m in models], self.samples("l2").shape[1], replicates=replicates, seed=seed
        )

    def __len__(self) -> int:
        return len(self.models)

    def labels(self, key: str) -> np.ndarray:
        """A property of each model as text."""
        return np.array([str(getattr(m, key)) for m in self.models])

    def numbers(self, key: str) -> Array:
        """One number of each model."""
        return np.array([m.number(key) for m in self.models])

    @cached_property
    def right(self) -> np.ndarray:
        """Which samples each model classifies rightly, (M, S)."""
        said, attacked = stack(m.samples("right") for m in self.models), stack(m.samples("l2") for m in self.models)
        width = max(said.shape[1], attacked.shape[1])
        said, attacked = (np.pad(a, ((0, 0), (0, width - a.shape[1])), constant_values=np.nan) for a in (said, attacked))
        return np.where(np.isfinite(said), said > 0, ~(attacked <= 0) & np.isfinite(attacked))

    def samples(self, key: str) -> Array:
        """Values over the samples, (M, S). A distance that was looked for and not found is read as twice the longest of the data set."""
        if key not in self.arrays:
            values, width = stack(m.samples(key) for m in self.models), self.right.shape[1]
            values = np.pad(values, ((0, 0), (0, max(width - values.shape[1], 0))), constant_values=np.nan)[
                :, : max(width, values.shape[1])
            ]
            if key in ("l2", "flip", "boundary") and np.isfinite(values).any():
                looked = np.asarray(np.isfinite(values).any(axis=1))
                lengths = np.array([len(m.samples(key)) for m in self.models])
                sought = looked[:, None] & self.right & (np.arange(width) < lengths[:, None])
                values = np.where(sought & ~np.isfinite(values), 2 * np.nanmax(values), values)
            self.arrays[key] = values
        return self.arrays[key]

    def quantity(self, measure: Measure) -> Quantity:
        """A measure of each model with its replicates, turned so that more means more robust."""
        if measure.name not in self.told:
            if measure.tell is None:
                found = self.resampling.fixed(self.numbers(measure.key))
            else:
                values = self.samples(measure.key)
                found = self.resampling.quantity(
                    np.where(self.right, values, np.nan) if measure.right_only else values, measure.tell
                )
            if measure.tell is not None and not measure.right_only:
                found = self.filled(found, self.numbers(measure.name.replace(" ", "_")))
            self.told[measure.name] = found if measure.sign > 0 else -found
        return self.told[measure.name]

    def filled(self, found: Quantity, known: Array) -> Quantity:
        """With the numbers of models whose samples were not kept; their replicates do not vary."""
        lacking = ~np.isfinite(found.value) & np.isfinite(known)
        return Quantity(np.where(lacking, known, found.value), np.where(lacking, known, found.draws))

    @property
    def truth(self) -> Quantity:
        """Median over the rightly classified samples of the smallest L2 distance that turns the model."""
        return self.quantity(Measure("l2", "smallest L2 attack", 1, median, right_only=True))

    @cached_property
    def robust(self) -> Quantity:
        """Robust accuracy at the middle radius."""
        values = np.array([r[MIDDLE] if len(r := m.robust()) > MIDDLE else np.nan for m in self.models])
        return self.resampling.share(values, max(self.samples("l2").shape[1], 1))


@dataclass(frozen=True)
class Results:
    """All of results.json."""

    json: dict[str, Any]
    replicates: int = 1000

    @cached_property
    def models(self) -> list[Model]:
        return [Model(entry) for entry in self.json["models"]]

    @cached_property
    def data_sets(self) -> list[str]:
        """Ours, in the order of the file."""
        return list(self.json["data"])

    def of(self, data: str, *blocks: str) -> list[Model]:
        """All models of a data set in some blocks, failed ones too."""
        return [m for m in self.models if m.data == data and m.block in blocks]

    def least_accuracy(self, data: str, share: float = TRAINED_SHARE) -> float:
        """Models under it are left out of comparisons: ``share`` of the way from chance to the best model's accuracy."""
        found = [a for m in self.models if m.data == data and np.isfinite(a := m.number("accuracy"))]
        chance = 1 / self.json["data"].get(data, {}).get("classes", 10)
        return chance + share * (max(found, default=chance) - chance)

    def usable(self, data: str, *blocks: str, share: float = TRAINED_SHARE) -> list[Model]:
        """Those with an audit and attacks that learnt their task; of others' models no rounded copies of the same net."""
        least = self.least_accuracy(data, share)
        return [
            m for m in self.of(data, *blocks)
            if not m.failed and len(m.samples("l2")) and m.part("audit") and not m.number("accuracy") < least
            and not (m.block == "others" and m.parent)
        ]  # fmt: skip

    def population(self, data: str, *blocks: str, share: float = TRAINED_SHARE) -> Population:
        """Those, with their bootstrap."""
        key = (data, blocks, share)
        if key not in self._populations:
            self._populations[key] = Population(self.usable(data, *blocks, share=share), replicates=self.replicates)
        return self._populations[key]

    @cached_property
    def _populations(self) -> dict[tuple[Any, ...], Population]:
        return {}

    @cached_property
    def foreign(self) -> list[str]:
        """Data sets of others' models."""
        return sorted({str(m.data) for m in self.models if m.block == "others"})
