"""The card as a terminal, a log and a pipe show it: at any width, in any encoding, with and without colours."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from dataclasses import replace

import pytest
from rich.console import Console as Rich
from rich.progress import BarColumn
from rich.progress import Progress as Bar

from onnxfim.cli.bounds_command import _print as print_bound
from onnxfim.cli.console import Console, _words_column
from onnxfim.cli.outlets import Outlet
from onnxfim.cli.painted import card_text, coloured, quiet_text, table_text, width_of
from onnxfim.cli.wrapping import columns, wrapped
from onnxfim.record.decision import Finding
from onnxfim.report.card import audit_card
from onnxfim.spectral.reading import GraphReading
from tests.support.audits import hostile, make_audit, with_bound, with_flips, with_replay, with_tokens
from tests.support.guaranteed_audits import with_guarantees
from tests.support.hostile import FORBIDDEN
from tests.support.places import ROOT

LONG = "The temperature rests on 3 wrong predictions and a prior, so that it is known to a factor of 1.4 either way. " * 3
AUDIT = replace(
    with_flips(make_audit(60)), findings=(Finding("few-labels", "warning", LONG.strip()), Finding("n", "note", "A note."))
)
WIDE = replace(AUDIT, model=replace(AUDIT.model, name="漢字の模型.onnx"), data=replace(AUDIT.data, source="資料" * 40))
CARDS = {
    "plain": audit_card(AUDIT, files=("report.html", "a b.json")),
    "verbose": audit_card(AUDIT, files=("report.html",), findings=9),
    "wide characters": audit_card(WIDE),
    "guarantees": audit_card(with_guarantees(AUDIT, bad=1)),
    "hostile": audit_card(hostile(with_tokens(with_replay(AUDIT)))),
}
SEQUENCE = re.compile(r"\x1b\[[0-9;]*m")


class Screen(io.StringIO):
    """A stream of an encoding that is a terminal or is none."""

    def __init__(self, encoding="utf-8", terminal=True):
        super().__init__()
        self._encoding, self._terminal = encoding, terminal

    @property
    def encoding(self):
        return self._encoding

    def isatty(self):
        return self._terminal


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    """No variable of the machine decides about colours and widths."""
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "TTY_COMPATIBLE", "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def bare(text):
    return SEQUENCE.sub("", text)


def shown(card, *, width=80, encoding="utf-8", terminal=True, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    sink = Screen(encoding, terminal)
    stream = Outlet(sink)
    stream.write(card_text(stream, card))
    return sink.getvalue()


@pytest.mark.parametrize("width", [1, 20, 40, 60, 80, 120, 200])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1", "cp437", "shift_jis"])
@pytest.mark.parametrize("name", CARDS)
def test_no_line_is_wider_than_the_terminal_and_nothing_is_lost(name, encoding, width, monkeypatch):
    card = CARDS[name]
    text = bare(shown(card, width=width, encoding=encoding, monkeypatch=monkeypatch))
    assert text.encode(encoding)
    assert not FORBIDDEN & (set(text) - {"\n"})
    for line in text.split("\n"):
        assert columns(line) <= max(min(width, 100), 14), "a label, a colon and a character are the least"
    assert "verdict" in text
    if name == "verbose" and width >= 60:
        told = " ".join(" ".join(line.strip(" |│") for line in text.split("\n")).split())
        assert LONG.strip() in re.sub(r" warning +| {2,}", " ", told)


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_the_frame_is_straight(encoding, width, monkeypatch):
    lines = bare(shown(CARDS["wide characters"], width=width, encoding=encoding, monkeypatch=monkeypatch)).split("\n")
    assert {columns(line) for line in lines} == {min(width, 100)}
    side, corner = ("│", "╭") if encoding == "utf-8" else ("|", "+")
    assert lines[0].startswith(corner)
    assert all(line.startswith(side) and line.endswith(side) for line in lines[1:-1])


def test_lines_break_between_words(monkeypatch):
    """Every row of the card but a path's ends where a word does."""
    text = bare(shown(CARDS["plain"], monkeypatch=monkeypatch))
    words = {w for line in CARDS["plain"].lines for w in line.whole.replace("\u00a0", " ").split(" ")}
    for line in text.split("\n")[1:-1]:
        for word in line.strip("│ ").split():
            assert word in words or word in {line.label.split(" ")[0] for line in CARDS["plain"].lines} | {"radius", "[...]"}


def test_a_long_warning_is_cut_unless_all_was_asked_for(monkeypatch):
    short = bare(shown(CARDS["plain"], monkeypatch=monkeypatch))
    assert LONG.strip() not in " ".join(line.strip("│ ") for line in short.split("\n"))
    assert "[...]" in short.partition("warning")[2]
    assert len(short.split("\n")) == 24, "a screen, and no less than that"
    assert "[...]" not in bare(shown(CARDS["verbose"], monkeypatch=monkeypatch))
    error = replace(AUDIT, findings=(Finding("f", "error", LONG.strip()),))
    text = bare(shown(audit_card(error), monkeypatch=monkeypatch))
    assert "[...]" not in text.partition("error")[2], "an error is told whole"


@pytest.mark.parametrize(("rows", "whole"), [(24, False), (60, True)])
def test_what_the_numbers_mean_is_cut_where_the_screen_is_short(rows, whole, monkeypatch):
    """The last sentence goes first, and of the first three rows stay; a taller terminal has them all."""
    monkeypatch.setattr("onnxfim.cli.painted.height_of", lambda _: rows)
    text = bare(shown(CARDS["plain"], monkeypatch=monkeypatch))
    told = " ".join(line.strip("│ ").removeprefix("meaning").strip() for line in text.split("\n"))
    meanings = [line.whole.replace("\u00a0", " ") for line in CARDS["plain"].lines if line.label == "meaning"]
    assert len(meanings) == 2
    assert all(m in told for m in meanings) == whole
    assert meanings[0][:100] in told
    assert "verdict" in told
    assert all(line.label in text for line in CARDS["plain"].lines)


def test_without_a_terminal_a_fact_is_a_line(monkeypatch):
    card = CARDS["plain"]
    text = shown(card, width=20, terminal=False, monkeypatch=monkeypatch)
    lines = text.split("\n")
    assert lines[0].startswith(f"verdict: {AUDIT.verdict}")
    assert lines == [f"{line.label}: {line.whole}".replace("\u00a0", " ") for line in card.lines]
    assert not SEQUENCE.search(text)


def test_an_encoding_without_a_sign_has_words(monkeypatch):
    text = shown(CARDS["plain"], encoding="ascii", terminal=False, monkeypatch=monkeypatch)
    assert text.isascii()
    assert "\\u" not in text


@pytest.mark.parametrize(
    ("variables", "terminal", "colours"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"NO_COLOR": "1"}, True, False),
        ({"NO_COLOR": ""}, True, True),
        ({"FORCE_COLOR": "1"}, False, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False, False),
        ({"TERM": "dumb"}, True, False),
        ({"TERM": "dumb", "FORCE_COLOR": "1"}, True, True),
        ({"GITHUB_ACTIONS": "true"}, False, False),
        ({"GITHUB_ACTIONS": "true", "FORCE_COLOR": "1"}, False, True),
    ],
    ids=str,
)
def test_who_has_colours(variables, terminal, colours, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    stream = Outlet(Screen(terminal=terminal))
    assert coloured(stream) is colours
    assert bool(SEQUENCE.search(card_text(stream, CARDS["plain"]))) is colours
    sink = Screen(terminal=terminal)
    monkeypatch.setattr("sys.stderr", sink)
    Console().say("a message", colour="red")
    assert bool(SEQUENCE.search(sink.getvalue())) is colours
    table = table_text(stream, ("a", "b"), [("c", "d")], folded=False)
    assert bool(SEQUENCE.search(table)) is colours


@pytest.mark.parametrize(("verdict", "code"), [("pass", "32"), ("fail", "31"), ("inconclusive", "33"), ("measured", "36")])
def test_the_verdict_has_its_colour(verdict, code, monkeypatch):
    text = shown(audit_card(replace(AUDIT, verdict=verdict)), monkeypatch=monkeypatch)
    assert re.search(rf"\x1b\[1;{code}m{verdict}\x1b\[0m", text)
    assert ("\x1b[32m" in text or ";32m" in text) == (verdict == "pass"), "green only where something was decided"


def test_a_dumb_terminal_has_neither_frame_nor_sequence(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    text = shown(CARDS["plain"], monkeypatch=monkeypatch)
    assert not set("│╭\x1b") & set(text)
    assert all(columns(line) <= 80 for line in text.split("\n"))


def test_the_quiet_line(monkeypatch):
    stream = Outlet(Screen(terminal=False))
    line = CARDS["plain"].lines[0]
    assert quiet_text(stream, line, ()) == f"verdict: {line.whole}"
    assert quiet_text(stream, line, ("a.html", "b.json")) == f"verdict: {line.whole} Report: a.html, b.json"


@pytest.mark.parametrize("rows", [[], [("file", "x" * 300), ("opsets", "ai.onnx: 18")]], ids=["none", "long"])
def test_a_table_without_a_terminal_is_never_broken(rows, monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    text = table_text(Outlet(Screen(terminal=False)), (), rows, folded=True)
    assert [line.split(None, 1) for line in text.splitlines() if line] == [list(row) for row in rows]
    assert not any(line.endswith(" ") for line in text.splitlines())


def test_messages_break_between_words_on_a_terminal_alone(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    for terminal in (True, False):
        sink = Screen(terminal=terminal)
        monkeypatch.setattr("sys.stderr", sink)
        Console(verbose=True).say(LONG.strip())
        lines = bare(sink.getvalue()).splitlines()
        assert (len(lines) == 1) is not terminal
        assert " ".join(line.strip() for line in lines) == LONG.strip()
        assert not terminal or all(columns(line) <= 40 for line in lines)


@pytest.mark.parametrize(("layers", "terminal", "rows"), [(45, True, 20), (45, False, 45), (20, True, 20)])
def test_layers_leave_the_answer_on_the_screen(layers, terminal, rows, monkeypatch):
    """On a terminal those with the largest norms are shown, in graph order, and how many are not."""
    found = with_bound(AUDIT, layers=layers)
    factors = tuple(
        replace(f, node=f"n{i:02}", log10_norm=(i * 7 % layers) / 10) for i, f in enumerate(found.bound.factors[:layers])
    )
    sink = Screen(terminal=terminal)
    monkeypatch.setattr("sys.stdout", sink)
    print_bound(GraphReading(found.architecture, replace(found.bound, factors=factors), ()), Console(), "")
    told = [line.split()[0] for line in bare(sink.getvalue()).splitlines() if re.match(r"n\d\d ", line)]
    largest = sorted(factors, key=lambda f: -f.log10_norm)[:rows]
    assert told == sorted(f.node for f in largest)
    assert len(factors) == layers
    assert (f"{layers - rows} layers with smaller norms are not shown" in bare(sink.getvalue())) == (layers > rows)


class TestWrapping:
    @pytest.mark.parametrize("width", [1, 2, 5, 10, 33])
    @pytest.mark.parametrize("text", ["", "a", "one two three", "a  b", "漢字 漢字漢 e\u0301e\u0301", "x" * 50 + " y"])
    def test_no_line_is_too_wide_and_all_is_there(self, text, width):
        lines = wrapped(text, width, folded=True)
        assert "".join(lines).replace(" ", "") == text.replace(" ", "")
        assert all(columns(line) <= max(width, 2) for line in lines)

    def test_a_word_stays_whole_unless_it_is_to_be_cut(self):
        assert wrapped("a longer word", 3) == ["a", "longer", "word"]
        assert wrapped("a longer word", 3, folded=True) == ["a", "lon", "ger", "wor", "d"]

    def test_the_first_line_may_be_shorter(self):
        assert wrapped("aa bb cc", 8, first=4) == ["aa", "bb cc"]

    def test_a_no_break_space_breaks_nowhere(self):
        assert wrapped("flips 10 % of all", 9) == ["flips", "10 % of", "all"], "a number keeps its percent sign"
        assert wrapped("98.8\u00a0% of all", 6) == ["98.8 %", "of all"]

    @pytest.mark.parametrize(("text", "wide"), [("abc", 3), ("漢字", 4), ("e\u0301", 1), ("λ", 1), ("", 0)])
    def test_columns(self, text, wide):
        assert columns(text) == wide

    @pytest.mark.parametrize("text", ["漢字 λ e\u0301", "ｱ ア", "é ½ ² ‖", "🔬"])
    def test_columns_are_those_that_rich_counts(self, text):
        from rich.cells import cell_len

        assert columns(text) == cell_len(text)


def test_the_width_is_asked_of_a_terminal_alone(monkeypatch):
    monkeypatch.setenv("COLUMNS", "33")
    assert width_of(Outlet(Screen())) == 33
    assert width_of(Outlet(Screen(terminal=False))) is None
    monkeypatch.setenv("COLUMNS", "none")
    assert width_of(Outlet(Screen())) == 80, "a terminal that does not tell"


@pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals are POSIX")
@pytest.mark.parametrize("width", [40, 80])
def test_a_real_terminal(width, here, tmp_path):
    """The command itself in a pseudo-terminal of that width: a frame where there is room, and no line over its edge."""
    import fcntl
    import pty
    import struct
    import termios

    main_end, end = pty.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES")}
    process = subprocess.Popen(
        [sys.executable, "-m", "onnxfim", "audit", "model.onnx", "--data", "data.npz", "--provider", "cpu", "--no-cache"],
        cwd=here, stdin=end, stdout=end, stderr=subprocess.DEVNULL,
        env={**environment, "PYTHONPATH": str(ROOT), "TERM": "xterm"},
    )  # fmt: skip
    os.close(end)
    out = b""
    while True:
        try:
            more = os.read(main_end, 65536)
        except OSError:  # the other end was closed
            break
        if not more:
            break
        out += more
    os.close(main_end)
    assert process.wait(60) == 0
    lines = bare(out.decode("utf-8")).replace("\r", "").rstrip("\n").split("\n")
    assert ("╭" in lines[0]) == (width == 80)
    assert all(columns(line) <= width for line in lines)
    assert any("verdict" in line and "measured" in line for line in lines)


@pytest.mark.parametrize("width", [60, 80, 200])
def test_what_is_under_way_yields_room_to_the_time_that_is_left(width):
    """A long name is cut; share, time and count of a bar stand whole beside it, on one line."""
    sink, column = io.StringIO(), _words_column()
    told = ["digits_resnet_adv.onnx (5 of 5) 10/13 replaying the worst directions", "73%", "5 s", "about 20 s left", "3 of 64"]
    parts = [column(lambda: told[0], yields=True), BarColumn(bar_width=16), *(column(lambda t=t: t) for t in told[1:])]
    bar = Bar(*parts, console=Rich(file=sink, width=width))
    bar.add_task("", total=1.0)
    bar.console.print(bar.get_renderable())
    line = " ".join(sink.getvalue().split())
    assert sink.getvalue().rstrip("\n").count("\n") == 0
    assert line.startswith("digits_resn")
    assert line.endswith(" ".join(told[1:]))
    assert (told[0] in line) == (width == 200)
