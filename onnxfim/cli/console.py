"""The one door to the terminal: progress, messages, results and reports on stdout."""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from onnxfim.cli.outlets import outlet
from onnxfim.cli.painted import card_text, coloured, quiet_text, rich_on, table_text, width_of
from onnxfim.cli.wrapping import wrapped
from onnxfim.errors import OutputError
from onnxfim.record.foreign_text import one_line, visible

if TYPE_CHECKING:
    from onnxfim.auditing.run import Progress
    from onnxfim.report.card import Card

_SILENT = 1.0  # seconds: who waits no longer needs no line, and an error that comes at once is the only one
_HEARTBEAT = 10.0  # seconds between lines where there is no terminal


class _Details(logging.Handler):
    """Prints a log's messages as details, each with the seconds since this began."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.INFO)
        self._console, self._start = console, time.monotonic()

    def emit(self, record: logging.LogRecord) -> None:
        self._console.detail(f"{time.monotonic() - self._start:7.2f} s  {record.getMessage()}")
        for line in "".join(traceback.format_exception(record.exc_info[1])).splitlines() if record.exc_info else ():
            self._console.detail(line)


class Console:
    """The one door to stdout and stderr: whatever is printed is made visible first, and no stream can break a command.

    Progress and messages go to stderr, results to stdout. Progress is a bar on a terminal and plain lines elsewhere.
    """

    def __init__(self, quiet: bool = False, verbose: bool = False) -> None:
        self.quiet, self.verbose = quiet, verbose
        self._stdout_taken = False
        self._began = time.monotonic()

    def take_stdout(self) -> None:
        """Keep stdout for a report: all else is printed on stderr from here on.

        Raises:
            OutputError: stdout is closed, said before any work is done for nothing.
        """
        self._stdout_taken = True
        if (fault := outlet().fault) is not None:
            raise _not_printed(fault)

    def say(self, text: str, *, colour: str | None = None) -> None:
        """A line of information; not printed with --quiet."""
        if not self.quiet:
            _print(visible(text), to_stderr=True, broken=True, fg=colour)

    @contextmanager
    def said_where_slow(self, text: str, *, after: float | None = None) -> Iterator[None]:
        """A line of information where what is done goes on so many seconds after the command began, `_SILENT` by default."""
        wait = self._began + (_SILENT if after is None else after) - time.monotonic()
        timer = threading.Timer(max(wait, 0.0), self.say, (text,))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()  # no thread is left when a worker is forked

    def detail(self, text: str) -> None:
        """A line for --verbose."""
        if self.verbose:
            _print(visible(text), to_stderr=True, broken=True, dim=True)

    def error(self, text: str) -> None:
        """Why a command ends, in one line; printed always."""
        _print(f"onnxfim: {one_line(text)}", to_stderr=True, broken=True, fg="red")

    def block(self, text: str) -> None:
        """Lines on stderr, such as how a command is used; printed always."""
        _print(_lines(text), to_stderr=True)

    def result(self, text: str) -> None:
        """A line that sums up what the reports hold; printed always.

        Where stdout does not take it the command ends as if it did, for the reports are there.
        """
        self._forgiven(lambda: self.line(text))

    def _forgiven(self, show: Callable[[], None]) -> None:
        """Show what the reports hold too: a stdout that does not take it is told, and no failure."""
        out = outlet()
        before, faultless = out.undelivered, out.fault is None
        show()
        out.undelivered = before
        if faultless and out.fault is not None and not out.abandoned:
            self.say(f"warning: stdout cannot be written ({out.fault}); the reports are not touched by that", colour="yellow")

    def line(self, text: str, *, copied: bool = False) -> None:
        """A line of what a command is run for; printed always. One that is to be ``copied``, such as a command, is never broken."""
        _print(visible(text), to_stderr=self._stdout_taken, broken=not copied)

    def document(self, text: str) -> None:
        """A report, or JSON, on stdout: UTF-8 whatever the terminal's encoding.

        Raises:
            OutputError: stdout did not take all of it.
        """
        out = outlet()
        if not out.deliver(f"{text.removesuffix(chr(10))}\n".encode("utf-8", "backslashreplace")):
            raise _not_printed("its reader closed it before the end" if out.abandoned else out.fault)

    @property
    def on_screen(self) -> bool:
        """Whether results go to a terminal, where long ones push the answer off the screen."""
        return width_of(outlet(to_stderr=self._stdout_taken)) is not None

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
        elif outlet(to_stderr=True).isatty():
            with self._bar() as update:
                yield update
        else:
            yield self._heartbeat()

    @contextmanager
    def _bar(self) -> Iterator[Callable[[Progress], None]]:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        told = [TextColumn(f"{{task.{what}}}", markup=False) for what in ("description", "fields[unit]", "fields[rate]")]
        columns = (told[0], BarColumn(), MofNCompleteColumn(), *told[1:], TimeRemainingColumn())
        with Bar(*columns, console=rich_on(outlet(to_stderr=True)), transient=True, redirect_stdout=False) as bar:
            task = bar.add_task("starting", total=None, rate="", unit="")
            start = time.monotonic()

            def update(p: Progress) -> None:
                rate = f"{p.done / max(time.monotonic() - start, 1e-9):,.0f}/s" if p.done else ""
                bar.update(
                    task, description=visible(p.stage), completed=p.done, total=p.total or None, rate=rate, unit=visible(p.unit)
                )

            yield update

    def _heartbeat(self) -> Callable[[Progress], None]:
        start = last = time.monotonic()
        begun: set[str] = set()  # stages that had a line: some take turns

        def update(p: Progress) -> None:
            nonlocal last
            now = time.monotonic()
            if now - self._began < _SILENT or (p.stage in begun and now - last < _HEARTBEAT):
                return
            last = now
            if p.stage not in begun:
                begun.add(p.stage)
                self.say(f"{p.stage}: {p.done:,} of {p.total:,} {p.unit}" if p.done < p.total else p.stage)
                return
            rate = p.done / (now - start)
            left = (p.total - p.done) / rate if rate and p.total else 0.0
            self.say(f"{p.stage}: {p.done:,} of {p.total:,} {p.unit}, {rate:,.0f}/s, about {left:,.0f} s left")

        return update

    @contextmanager
    def layers(self) -> Iterator[Callable[[int, int, str], None] | None]:
        """A callback for work that goes layer by layer; a bar on a terminal, nothing elsewhere."""
        if self.quiet or not outlet(to_stderr=True).isatty():
            yield None
            return
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as Bar

        columns = (TextColumn("layers"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}", markup=False))
        with Bar(*columns, console=rich_on(outlet(to_stderr=True)), transient=True, redirect_stdout=False) as bar:
            task = bar.add_task("", total=None)
            yield lambda done, total, name: bar.update(task, completed=done, total=total, description=visible(name))

    def table(self, head: tuple[str, ...], rows: Sequence[tuple[str, ...]], *, folded: bool = False) -> None:
        """A table of what a command is run for; without a ``head`` its first column is bold. Markup in names is text.

        Args:
            head: Names of the columns.
            rows: Their cells.
            folded: Whether cells have several lines (each visible already), and long ones go on in the next instead of being cut.
        """
        stream = outlet(to_stderr=self._stdout_taken)
        shown = [tuple(_lines(cell) if folded else visible(cell) for cell in row) for row in rows]
        _print(table_text(stream, head, shown, folded=folded), end="", to_stderr=self._stdout_taken)

    def card(self, card: Card, files: Sequence[str] = ()) -> None:
        """What a command found, as a card on a terminal and one fact a line elsewhere; with --quiet its first line, and ``files``.

        Where stdout does not take it the command ends as if it did, for the reports are there.
        """
        stream = outlet(to_stderr=self._stdout_taken)
        told = quiet_text(stream, card.lines[0], files) if self.quiet else card_text(stream, card)
        self._forgiven(lambda: _print(told, to_stderr=self._stdout_taken))


def _not_printed(why: str | None) -> OutputError:
    return OutputError(f"stdout: cannot be written ({why}), expected to print all of the report. Open it, or write to a file.")


def _lines(text: str) -> str:
    """Text of several lines, each made visible."""
    return "\n".join(map(visible, text.split("\n")))


def _print(text: str, *, to_stderr: bool = False, end: str = "\n", broken: bool = False, **style: Any) -> None:
    """Text that is visible already, in colours where the stream has them; ``broken`` between words where it is a terminal."""
    stream = outlet(to_stderr=to_stderr)
    width = width_of(stream) if broken else None
    if width is not None:
        text = "\n".join(_hanging(stream.spelled(line), width) for line in text.split("\n"))
    shown = click.style(text, **style) if any(style.values()) else text
    click.echo(shown + end, file=stream, nl=False, color=coloured(stream))  # type: ignore[arg-type,unused-ignore]


def _hanging(line: str, width: int) -> str:
    """A line broken between words, what goes on indented by two more columns than its beginning."""
    begun = len(line) - len(line.lstrip(" "))
    pad = "\n" + " " * (begun + 2)
    return " " * begun + pad.join(wrapped(line[begun:], width - begun - 2, first=width - begun))
