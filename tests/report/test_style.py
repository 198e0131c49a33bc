"""The style sheet: contrast by the formula of WCAG 2.2 (1.4.3 and 1.4.11), in both colour schemes and on paper."""

import re
from itertools import product

import pytest

from onnxfim.report.html import source

SCHEMES = ("light", "dark", "print")


def scheme(name):
    style = source("report.css")
    blocks = re.findall(r":root \{(.*?)\}", style, re.S)
    tables = [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block)) for block in blocks]
    assert len(tables) == len(SCHEMES)
    return tables[SCHEMES.index(name)]


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a, b):
    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_the_formula():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)  # the known grey that just fails


@pytest.mark.parametrize("name", SCHEMES)
def test_text_can_be_read(name):
    colours = scheme(name)
    plain = product(("ink", "quiet", "link"), ("page", "card", "soft"))
    tinted = [("ink", t) for t in ("good-soft", "bad-soft", "care-soft", "note-soft")]
    tinted += [("quiet", t) for t in ("bad-soft", "care-soft", "note-soft", "soft")]  # ids of findings
    words = [("good", "card"), ("bad", "card"), ("care", "card"), ("bad", "bad-soft"), ("bad", "soft")]
    for text, ground in (*plain, *tinted, *words):
        assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)


@pytest.mark.parametrize("name", SCHEMES)
def test_marks_can_be_seen(name):
    colours = scheme(name)
    marks = [(m, "card") for m in ("raw", "calibrated", "third", "bad")]
    signs = [(s, "on-sign") for s in ("good", "bad", "care", "raw")]
    for mark, ground in (*marks, *signs):
        assert contrast(colours[mark], colours[ground]) >= 3, (mark, ground)


def test_every_class_of_the_drawings_has_a_colour():
    style, macros = source("report.css"), source("charts.html.j2")
    series = re.findall(r'"(\w+)": "#', macros)
    assert {"raw", "calibrated", "forward", "central", "cross", "right", "wrong", "pass", "fail", "warning"} <= set(series)
    for name in set(series) - {"tick", "title", "value", "note", "mark"}:
        assert re.search(rf"\.[fs]-{name}\b", style), name
