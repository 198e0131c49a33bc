"""The repository's pages: links lead somewhere, and the changelog keeps its form."""

from __future__ import annotations

import re
from itertools import pairwise
from urllib.parse import unquote, urlsplit

import pytest

import onnxfim
from tests.support.places import DEV, ROOT
from tests.support.tracing import untraced

markdown_it = DEV.load("markdown_it")

PAGES = sorted(p for pattern in ("*.md", "docs/**/*.md", ".github/**/*.md", "sample_models/*.md") for p in ROOT.glob(pattern))
SECTIONS = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")


@untraced()
def parse(text):
    return markdown_it.MarkdownIt("commonmark").enable("table").parse(text)


def headings(text):
    """``(level, words)`` of each heading."""
    tokens = parse(text)
    for opening, inline in pairwise(tokens):
        if opening.type == "heading_open":
            yield int(opening.tag[1]), "".join(c.content for c in inline.children if c.type in ("text", "code_inline"))


def anchors(text):
    """The names that GitHub gives to headings; the second of one name gets ``-1``."""
    seen = {}
    for _, words in headings(text):
        name = re.sub(r"[^\w\- ]", "", words.strip().lower()).replace(" ", "-")
        count = seen.setdefault(name, 0)
        seen[name] += 1
        yield f"{name}-{count}" if count else name


def has_anchor(file, name):
    return file.suffix == ".md" and name in set(anchors(file.read_text("utf-8")))


def targets(text):
    """Where the page's links and pictures lead."""
    for token in parse(text):
        for child in token.children or ():
            if child.type in ("link_open", "image"):
                yield child.attrs["href" if child.type == "link_open" else "src"]


def broken(page, root):
    """The links of a page that lead to no file or heading inside ``root``."""
    for target in targets(page.read_text("utf-8")):
        parts = urlsplit(target)
        if parts.scheme or parts.netloc:
            continue  # another site
        file = (page.parent / unquote(parts.path)).resolve() if parts.path else page
        if not (file.is_relative_to(root) and file.exists() and (not parts.fragment or has_anchor(file, unquote(parts.fragment)))):
            yield target


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    assert list(broken(page, ROOT)) == []


def test_broken_links_are_found(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/b.md").write_text("# B: `x` & y\n\n## Twice\n\n## Twice\n", "utf-8")
    (tmp_path / "a.md").write_text(
        "# A\n\n[good](docs/b.md) [good](docs/b.md#b-x--y) [good](docs/b.md#twice-1) [good](#a) [good](docs) [site](https://example.org/x)\n\n"
        "| t |\n|---|\n| [bad](docs/c.md) |\n\n![bad](c.png) [bad](#b) [bad](docs/b.md#twice-2) [bad](../a.md) [bad][r]\n\n[r]: d.md\n",
        "utf-8",
    )
    assert list(broken(tmp_path / "a.md", tmp_path)) == ["docs/c.md", "c.png", "#b", "docs/b.md#twice-2", "../a.md", "d.md"]


# The changelog.


def faults(text):
    """What is wrong with the form of a changelog."""
    titles = list(headings(text))
    if [w for level, w in titles if level == 1] != ["Changelog"]:
        yield "the title"
    releases = [w for level, w in titles if level == 2]
    if releases[:1] != ["Unreleased"]:
        yield "no Unreleased at the top"
    yield from (f"release {w!r}" for w in releases[1:] if not re.fullmatch(r"\d+\.\d+\.\d+ - \d{4}-\d\d-\d\d", w))
    yield from (f"heading {w!r}" for level, w in titles if level > 2 and (level > 3 or w not in SECTIONS))
    release = section = None
    order, filled = [], False
    for level, kind, words in [*blocks(text), (1, "end", "")]:
        if kind in ("heading", "end") and section and not filled and release != "Unreleased":
            yield f"{release}: {section} is empty"
        if kind == "heading":
            if level == 2:
                release, section, order = words, None, []
            elif level == 3:
                section, filled = words, False
                order.append(words)
                if len(set(order)) < len(order):
                    yield f"{release}: {words} comes twice"
        elif kind == "entry" and section:
            filled = True
            if not words:
                yield f"{release}: an entry of {section} is not one bullet"
        elif kind != "end" and release:
            yield f"{release}: {words!r} is no bullet under a heading"


def blocks(text):
    """``(level, kind, words)`` of the top blocks: headings, the entries of lists (no words where not one paragraph), the rest."""
    tokens = parse(text)
    for i, token in enumerate(tokens):
        if token.type == "heading_open":
            yield int(token.tag[1]), "heading", tokens[i + 1].content
        elif token.type == "list_item_open" and token.level == 1:
            end = next(j for j in range(i, len(tokens)) if tokens[j].type == "list_item_close" and tokens[j].level == 1)
            kinds = [t.type for t in tokens[i + 1 : end]]
            single = kinds == ["paragraph_open", "inline", "paragraph_close"] and token.markup == "-"
            yield 0, "entry", tokens[i + 2].content if single else ""
        elif token.level == 0 and token.nesting >= 0 and not token.type.startswith(("bullet_list", "inline")):
            yield 0, token.type, tokens[min(i + 1, len(tokens) - 1)].content


def test_changelog_keeps_its_form():
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert list(faults(text)) == []
    released = [w.split()[0] for level, w in headings(text) if level == 2][1:]
    assert not released or released[0] == onnxfim.__version__


GOOD = "# Changelog\n\nWords.\n\n## Unreleased\n\n### Added\n\n- One\n  line.\n- Two.\n\n### Fixed\n\n## 0.1.0 - 2026-11-01\n\n### Removed\n\n- Three.\n"


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("Words", "Other words", None),
        ("# Changelog", "# Changes", "the title"),
        ("## Unreleased", "## Next", "no Unreleased at the top"),
        ("0.1.0 - 2026-11-01", "0.1 (November)", "release '0.1 (November)'"),
        ("### Added", "### New", "heading 'New'"),
        ("### Fixed", "### Added", "Unreleased: Added comes twice"),
        ("- Two.", "- Two.\n\n  More of it.", "Unreleased: an entry of Added is not one bullet"),
        ("- Two.", "- Two.\n  - And a half.", "Unreleased: an entry of Added is not one bullet"),
        ("- Two.", "* Two.", "Unreleased: an entry of Added is not one bullet"),
        ("- Three.", "Three.", "0.1.0 - 2026-11-01: 'Three.' is no bullet under a heading"),
        ("- Three.\n", "", "0.1.0 - 2026-11-01: Removed is empty"),
    ],
)  # fmt: skip
def test_faults_of_a_changelog_are_found(old, new, fault):
    assert old in GOOD
    found = list(faults(GOOD.replace(old, new, 1)))
    assert fault in found if fault else found == []


@pytest.mark.parametrize("page", ["architecture.md", "adding.md"])
def test_guides_name_what_is_there(page):
    """Every module that a guide names exists, below the package or at the top."""
    named = set(re.findall(r"`((?:onnxfim|tests|record|graph|runtime|data|verdict|gradients|spectral|slopes|auditing|report|cli)/[\w/.]+?)/?`",
                           (ROOT / "docs" / page).read_text("utf-8")))  # fmt: skip
    assert len(named) > 10
    assert sorted(n for n in named if "NAME" not in n and not any((root / n).exists() for root in (ROOT, ROOT / "onnxfim"))) == []
