"""Foreign text in Markdown: no markup, link, mention, reference, emoji or formula, on GitHub or on GitLab."""

from __future__ import annotations

import re
from collections.abc import Iterator

from onnxfim.record.foreign_text import clipped

_MOST_TEXT = 2_000  # characters of one foreign text
_MOST_NAME = 200
#: An empty comment: invisible, and a host then sees no word of one piece.
_APART = "<!-- -->"
# A code span of one of these gets a coloured dot from the hosts, if nothing stands around it.
_COLOUR = re.compile(r"#[0-9a-fA-F]{3,8}|(rgb|hsl)a?\(.*\)", re.IGNORECASE)
# Where hosts, which look at the text that is left once all markup is read, would link or replace a word: it is taken apart there.
_SEAMS = re.compile(
    r"(?<=[@#])"  # mentions, issues, alerts
    r"|(?<=:)(?=/|[\w+-]+:)"  # addresses, :emoji:
    r"|(?<=www)(?=\.)|(?<=mailto)(?=:)|(?<=xmpp)(?=:)"
    r"|(?<=[!~&$%^])(?=[\w\"])"  # merge requests, labels, epics, snippets, milestones
    r"|(?<=[A-Za-z][A-Za-z0-9]-)(?=\d)|(?<=\b[A-Za-z]-)(?=\d)|(?<=GHSA-)"  # GH-1, any tracker's ABC-1
    r"|(?<=\[)(?=[a-z_]+:)"  # [issue:1]
    r"|(?<=\w)(?=>)",  # group/project>
    re.IGNORECASE,
)
_HASH = re.compile(r"(?<![0-9A-Za-z])[0-9a-f]{7,64}(?![0-9A-Za-z])", re.IGNORECASE)  # a commit's, in full or in short
_PIECE = 6  # characters of a hash that no host takes for a commit


def code(text: str) -> str:
    """Foreign text as a code span that also holds inside a table; nothing in it links, mentions or ends the span."""
    shown = clipped(text, _MOST_NAME).replace("\n", " ")
    if not shown.strip():
        return "unnamed"
    fence = "`" * (max(map(len, re.findall("`+", shown)), default=0) + 1)
    if _COLOUR.fullmatch(shown):
        shown = f" {shown} "
    # A pipe would end a table's cell even in a code span; escaped, the backslash is not shown there. No other may stand before it.
    inner = re.sub(r"(?<=\\)(?=\|)", " ", shown).replace("|", "\\|")
    return f"{fence} {inner} {fence}" if shown[0] in "` " or shown[-1] in "` \\" else f"{fence}{inner}{fence}"


def code_block(text: str) -> str:
    """Foreign text of one line as a block of code, which nothing in it ends."""
    shown = clipped(text, _MOST_TEXT)
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", shown)), default=0))
    return f"{fence}text\n{shown}\n{fence}"


def prose(text: str) -> str:
    """Text with foreign names in it that prints as it stands, on one line."""
    shown = clipped(text, _MOST_TEXT).strip()
    start = re.match(r"[-+=](?=[\s=-]|$)|\d+(?=[.)](\s|$))", shown)  # a list's mark, a line below a heading, a list's number
    head = start.end() if start else 0
    mark = "" if start is None else f"{start[0]}\\" if start[0].isdigit() else f"\\{start[0]}"
    cuts = {m.start() for m in _SEAMS.finditer(shown)}
    for found in _HASH.finditer(shown):
        cuts.update(range(found.start() + _PIECE, found.end(), _PIECE))
    return mark + "".join(_escaped(shown, head, cuts))


def _escaped(text: str, start: int, cuts: set[int]) -> Iterator[str]:
    for at in range(start, len(text)):
        character = text[at]
        if at in cuts and at:
            yield _APART
        if character in "<>&":
            yield {"<": "&lt;", ">": "&gt;", "&": "&amp;"}[character]
        elif character == "$":
            yield "<span>\\$</span>"  # as GitHub's manual has it: a text of its own begins no formula
        elif character in "\\`*[]|~!^" or (character == "_" and not _within_word(text, at)):
            yield "\\" + character
        else:
            yield " " if character == "\n" else character
    if len(text) in cuts:
        yield _APART


def _within_word(text: str, at: int) -> bool:
    return 0 < at < len(text) - 1 and text[at - 1].isalnum() and text[at + 1].isalnum()
