"""Writes results in every format that was asked for, each whatever becomes of the others."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from onnxfim.cli.files import Made, check_apart, check_outputs, is_stdout, within, write
from onnxfim.cli.identifying import Told
from onnxfim.errors import OutputError
from onnxfim.record.audit import Audit
from onnxfim.record.layout import audit_parts
from onnxfim.record.writing import destination
from onnxfim.report.formats import FOLDERS, renderers

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
    """Formats and their paths; ``-`` is stdout. ``assets`` is the folder of the page's style and pictures, or None.

    ``print_samples`` are those that the page's table has on paper, None for the default; ``script`` whether it has its script.
    """

    targets: Sequence[tuple[str, str]]
    assets: str | None = None
    print_samples: int | None = None
    script: bool = True

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
        check_apart([path for kind, path in self.targets if kind not in FOLDERS], read)
        folders = [(path, os.path.realpath(path)) for kind, path in self.targets if kind in FOLDERS]
        for one in read:
            if one is not None and (inside := within(os.fspath(one), folders)) is not None:
                raise OutputError(f"{inside}: would replace {os.fspath(one)}, which is read. Name another folder.")
        for one in read:
            if self.assets is not None and one is not None and os.path.realpath(self.assets) == os.path.realpath(one):
                raise OutputError(f"--html-assets {self.assets}: is read, expected a folder of its own. Name another.")

    def write(self, audit: Audit) -> Written:
        """Write every format, the JSON first, each whatever becomes of the others."""
        render: dict[str, Callable[[Audit], Made]] = dict(
            renderers(self.assets, print_samples=self.print_samples, script=None if self.script else False)
        )
        render["json"] = lambda audit: partial(audit_parts, audit, indent=1)  # the longest of them is never whole in memory
        return write_each(self.targets, render, audit)


def write_each(targets: Sequence[tuple[str, str]], render: Mapping[str, Callable[[T], Made]], result: T) -> Written:
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


def convert_command(report: str, outputs: Outputs, told: Told) -> None:
    """Read a saved audit and write it in other formats.

    Raises:
        OutputError: it cannot be read, or an output was not written; the others are.
    """
    outputs.check([report])
    audit = Audit.load(report)
    if (problem := outputs.write(replace(audit, identity=told.of(audit.identity))).problem) is not None:
        raise problem
