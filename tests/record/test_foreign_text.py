"""What steers a terminal or hides is spelled out; every other character stays."""

from __future__ import annotations

import sys
import unicodedata

import pytest

from onnxfim.record.foreign_text import clipped, one_line, visible

ZWJ, SELECTOR = "\u200d", "\ufe0f"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "\\u001b[31mred\\u001b[0m"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "\\u001b]8;;http://x\\u001b\\link\\u001b]8;;\\u001b\\"),
        ("\x1b]52;c;aGk=\x07", "\\u001b]52;c;aGk=\\u0007"),
        ("\x9b2J\x85", "\\u009b2J\\u0085"),
        ("a\rb\nc\td\x08", "a\\u000db\\u000ac\\u0009d\\u0008"),
        ("a\u202eb\x00\udc80", "a\\u202eb\\u0000\\udc80"),
        ("ze\u200bro\u2060\ufeff\xad", "ze\\u200bro\\u2060\\ufeff\\u00ad"),
        ("a\u2028b\u2029", "a\\u2028b\\u2029"),
        ("tag\U000e0041", "tag\\U000e0041"),
        (f"a{ZWJ}b", "a\\u200db"),
        (f"模{ZWJ}{ZWJ}型", "模\\u200d\\u200d型"),
        (f"a{SELECTOR}", "a\\ufe0f"),
        ("\u3164", "\\u3164"),
    ],
)
def test_what_steers_or_hides_is_spelled_out(text, shown):
    assert visible(text) == shown
    assert visible(shown) == shown


@pytest.mark.parametrize(
    "text",
    ["é – ξ λ_max × ≤ …", "שלום", "模型", f"👩{ZWJ}🔬", f"❤{SELECTOR}{ZWJ}🔥", f"1{SELECTOR}\u20e3", "می\u200cخواهم", "a\u00a0b", "\ufffd",
     "🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f", "[bold]a[/]", "back\\slash \\u001b"],
)  # fmt: skip
def test_ordinary_text_stays(text):
    assert visible(text) == text


def test_exactly_what_steers_or_prints_as_nothing_is_spelled_out():
    every = [chr(i) for i in range(sys.maxunicode + 1)]
    changed = {c for c in every if visible(c) != c}
    # Marks of numbers and of verses, and what lays out hieroglyphs, are format characters that are seen.
    seen = {*map(chr, (*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD, *range(0x13430, 0x13440)))}
    kinds = {c for c in every if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")} - seen
    blank = {*"\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0"}
    others = {c for c in changed - kinds - blank if unicodedata.category(c) != "Cn"}
    assert kinds | blank <= changed
    # What is left are variation selectors, which mean nothing on their own.
    assert {unicodedata.name(c).partition("VARIATION SELECTOR")[1] for c in others} == {"VARIATION SELECTOR"}


def test_one_line():
    assert one_line("a\n  b\r\n\tc \x1b[0m") == "a b c \\u001b[0m"


@pytest.mark.parametrize(
    "text", ["", "abc", "a\u202eb\x00c", "\x00" * 9, "abcdefgh", "abcdefg\x00", "\udc80abcdefghijkl", "x" * 1000]
)
@pytest.mark.parametrize("most", [1, 7, 8, 9, 13])
def test_a_clipped_text_is_the_start_of_the_visible_one(text, most):
    shown = visible(text)
    assert clipped(text, most) == (shown if len(shown) <= most else shown[: most - 1] + "…")
