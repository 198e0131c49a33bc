"""What stands in place of a report where an audit could not run: why, in the formats that a CI host reads."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import Element, SubElement

from onnxfim.record.foreign_text import visible
from onnxfim.record.identity import Identity
from onnxfim.report import junit, sarif
from onnxfim.report.identity_words import identity_facts, identity_properties
from onnxfim.report.junit import xml_safe
from onnxfim.report.markdown import MARK
from onnxfim.report.markdown_text import code, prose

# How each of these texts begins, and each report of the same format.
_SARIF = re.compile(r"\{\s*\"\$schema\": \"https://docs\.oasis-open\.org/sarif/")
_XML = re.compile(r"<\?xml [^>]*>\s*<testsuites name=\"onnxfim\"")
_UNTOLD = ("Report id", "Command")  # nothing was asked of data that were not read; the command is in JUnit and SARIF
_MOST_FACTS = 20  # that a summary tells
_SUMMARY = re.compile(r"## \S+ onnxfim: ")


@dataclass(frozen=True)
class WithoutAudit:
    """Why there is no audit: ``reason`` in one line, of ``model`` (empty where it is not known), the exit code, and whose it is."""

    reason: str
    model: str
    code: int
    identity: Identity | None = None


@dataclass(frozen=True)
class Stand:
    """What stands in for a format: its renderer, and how a file begins that it may replace."""

    render: Callable[[WithoutAudit], str]
    beginning: re.Pattern[str]


def render_summary(failure: WithoutAudit) -> str:
    """The reason as a step summary."""
    of = f" {code(failure.model)}" if failure.model else ""
    facts = [f"{name}: {value}" for name, value in identity_facts(failure.identity, without=_UNTOLD)[:_MOST_FACTS]]
    last = f"\n{prose(' · '.join(facts))}\n" if failure.identity is not None and facts else ""
    return (
        f"## ⛔ onnxfim: did not run{of}\n\n{prose(failure.reason)}\n\n"
        f"Nothing was measured, so that nothing passed (exit code {failure.code}).\n{last}"
    )


def render_comment(failure: WithoutAudit) -> str:
    """The reason as a pull request's comment."""
    return f"{MARK}\n{render_summary(failure)}"


def render_junit(failure: WithoutAudit) -> str:
    """The reason as a JUnit suite whose one case is an error: no earlier result may stand for this run."""
    suites = Element("testsuites", name="onnxfim", tests="1", failures="0", errors="1")
    counts = {"tests": "1", "failures": "0", "errors": "1", "skipped": "0", "time": "0"}
    suite = SubElement(suites, "testsuite", {"name": xml_safe(f"onnxfim {failure.model}".strip()), **counts})
    junit.date_and_place(suite, failure.identity)
    if failure.identity is not None:
        junit.add_properties(suite, identity_properties(failure.identity))
    case = SubElement(suite, "testcase", classname="onnxfim", name="verdict", time="0")
    message = xml_safe(f"did not run: {failure.reason}")
    SubElement(case, "error", type="did not run", message=message).text = message
    return junit.as_text(suites)


def render_sarif(failure: WithoutAudit) -> str:
    """The reason as SARIF 2.1.0: an invocation that did not succeed, and no results."""
    # No automation id: code hosts then leave the alerts of earlier reports, which have one, as they are, and take none for mended.
    notification = {"level": "error", "message": {"text": visible(failure.reason)}}
    invocation: dict[str, Any] = {
        "executionSuccessful": False,
        "exitCode": failure.code,
        "toolExecutionNotifications": [notification],
        **sarif.identified(failure.identity),
    }
    return sarif.as_text(
        {
            "tool": {"driver": sarif.DRIVER},
            "invocations": [invocation],
            "results": [],
            "properties": dict(identity_properties(failure.identity)),
        }
    )


#: The formats that have something to say of an audit that did not run.
STANDS: dict[str, Stand] = {
    "markdown": Stand(render_summary, _SUMMARY),
    "comment": Stand(render_comment, re.compile(re.escape(MARK))),
    "junit": Stand(render_junit, _XML),
    "sarif": Stand(render_sarif, _SARIF),
}


__all__ = ["STANDS", "Stand", "WithoutAudit"]
