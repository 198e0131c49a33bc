"""Read a page as a browser would: elements, attributes, text; every element closed in its order."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from html.parser import HTMLParser

from onnxfim.report import render_html
from onnxfim.report.html import source
from tests.support.tracing import untraced

VOID = frozenset(["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"])


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    inside: tuple[str, ...]
    text: str = ""


@dataclass
class Read(HTMLParser):
    """The elements of a page in document order; ``problems`` names what is not balanced."""

    elements: list[Element] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def __post_init__(self):
        super().__init__(convert_charrefs=True)
        self._open: list[Element] = []

    def handle_starttag(self, tag, attrs):
        if len({name for name, _ in attrs}) != len(attrs):
            self.problems.append(f"<{tag}> has an attribute twice")
        element = Element(tag, {name: value or "" for name, value in attrs}, tuple(e.tag for e in self._open))
        self.elements.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag):
        if not self._open or self._open[-1].tag != tag:
            self.problems.append(f"</{tag}> closes {self._open[-1].tag if self._open else 'nothing'} at {self.getpos()}")
            return
        self._open.pop()

    def handle_data(self, data):
        for element in self._open:
            element.text += data

    def close(self):
        super().close()
        self.problems += [f"<{e.tag}> is never closed" for e in self._open]


@untraced()
def read(html: str) -> Read:
    page = Read()
    page.feed(html)
    page.close()
    return page


def foreign_scripts(elements: list[Element]) -> list[Element]:
    """Scripts of a page that are not the one it is made with, which its policy names by its hash."""
    own = source("tables.js")
    allowed = f"script-src 'sha256-{base64.b64encode(hashlib.sha256(own.encode()).digest()).decode()}'"
    policy = next(e.attributes["content"] for e in elements if e.attributes.get("http-equiv") == "Content-Security-Policy")
    scripts = [e for e in elements if e.tag == "script"]
    assert len(scripts) <= 1
    assert allowed in policy or not scripts
    return [e for e in scripts if e.text != own or e.attributes]


_PAGES: dict[int, tuple[object, str, Read]] = {}


def page_of(audit):
    """The page of an audit and its elements; the same audit is rendered and read once."""
    known = _PAGES.get(id(audit))
    if known is None or known[0] is not audit:  # the audit is kept, so that its id stays its own
        text = render_html(audit)
        known = _PAGES[id(audit)] = (audit, text, read(text))
    return known[1], known[2]
