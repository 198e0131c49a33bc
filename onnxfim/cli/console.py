"""What the commands print: progress and the result."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from onnxfim.auditing.run import Progress

_HEARTBEAT = 10.0  # seconds between lines where there is no terminal


class _Details(logging.Handler):
    """Prints a log's messages as details, each with the seconds since this began."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.INFO)
        self._console, self._start = console, time.monotonic()

    def emit(self, record: logging.LogRecord) -> None:
        self._console.detail(f"{time.monotonic() - self._start:7.2f} s  {record.getMessage()}")


class Console:
    """Prints to stderr, except for results; progress is a bar on a terminal and plain lines elsewhere."""

    def __init__(self, quiet: bool = False, verbose: bool = False) -> None:
        self.quiet, self.verbose = quiet, verbose

    def say(self, text: str, *, colour: str | None = None) -> None:
        """A line of information; not printed with --quiet."""
        if not self.quiet:
            click.secho(text, fg=colour, err=True)

    def detail(self, text: str) -> None:
        """A line for --verbose."""
        if self.verbose:
            click.secho(text, dim=True, err=True)

    def result(self, text: str, *, to_stderr: bool = False) -> None:
        """The last line; printed always. It goes to stderr where a report takes stdout."""
        click.echo(text, err=to_stderr)

    @contextmanager
    def progress(self) -> Iterator[Callable[[Progress], None]]:
        """A callback for the audit's progress; with --verbose the log is printed meanwhile."""
        with self._log():
            yield from self._progress()

    @contextmanager
    def _log(self) -> Iterator[None]:
        """Details from the library's log, with the seconds since it began."""
        if not self.verbose:
            yield
            return
        log, handler = logging.getLogger("onnxfim"), _Details(self)
        before = log.level
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        try:
            yield
        finally:
            log.removeHandler(handler)
            log.setLevel(before)

    def _progress(self) -> Iterator[Callable[[Progress], None]]:
        if self.quiet:
            yield lambda _: None
        elif sys.stderr.isatty():
            with self._bar() as update:
                yield update
        else:
            yield self._heartbeat()

    @contextmanager
    def _bar(self) -> Iterator[Callable[[Progress], None]]:
        from rich.console import Console as Rich
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[unit]}"),
                   TextColumn("{task.fields[rate]}"), TimeRemainingColumn())  # fmt: skip
        with Bar(*columns, console=Rich(stderr=True), transient=True) as bar:
            task = bar.add_task("starting", total=None, rate="", unit="")
            start = time.monotonic()

            def update(p: Progress) -> None:
                rate = f"{p.done / max(time.monotonic() - start, 1e-9):,.0f}/s" if p.done else ""
                bar.update(task, description=p.stage, completed=p.done, total=p.total or None, rate=rate, unit=p.unit)

            yield update

    def _heartbeat(self) -> Callable[[Progress], None]:
        start = last = time.monotonic()

        def update(p: Progress) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last < _HEARTBEAT:
                return
            last = now
            rate = p.done / (now - start)
            left = (p.total - p.done) / rate if rate and p.total else 0.0
            click.echo(f"{p.stage}: {p.done:,} of {p.total:,} {p.unit}, {rate:,.0f}/s, about {left:,.0f} s left", err=True)

        return update

    @contextmanager
    def layers(self) -> Iterator[Callable[[int, int, str], None] | None]:
        """A callback for work that goes layer by layer; a bar on a terminal, nothing elsewhere."""
        if self.quiet or not sys.stderr.isatty():
            yield None
            return
        from rich.console import Console as Rich
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as Bar

        columns = (TextColumn("layers"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
        with Bar(*columns, console=Rich(stderr=True), transient=True) as bar:
            task = bar.add_task("", total=None)
            yield lambda done, total, name: bar.update(task, completed=done, total=total, description=name)

    def table(self, head: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
        """A table on stdout; names from files are printed as they are, without markup."""
        if self.quiet:
            return
        from rich.console import Console as Rich
        from rich.markup import escape
        from rich.table import Table

        table = Table(*head, box=None, pad_edge=False, header_style="bold")
        for row in rows:
            table.add_row(*(escape(cell) for cell in row))
        Rich().print(table)
