"""Writes results in every format that was asked for, each whatever becomes of the others."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from onnxfim.cli.files import check_apart, check_outputs, is_stdout, write
from onnxfim.errors import OutputError
from onnxfim.record.audit import Audit
from onnxfim.record.writing import destination
from onnxfim.report.formats import renderers

T = TypeVar("T")

#: What is written where nothing is asked for.
DEFAULT = (("html", "report.html"),)


@dataclass(frozen=True)
class Written:
    """What became of the outputs.

    Attributes:
        files: Those that were written.
        problem: One that names every output that was not: an `OutputError`, or another where a format could not be made. None where
            all are there.
    """

    files: tuple[str, ...]
    problem: Exception | None


@dataclass(frozen=True)
class Outputs:
    """Formats and their paths; ``-`` is stdout. ``assets`` is the folder of the page's style and pictures, or None."""

    targets: Sequence[tuple[str, str]]
    assets: str | None = None

    @property
    def to_stdout(self) -> bool:
        """Whether a report goes to stdout."""
        return any(is_stdout(path) for _, path in self.targets)

    @property
    def json_to_stdout(self) -> bool:
        """Whether it is JSON that goes there."""
        return any(name == "json" and is_stdout(path) for name, path in self.targets)

    def check(self, inputs: Iterable[str | os.PathLike[str] | None] = ()) -> None:
        """Raise before any work where a path cannot be written, is named twice, or is one of ``inputs``, which are read.

        Raises:
            OutputError: which path, and why.
        """
        check_outputs(self.targets)
        check_assets(self.assets, self.targets)
        self.check_apart(inputs)

    def check_apart(self, inputs: Iterable[str | os.PathLike[str] | None]) -> None:
        """Raise where an output, or the folder of assets, is one of ``inputs``, which are read.

        Raises:
            OutputError: which path, and what it would overwrite.
        """
        read = list(inputs)
        check_apart([path for _, path in self.targets], read)
        for one in read:
            if self.assets is not None and one is not None and os.path.realpath(self.assets) == os.path.realpath(one):
                raise OutputError(f"--html-assets {self.assets}: is read, expected a folder of its own. Name another.")

    def write(self, audit: Audit) -> Written:
        """Write every format, the JSON first, each whatever becomes of the others."""
        return write_each(self.targets, renderers(self.assets), audit)


def write_each(targets: Sequence[tuple[str, str]], render: Mapping[str, Callable[[T], str]], result: T) -> Written:
    """Make ``result`` in every format and write it; the JSON, which holds everything, comes first.

    Args:
        targets: Formats and their paths.
        render: What makes each format.
        result: What is written.

    Returns:
        What was written; its ``problem`` names every output that was not.
    """
    problems: list[str] = []
    files, defect = [], None
    for kind, path in sorted(targets, key=lambda t: t[0] != "json"):
        try:
            write(path, render[kind](result))
        except OutputError as error:
            problems.append(str(error))
        except Exception as error:  # noqa: BLE001 - whatever one format stumbles over, the others are written
            problems.append(f"{path}: {kind} could not be made ({type(error).__name__}: {error}).")
            defect = error
        else:
            if not is_stdout(path):
                files.append(path)
    in_order = tuple(path for _, path in targets if path in files)
    if not problems:
        return Written(in_order, None)
    text = problems[0] if len(problems) == 1 else f"{len(problems)} outputs were not written. {' '.join(problems)}"
    problem = OutputError(text) if defect is None else RuntimeError(text)
    problem.__cause__ = defect
    return Written(in_order, problem)


def check_assets(assets: str | None, targets: Sequence[tuple[str, str]]) -> None:
    """Raise where a folder for a page's assets is given and no page is written, or it cannot be one.

    Raises:
        OutputError: what is missing, or in the way.
    """
    if assets is None:
        return
    if not any(kind == "html" for kind, _ in targets):
        raise OutputError("--html-assets: no page is written, expected -o html=PATH beside it. Add one, or drop the option.")
    try:
        nearest = next(p for p in (Path(assets), *Path(assets).absolute().parents) if os.path.lexists(p))
        if not nearest.is_dir():
            raise OutputError(f"--html-assets {assets}: {str(nearest)!r} is no folder, expected one to write into. Name another.")
        destination(nearest / ("report.css" if nearest == Path(assets) else Path(assets).name))
    except (OSError, ValueError) as error:
        raise OutputError(f"--html-assets {assets}: cannot be written ({error}). Name another folder.") from error


def convert_command(report: str, outputs: Outputs) -> None:
    """Read a saved audit and write it in other formats.

    Raises:
        OutputError: it cannot be read, or an output was not written; the others are.
    """
    outputs.check([report])
    if (problem := outputs.write(Audit.load(report)).problem) is not None:
        raise problem
