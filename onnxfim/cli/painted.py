"""Cards and tables as text for a stream: in colours and lines drawn where it is a terminal, one fact a line elsewhere."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from onnxfim.cli.outlets import Outlet
from onnxfim.cli.wrapping import columns, wrapped

if TYPE_CHECKING:
    from rich.console import Console as Rich

    from onnxfim.report.card import Card, CardLine

_WIDEST = 100  # columns of a card: longer lines are hard to read
_NARROWEST = 50  # below which a card has no frame and its labels stand on the lines of their text
_MESSAGES = {"warning": 2, "note": 1}  # rows of one, unless all was asked for
_MEANING = "meaning"  # sentences that the screen's height may cut, the last first; of the first this many rows stay
_KEPT = 3
_CUT = " [...]"
_SCREEN = 24  # rows of a terminal that does not tell how many it has
_USUAL = 80
_ROWS = 25
_UNBROKEN = 100_000  # columns of a stream whose lines nobody breaks
_COLOURS = {"good": "green", "bad": "red", "doubtful": "yellow", "neutral": "cyan", "plain": ""}


def coloured(stream: Outlet) -> bool:
    """Whether text on a stream has colours: NO_COLOR says no, FORCE_COLOR yes, else a terminal that is not dumb has."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return stream.isatty() and not _dumb()


def _dumb() -> bool:
    """Whether the terminal knows no sequences."""
    return os.environ.get("TERM", "").lower() in ("dumb", "unknown")


def width_of(stream: Outlet) -> int | None:
    """Columns of a stream that is a terminal; None of another, whose lines nobody breaks."""
    if not stream.isatty():
        return None
    if (asked := os.environ.get("COLUMNS", "")).isdigit() and int(asked) > 0:
        return int(asked)
    try:
        return os.get_terminal_size(stream.fileno()).columns or _USUAL
    except (OSError, ValueError):
        return _USUAL


def height_of(stream: Outlet) -> int:
    """Rows that a card may take: what a usual screen has, or more where the terminal is taller and a prompt has room below."""
    try:
        rows = os.get_terminal_size(stream.fileno()).lines
    except (OSError, ValueError):
        rows = _SCREEN
    return max(_SCREEN, rows - 2)


def rich_on(stream: Outlet, width: int | None = None) -> Rich:
    """Rich's console on a stream; it asks the stream which characters it has."""
    from rich.console import Console as Rich

    colours = coloured(stream)
    return Rich(
        file=stream,  # type: ignore[arg-type]
        stderr=stream is sys.stderr,
        width=width,
        height=None if width is None else _ROWS,  # of both it asks nobody
        force_terminal=True if colours else None,
        color_system=None if not colours else "standard" if _dumb() else "auto",
        highlight=False,
    )


def table_text(stream: Outlet, head: tuple[str, ...], rows: Sequence[tuple[str, ...]], *, folded: bool) -> str:
    """A table of visible text. On a terminal it fits it; elsewhere every cell is whole, however long its line.

    Args:
        stream: Where it goes.
        head: Names of the columns; without one the first column is bold.
        rows: Their cells.
        folded: Whether cells may have several lines, and on a terminal long ones go on in the next instead of being cut.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table(*head, box=None, pad_edge=False, header_style="bold", show_header=bool(head))
    if not head:
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold" if folded else "ellipsis")
    for row in rows:
        table.add_row(*(Text(stream.spelled(cell)) for cell in row))
    rich = rich_on(stream, width_of(stream) or _UNBROKEN)
    with rich.capture() as captured:
        rich.print(table)
    return "\n".join(line.rstrip() for line in captured.get().split("\n"))


def card_text(stream: Outlet, card: Card) -> str:
    """A card: one ``label: text`` a line without a terminal, else wrapped between words, in a frame where there is room."""
    width = width_of(stream)
    card = replace(card, title=stream.spelled(card.title), lines=tuple(_spelled(line, stream) for line in card.lines))
    if width is None:
        return "\n".join(_styled(f"{line.label}: ", "", stream) + _shown(line, stream) for line in card.lines)
    if width < _NARROWEST or _dumb():
        return "\n".join(_narrow(line, width, stream) for line in card.lines)
    return _framed(card, min(width, _WIDEST), stream)


def quiet_text(stream: Outlet, line: CardLine, files: Sequence[str]) -> str:
    """The verdict alone, and where it is written, as one line."""
    shown = f"{line.label}: {_shown(_spelled(line, stream), stream)}"
    return f"{shown} Report: {', '.join(files)}" if files else shown


def _spelled(line: CardLine, stream: Outlet) -> CardLine:
    """The line in characters that the stream has, so that what stands for others is counted where it is laid out."""
    return replace(line, lead=stream.spelled(line.lead), text=stream.spelled(line.text))


def _shown(line: CardLine, stream: Outlet) -> str:
    """A line's text on one line, its first words in their colour."""
    text = line.text.replace("\u00a0", " ")
    return _styled(line.lead, line.look, stream) + text if line.lead else text


def _styled(text: str, look: str, stream: Outlet) -> str:
    import click

    return click.style(text, fg=_COLOURS.get(look) or None, bold=True) if coloured(stream) and text else text


def _narrow(line: CardLine, width: int, stream: Outlet) -> str:
    """A line on a screen too narrow for two columns: the label before its text, what follows indented."""
    label = f"{line.label}: "
    lines = wrapped(line.whole, width - 2, first=width - columns(label), folded=True)
    lines[0] = _lead_styled(line, lines[0], stream)
    return _styled(label, "", stream) + "\n  ".join(lines)


def _lead_styled(line: CardLine, first: str, stream: Outlet) -> str:
    """A line's first row with its first words in their colour, where they stand on it whole."""
    if not line.lead or not first.startswith(line.lead):
        return first
    return _styled(line.lead, line.look, stream) + first[len(line.lead) :]


def _rows(line: CardLine, room: int, whole: bool) -> list[str]:
    """A line in rows, of a long warning or note the first ones alone; the report, and --verbose, have it all."""
    rows = wrapped(line.whole, room, folded=True)
    return _cut(rows, len(rows) if whole else _MESSAGES.get(line.label, len(rows)), room)


def _cut(rows: list[str], most: int, room: int) -> list[str]:
    """At most so many rows, of which the last says that there are more."""
    if len(rows) <= most:
        return rows
    return [*rows[: most - 1], f"{wrapped(rows[most - 1], room - len(_CUT))[0]}{_CUT}"]


def _on_a_screen(card: Card, room: int, height: int) -> list[tuple[CardLine, list[str]]]:
    """The lines in rows. Where a screen has fewer, what the numbers mean is cut; the report, and --verbose, have it all."""
    told = [(line, _rows(line, room, card.whole)) for line in card.lines]
    over = sum(len(rows) for _, rows in told) + 2 - height
    meanings = [k for k, (line, _) in enumerate(told) if line.label == _MEANING]
    for k in () if card.whole else reversed(meanings):
        line, rows = told[k]
        left = max(len(rows) - max(over, 0), _KEPT if k == meanings[0] else 0)
        kept = [] if left < min(2, len(rows)) else _cut(rows, left, room)
        told[k] = (line, kept)
        over -= len(rows) - len(kept)
    return [(line, rows) for line, rows in told if rows]


def _framed(card: Card, width: int, stream: Outlet) -> str:
    from rich import box
    from rich.panel import Panel
    from rich.text import Text

    gutter = max(columns(line.label) for line in card.lines) + 2
    room = width - 4 - gutter  # a frame and a space on either side
    body = Text()
    for number, (line, rows) in enumerate(_on_a_screen(card, room, height_of(stream))):
        colour = _COLOURS[line.look]
        label_style = f"bold {colour}" if line.label in ("error", "warning", "note") and colour else "dim"
        for row, text in enumerate(rows):
            body.append("\n" if number or row else "")
            body.append(f"{line.label}{' ' * (gutter - columns(line.label))}" if not row else " " * gutter, label_style)
            lead = line.lead if not row and text.startswith(line.lead) else ""
            body.append(lead, f"bold {colour}".strip())
            body.append(text[len(lead) :])
    body.no_wrap = True
    title = wrapped(card.title, width - 8, folded=True)[0]
    rich = rich_on(stream, width)
    with rich.capture() as captured:
        rich.print(
            Panel(
                body, title=Text(title, "bold"), title_align="left", border_style=_COLOURS[card.look], box=box.ROUNDED, width=width
            )
        )
    return captured.get().rstrip("\n")
