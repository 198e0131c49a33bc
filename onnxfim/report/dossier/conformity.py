"""The dossier's own page: what the audit says in the terms of standards, each line with its value, and what it does not show."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from onnxfim.record.audit import Audit
from onnxfim.record.foreign_text import visible
from onnxfim.report.assets import placed
from onnxfim.report.dossier import BOM, PAGE, RECORD, SUMS, sha256_of
from onnxfim.report.dossier.checking import REMEDY, checked_bom
from onnxfim.report.dossier.lines import tables
from onnxfim.report.dossier.one_line import Line
from onnxfim.report.dossier.unshown import unshown
from onnxfim.report.html import render
from onnxfim.report.identity_words import identity_facts, running_line
from onnxfim.report.markdown_text import code, prose

_ABOUT = {
    PAGE: "The report: the whole audit as a page, to read or to print.",
    RECORD: "The record: every value, with its interval and its kind.",
    BOM: "CycloneDX 1.6 ML-BOM: model card with metrics and intervals, by class too.",
}
#: Commands that sign a dossier; the sums name every file, so that one signature covers all.
SIGNING = (
    f"sha256sum --check {SUMS}",
    f"cosign sign-blob --bundle ../dossier.sigstore.json {SUMS}",
)


@dataclass(frozen=True)
class ShownLine:
    """A line as printed; ``link`` leads into the page of the report."""

    topic: str
    text: str
    pointer: str
    link: str
    state: str
    level: str


@dataclass(frozen=True)
class ShownTable:
    """A table as printed."""

    key: str
    title: str
    about: str
    lines: tuple[ShownLine, ...]


@dataclass(frozen=True)
class ShownFile:
    """A file of the dossier: its name, what it is, its hash."""

    name: str
    about: str
    sha256: str


@dataclass(frozen=True)
class ConformityPage:
    """All that the page prints, in its order."""

    title: str
    heading: str
    report: tuple[tuple[str, str], ...]
    tables: tuple[ShownTable, ...]
    unshown: Sequence[str]
    files: tuple[ShownFile, ...]
    checked: str
    signing: Sequence[str]
    running: str


def render_conformity_html(page: ConformityPage, *, assets_dir: str | Path | None = None) -> str:
    """The page as HTML text.

    Args:
        page: What it prints.
        assets_dir: As for `render_html`.

    Raises:
        OutputError: the templates are missing from the installation.
    """
    return render("conformity.html.j2", placed(assets_dir), script=False, title=page.title, page=page, running=page.running)


def render_conformity_text(page: ConformityPage) -> str:
    """The same as Markdown; foreign text is escaped."""
    return "\n".join(_markdown(page)) + "\n"


def build_conformity_page(audit: Audit, files: Mapping[str, str]) -> ConformityPage:
    """Compute the page of ``audit``; ``files`` are those of the dossier that it names and links to, by name."""
    anchors = frozenset(re.findall(r'\bid="([\w-]+)"', files[PAGE]))
    name = visible(audit.model.name or audit.model.path)
    by = checked_bom(files[BOM])
    checked = f"Held against CycloneDX's schema by {by}." if by else f"Not held against CycloneDX's schema here ({REMEDY} does)."
    return ConformityPage(
        title=f"{name}: what the audit shows, in the terms of standards",
        heading=name,
        report=identity_facts(audit.identity),
        tables=tuple(ShownTable(t.key, t.title, t.about, tuple(_shown(x, anchors) for x in t.lines)) for t in tables(audit)),
        unshown=unshown(audit),
        files=tuple(ShownFile(f, _ABOUT[f], sha256_of(text)) for f, text in files.items()),
        checked=checked,
        signing=SIGNING,
        running=running_line(f"{name}, in the terms of standards", audit.identity),
    )


_LEVELS = {"measured": "pass", "decided": "pass", "stated": "note", "in part": "warning", "not in this dossier": "error"}


def _shown(line: Line, anchors: frozenset[str]) -> ShownLine:
    """A line made visible; where the page has no such section, the link leads to its beginning."""
    link = f"{PAGE}#{line.anchor}" if line.anchor in anchors else PAGE if line.anchor else ""
    return ShownLine(visible(line.topic), visible(line.text), visible(line.pointer), link, line.state, _LEVELS[line.state])


def _markdown(page: ConformityPage) -> Iterator[str]:
    yield f"# {prose(page.title)}\n"
    yield "This is no certificate, and claims no conformity: it says where in this folder the values stand.\n"
    yield from (f"- {prose(name)}: {code(value)}" for name, value in page.report)
    for table in page.tables:
        yield f"\n## {prose(table.title)}\n\n{prose(table.about)}\n"
        yield "| Topic | What the audit says | Value | In this dossier |\n|---|---|---|---|"
        for line in table.lines:
            where = " ".join(
                filter(None, (code(line.pointer) if line.pointer else "", f"[page]({line.link})" if line.link else ""))
            )
            yield f"| {prose(line.topic)} | {prose(line.text)} | {where or '–'} | {line.state} |"
    yield "\n## What this dossier does not show\n"
    yield from (f"- {prose(text)}" for text in page.unshown)
    yield "\n## Files\n\n| File | What it is | SHA-256 |\n|---|---|---|"
    yield from (f"| [{f.name}]({f.name}) | {prose(f.about)} | {code(f.sha256)} |" for f in page.files)
    yield f"\n{prose(page.checked)} All files of the folder are in [{SUMS}]({SUMS}).\n"
    yield "Nothing here is signed; one signature of the sums covers all:\n"
    yield from (f"    {command}" for command in page.signing)
