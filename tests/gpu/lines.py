"""The lines of a check: name, value, target, PASS or FAIL; printed as they come and kept for the JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "sample_models"


@dataclass(frozen=True)
class Line:
    """One measured thing; ``passed`` is None where it is only told."""

    section: str
    name: str
    value: str
    target: str
    passed: bool | None

    def __str__(self) -> str:
        word = {True: "PASS", False: "FAIL", None: "-"}[self.passed]
        return f"{self.name:58} {self.value:34} {self.target:24} {word}"


@dataclass
class Bench:
    """Where a section runs and what it has found so far.

    Attributes:
        section: Its name.
        provider: Short name of the provider under test.
        shared: Folder of others' trained models, or None.
        folder: For files of its own.
        quick: Fewer samples and sizes: for the CPU in the tests.
        out: Where the lines are saved after each, or None.
    """

    section: str
    provider: str
    shared: Path | None
    folder: Path
    quick: bool = False
    out: Path | None = None
    lines: list[Line] = field(default_factory=list)

    @property
    def on_cpu(self) -> bool:
        """Whether the CPU provider stands in for an accelerator."""
        return self.provider == "cpu"

    def tell(self, name: str, value: object, target: str = "told") -> None:
        """A line without a target."""
        self._add(Line(self.section, name, str(value), target, None))

    def hold(self, name: str, value: object, target: str, passed: bool) -> None:
        """A line that passes or fails."""
        self._add(Line(self.section, name, str(value), target, bool(passed)))

    def _add(self, line: Line) -> None:
        self.lines.append(line)
        print(line, flush=True)
        if self.out is not None:
            self.save(self.out)  # a section may die

    def save(self, path: Path) -> None:
        """The lines as JSON."""
        path.write_text(json.dumps([asdict(line) for line in self.lines], indent=1), "utf-8")


def read(path: Path) -> list[Line]:
    """What a section saved; nothing where it died before."""
    return [Line(**line) for line in json.loads(path.read_text("utf-8"))] if path.is_file() else []
