"""Writes one audit in every format that was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnxfim.cli.files import check_writable, write
from onnxfim.errors import OutputError
from onnxfim.record.audit import Audit
from onnxfim.report.formats import renderers

#: What is written where nothing is asked for.
DEFAULT = (("html", "report.html"),)


@dataclass(frozen=True)
class Outputs:
    """Formats and their paths; ``-`` is stdout. ``assets`` is the folder of the page's style and pictures, or None."""

    targets: Sequence[tuple[str, str]]
    assets: str | None = None

    @property
    def files(self) -> tuple[str, ...]:
        """The paths that are files."""
        return tuple(path for _, path in self.targets if path != "-")

    @property
    def to_stdout(self) -> bool:
        """Whether a report goes to stdout."""
        return len(self.files) < len(self.targets)

    def check(self) -> None:
        """Raise before any work where a path cannot be written, or is named twice.

        Raises:
            OutputError: which path, and why.
        """
        paths = [path for _, path in self.targets]
        twice = next((p for p in paths if paths.count(p) > 1), None)
        if twice is not None:
            kinds = " and ".join(kind for kind, path in self.targets if path == twice)
            raise OutputError(f"{twice}: {kinds} would both be written to it, expected one format. Give each its own path.")
        for path in paths:
            check_writable(path)
        check_assets(self.assets, self.targets)

    def write(self, audit: Audit) -> None:
        """Write every format, each whatever becomes of the others.

        Raises:
            OutputError: the first that could not be written; any other error that nobody foresaw.
        """
        render = renderers(self.assets)
        problems: list[Exception] = []
        for kind, path in self.targets:
            try:
                write(path, render[kind](audit))
            except Exception as error:  # noqa: BLE001 - whatever one format stumbles over, the others are written
                problems.append(error)
        if problems:
            raise problems[0]


def check_assets(assets: str | None, targets: Sequence[tuple[str, str]]) -> None:
    """Raise where a folder for a page's assets is given and no page is written.

    Raises:
        OutputError: what is missing.
    """
    if assets is not None and not any(kind == "html" for kind, _ in targets):
        raise OutputError("--html-assets: no page is written, expected -o html=PATH beside it. Add one, or drop the option.")


def convert_command(report: str, outputs: Outputs) -> None:
    """Read a saved audit and write it in other formats."""
    outputs.check()
    outputs.write(Audit.load(report))
