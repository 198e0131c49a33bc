"""The grid: which classifier is which, and in which block it is counted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

FAMILIES = ("mlp", "vgg", "resnet", "densenet", "vit")
SIZES = ("small", "medium", "large")
TRAININGS = ("standard", "pgd", "trades")
SEEDS = (0, 1, 2)
STRENGTHS = (0.25, 0.5, 2.0)  # beside 0, which is standard training, and 1, which the grid has
STRENGTH_FAMILIES = ("mlp", "resnet")
TWIN_TRAININGS = ("standard", "pgd")


@dataclass(frozen=True)
class Cell:
    """One classifier of the grid.

    ``strength`` is the radius of the training attack in units of the data set's own, 0 for standard training. ``block``: ``grid``
    (families, trainings and seeds), ``strength`` (one family under ever stronger attacks), ``twin`` (an int8 file of a grid's
    net) or ``again`` (the grid of one data set from other seeds).
    """

    data: str
    family: str
    size: str
    training: str
    strength: float
    seed: int
    block: str

    @property
    def name(self) -> str:
        """Name of the model's files."""
        strength = f"-{self.strength:g}" if self.training != "standard" and self.strength != 1 else ""
        twin = "-int8" if self.block == "twin" else ""
        return f"{self.data}-{self.family}-{self.size}-{self.training}{strength}-{self.seed}{twin}"

    @property
    def original(self) -> Cell | None:
        """The float net that an int8 twin was made of."""
        return replace(self, block="grid") if self.block == "twin" else None

    @property
    def parent(self) -> str | None:
        """Its name."""
        return None if self.original is None else self.original.name


def block(data: str, *, seeds: tuple[int, ...] = SEEDS, named: str = "grid") -> Iterator[Cell]:
    """Every family at one size, one family at three, each trained in every way from every seed."""
    for seed in seeds:
        for family in FAMILIES:
            for size in SIZES if family == "resnet" else ("medium",):
                for training in TRAININGS:
                    yield Cell(data, family, size, training, 0.0 if training == "standard" else 1.0, seed, named)


def grid(data_sets: tuple[str, ...], *, again: str | None = None) -> list[Cell]:
    """All classifiers; ``again`` names the data set whose block is made once more, from seeds of its own."""
    cells: list[Cell] = []
    for data in data_sets:
        main = list(block(data))
        cells += main
        cells += [
            Cell(data, f, "medium", "pgd", s, seed, "strength") for seed in SEEDS for f in STRENGTH_FAMILIES for s in STRENGTHS
        ]
        cells += [replace(c, block="twin") for c in main if c.seed == 0 and c.size == "medium" and c.training in TWIN_TRAININGS]
    if again is not None:
        cells += block(again, seeds=tuple(100 + seed for seed in SEEDS), named="again")
    return cells
