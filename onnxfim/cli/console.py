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
    from onnxfim.cli.waiting import Turn, Waiting
    from onnxfim.report.card import Card

_BAR = 16  # columns of a bar
_ROOMY = 60  # columns of a terminal that has room for it
_LOOK = 0.5  # seconds between two looks at whether a line is due
_FEW_LAYERS = 0.05  # share of a bound from which on the time that is left is told by them


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
        self._reached = 0.0  # share of a command's jobs that was told

    @property
    def passed(self) -> float:
        """Seconds since the command began."""
        return time.monotonic() - self._began

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
        """A line of information where what is done goes on so many seconds after the command began, `waiting.SILENT` by default.

        It comes again every few seconds.
        """
        from onnxfim.cli import waiting

        began = time.monotonic()
        due = self._began + (waiting.SILENT if after is None else after)
        said = False

        def tick() -> float:
            nonlocal due, said
            now = time.monotonic()
            if now >= due:
                self.say(f"{text}, {waiting.passed_words(now - began)} so far" if said else text)
                said, due = True, now + waiting.CLOSER_HEARTBEAT
            return max(due - now, 0.0)

        with _ticking(tick):
            yield

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
    def width(self) -> int | None:
        """Columns that results have; None where they go to no terminal."""
        return width_of(outlet(to_stderr=self._stdout_taken))

    @property
    def on_screen(self) -> bool:
        """Whether results go to a terminal, where long ones push the answer off the screen."""
        return self.width is not None

    @contextmanager
    def progress(self, turn: Turn | None = None, *, apart: bool = False) -> Iterator[Callable[[Progress], None]]:
        """A callback for the audit's progress; with --verbose the log is printed meanwhile.

        Args:
            turn: Which of several jobs it is, or None.
            apart: Whether the work is done in another process.
        """
        state = self._waiting(turn, apart=apart)
        with self._log(), self._shown(state) as update:
            yield update
        self._reached = state.reached

    def _waiting(self, turn: Turn | None = None, stage: str = "starting", *, apart: bool = False) -> Waiting:
        """What is said from here on."""
        from onnxfim.cli import waiting

        heartbeat = waiting.HEARTBEAT if apart else waiting.CLOSER_HEARTBEAT
        return waiting.Waiting(self._began, time.monotonic(), turn, stage, heartbeat, waiting.SILENT, self._reached)

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

    @contextmanager
    def _shown(self, state: Waiting) -> Iterator[Callable[[Progress], None]]:
        """A callback that shows progress, as a bar on a terminal and in lines elsewhere."""
        if self.quiet:
            yield lambda _: None
            return
        with self._bar(state) if outlet(to_stderr=True).isatty() else self._beats(state) as update:
            yield update

    @contextmanager
    def _bar(self, state: Waiting) -> Iterator[Callable[[Progress], None]]:
        from rich.progress import BarColumn
        from rich.progress import Progress as Bar

        from onnxfim.cli.waiting import passed_words

        column = _words_column()
        # A narrow terminal has room for what is under way and the time that is left, not for a bar and a count.
        roomy = (width_of(outlet(to_stderr=True)) or _ROOMY) >= _ROOMY
        columns = (
            column(lambda: state.short_words, yields=True),
            *([BarColumn(bar_width=_BAR)] if roomy else []),
            column(lambda: "" if (share := state.share(time.monotonic())) is None else f"{share:.0%}"),
            column(lambda: passed_words(time.monotonic() - self._began)),
            column(lambda: state.left_words(time.monotonic())),
            *([column(lambda: state.count_words)] if roomy else []),
        )
        rich = rich_on(outlet(to_stderr=True))
        with Bar(*columns, console=rich, transient=True, redirect_stdout=False, refresh_per_second=4) as bar:
            task = bar.add_task("", total=None)

            def update(p: Progress) -> None:
                now = time.monotonic()
                state.told(p, now)
                share = state.share(now)
                bar.update(task, completed=share or 0.0, total=None if share is None else 1.0)

            yield update

    @contextmanager
    def _beats(self, state: Waiting) -> Iterator[Callable[[Progress], None]]:
        """Lines as they are due, whatever is under way; those of long calls come from another thread."""
        lock = threading.Lock()

        def update(p: Progress) -> None:
            with lock:
                for line in state.told(p, time.monotonic()):
                    self.say(line)

        def tick() -> float:
            with lock:
                for line in state.lines(time.monotonic()):
                    self.say(line)
                return min(state.due(time.monotonic()), _LOOK)

        with _ticking(tick):
            yield update

    @contextmanager
    def layers(self) -> Iterator[Callable[[int, int, float], None]]:
        """A callback for work that goes layer by layer: its number, how many there are, the share that is done before it."""
        from onnxfim.auditing.meter import of_one_stage

        began = None
        with self._shown(self._waiting(stage="reading the graph")) as update:

            def told(number: int, total: int, share: float) -> None:
                nonlocal began
                began = time.monotonic() if began is None else began
                left = (time.monotonic() - began) * (1 - share) / share if share > _FEW_LAYERS else None
                update(of_one_stage("bounding", number - 1, total, "layers", share, left))

            yield told

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


@contextmanager
def _ticking(tick: Callable[[], float]) -> Iterator[None]:
    """Call ``tick`` from another thread, each time after the seconds that it gave; the thread is gone when the block ends.

    None is left when a worker is forked.
    """
    over = threading.Event()

    def run() -> None:
        while not over.wait(tick()):
            pass

    thread = threading.Thread(target=run, daemon=True, name="onnxfim-ticks")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _words_column() -> Any:
    """A kind of column of a bar that shows a text as it is now, in one line; one that ``yields`` is cut where room is short."""
    from rich.progress import ProgressColumn
    from rich.table import Column
    from rich.text import Text

    class Words(ProgressColumn):
        max_refresh = 0.2

        def __init__(self, words: Callable[[], str], *, yields: bool = False) -> None:
            super().__init__(table_column=Column(no_wrap=not yields, overflow="ellipsis"))
            self._words = words

        def render(self, task: Any) -> Text:
            return Text(visible(self._words()), no_wrap=True, overflow="ellipsis")

    return Words


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
