"""Foreign text in Markdown reads as it stands, and hosts find nothing in it to link or to replace."""

from __future__ import annotations

import re

import pytest

from onnxfim.record.foreign_text import visible
from onnxfim.report import comparison_markdown, markdown
from onnxfim.report.markdown_text import code, prose
from onnxfim.verdict.compare import compare
from tests.support.audits import HOSTILE, VARIANTS, make_audit
from tests.support.hostile import TRICKS
from tests.support.places import DEV
from tests.support.tracing import untraced

SHA = "9ba12248b19a04f5c11e00aa9ba12248b19a04f5"
#: What hosts link, mention or replace, by their manuals: GitHub on autolinked references, GitLab on its special references.
LINKED = (
    "GH-1", "fixes GH-12 and JIRA-123", "A-1", "CVE-2024-1234", "GHSA-ab12-cd34-ef56", SHA, SHA[:7], f"user/repo@{SHA}", f"user@{SHA}",
    f"{SHA[:8]}...{SHA[8:16]}", "#12", "user/repo#1", "@user", "@org/team", "http://evil.example", "https://evil.example/a?b=c#d",
    "ftp://evil.example", "www.evil.example", "WWW.EVIL.example", "a@evil.example", "mailto:a@evil.example", "xmpp:a@evil.example/b",
    "!12", "group/project!12", "$12", "&12", "%12", '%"milestone"', "~12", '~"label"', "^alert#1", "[issue:12]", "[vulnerability:1]",
    "[[wiki page]]", "group/project>", "*iteration:1", ":smile:", ":+1::tada:", "$x^2$ and $$y$$", "$`x`$",
)  # fmt: skip
FORMATTED = (
    "# heading", "## heading", "- item", "+ item", "* item", "1. item", "12) item", "> quote", "---", "===", "***", "    code", "```", "~~~",
    "- [ ] task", "[x]", "[^1]", "[^1]: note", "[a](b)", "![a](b)", "[a]: http://b", "<b>bold</b>", "<!-- c -->", "&amp; &lt; &#35;",
    "*a* **b** _c_ __d__ ~~e~~", "`code`", "a|b", "a\\|b\\\\|c", "\\", "a\\", "| a | b |", "[TOC]", "[[_TOC_]]", "snake_case __init__",
    "{+ added +} {- removed -}",
)  # fmt: skip
PLAIN = (
    "3.09 [1.2, 4]",
    "7.",
    "é 漢字 👩\u200d🔬",
    "λ_max 1.2×10⁻³ to 5",
    "95 % of 1,234,567",
    "−0.5 points",
    "a: b, c; d (e) 'f' 12:30:45",
)
#: What a host looks for in each piece of text that is left once markup is read.
PATTERNS = (
    r"\bGH-\d", r"\b[A-Za-z][A-Za-z0-9]*-\d", r"\bGHSA-\w", r"\b[0-9a-fA-F]{7,}\b", r"[@#]\w", r"://", r"(?i)www\.", r"(?i)(mailto|xmpp):",
    r"[!~&%$^][\w\"]", r"\[[a-z_]+:", r"\w>", r":[\w+-]+:", r"\$.*\$",
)  # fmt: skip


@untraced()
def pieces(source):
    """The pieces of text of a document as hosts see them: what is between any two of tags, comments and code."""
    md = DEV.load("markdown_it")
    tokens = md.MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(source)
    found, shapes = [[]], [t.type for t in tokens if t.type != "inline"]
    for inner in (c for t in tokens for c in t.children or ()):
        shapes.append(inner.type) if inner.type not in ("text", "html_inline", "text_special") else None
        if inner.type in ("text", "text_special"):
            found[-1].append(inner.content)
        else:
            found.append([])
    return ["".join(p) for p in found if p], shapes


@pytest.mark.parametrize("text", [*LINKED, *FORMATTED, *PLAIN, *HOSTILE, *TRICKS.values()])
@pytest.mark.parametrize("frame", ["{}", "- {}", "> {}", "**{}.** {}", "before {} after"])
def test_text_reads_as_it_stands_and_is_nothing_else(text, frame):
    source = frame.replace("{}", prose(text))
    found, shapes = pieces(source)
    plain, plain_shapes = pieces(frame.replace("{}", "word"))
    shown = visible(text).strip()
    assert shapes == plain_shapes
    assert "".join(found) == "".join(plain).replace("word", shown)
    assert not [(p, piece) for p in PATTERNS for piece in found if re.search(p, piece) and not re.search(r"\d:\d", piece)]


@pytest.mark.parametrize("text", [*LINKED, *FORMATTED, *PLAIN])
def test_text_stays_within_its_cell(text):
    source = f"| a | b |\n|---|---|\n| {prose(text)} | {code(text)} |"
    tokens = DEV.load("markdown_it").MarkdownIt("commonmark").enable("table").parse(source)
    assert sum(t.type == "td_open" for t in tokens) == 2
    cells = [t for t in tokens if t.type == "inline"][2:]
    assert [c.type for c in cells[1].children] == ["code_inline"]
    expected = re.sub(r"(?<=\\)(?=\|)", " ", visible(text)).strip()
    assert cells[1].children[0].content.strip() == expected


@pytest.mark.parametrize("colour", ["#0969DA", "#fff", "rgb(1, 2, 3)", "hsla(1,2,3,4)"])
def test_no_colour_gets_a_dot(colour):
    (inline,) = (t for t in DEV.load("markdown_it").MarkdownIt().parse(code(colour)) if t.type == "inline")
    assert inline.children[0].content == f" {colour} "


def test_every_text_of_a_report_is_inert():
    hostile = VARIANTS["hostile"]()
    both = compare([make_audit(60), make_audit(60, seed=1)])
    for source in (
        markdown.render_summary(hostile),
        markdown.render_comment(hostile),
        comparison_markdown.render_comparison_markdown(both),
    ):
        found, shapes = pieces(source)
        assert not {"link_open", "image"} & set(shapes)
        assert not [(p, piece) for p in PATTERNS[4:7] for piece in found if re.search(p, piece)]
