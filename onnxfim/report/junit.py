"""An audit as JUnit XML: one case for the verdict, one per gate, one per check that was or was not made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from onnxfim.record.audit import Audit
from onnxfim.record.dates import is_date
from onnxfim.record.decision import Finding, Verdict
from onnxfim.record.foreign_text import visible
from onnxfim.record.identity import Identity
from onnxfim.record.measures import STATISTICS
from onnxfim.report.decisions import gates
from onnxfim.report.guarantee_figures import guaranteed_figures
from onnxfim.report.identity_words import changed_settings, identity_properties
from onnxfim.report.whereabouts import placement_lines
from onnxfim.report.words import headline
from onnxfim.verdict.findings import checks

_NOT_XML = {0xFFFE: "\ufffd", 0xFFFF: "\ufffd"}  # the two of the basic plane that XML 1.0 cannot hold


def render_junit(audit: Audit) -> str:
    """``audit`` as JUnit XML text (Jenkins' xunit-plugin schema, junit-10).

    A failed gate is a ``failure``, a finding that makes the audit unsound an ``error``; what could not be decided or made is
    ``skipped``, with a message that begins ``inconclusive`` or ``not run``, and so is the verdict where nothing was to be passed
    (``measured``): it is not green. Numbers stand among the suite's properties.
    """
    suite = Element("testsuite", name=xml_safe(f"onnxfim {audit.model.name}"))
    add_properties(suite, _properties(audit))
    suite.append(_decided("onnxfim", "verdict", audit.verdict, visible(headline(audit))))
    for gate in gates(audit):
        suite.append(_decided("onnxfim.gates", gate.text, gate.verdict, gate.message))
    for check, found in checks(audit):
        suite.append(_check(check.id, found, check.obstacle(audit)))
    tags = {"failures": "failure", "errors": "error", "skipped": "skipped"}
    counts = {"tests": str(len(suite.findall("testcase")))}
    counts |= {name: str(len(suite.findall(f"testcase/{tag}"))) for name, tag in tags.items()}
    suites = Element("testsuites", name="onnxfim")
    for name, value in counts.items():
        suite.set(name, value)
        if name != "skipped":  # the schema has no such count here
            suites.set(name, value)
    suite.set("time", f"{audit.run.seconds:.3f}")
    date_and_place(suite, audit.identity)
    suites.append(suite)
    return as_text(suites)


def as_text(suites: Element) -> str:
    """The file of ``suites``."""
    indent(suites)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + tostring(suites, encoding="unicode") + "\n"


def date_and_place(suite: Element, identity: Identity | None) -> None:
    """Put into ``suite`` when and on which host it was made, where that is known."""
    if identity is not None and identity.date is not None and is_date(identity.date):
        suite.set("timestamp", identity.date)
    if identity is not None and identity.host:
        suite.set("hostname", xml_safe(identity.host))


def add_properties(suite: Element, properties: Iterable[tuple[str, str]]) -> None:
    """Put names and values into ``suite`` as its properties; no more than one such list."""
    found = SubElement(suite, "properties")
    for name, value in properties:
        SubElement(found, "property", name=xml_safe(name), value=xml_safe(value))


def _properties(audit: Audit) -> Iterator[tuple[str, str]]:
    yield "verdict", audit.verdict
    yield from identity_properties(audit.identity)
    yield "model", audit.model.path
    yield "model.sha256", audit.model.sha256
    yield "data.sha256", audit.data.sha256
    yield "provider", audit.run.provider
    for name, text in placement_lines(audit):
        yield f"placement.{name}", text
    yield from ((f"version.{name}", version) for name, version in sorted(audit.run.versions.items()))
    yield from ((f"setting.{name}", value) for name, value in changed_settings(audit.settings))
    yield "units", audit.units
    if audit.calibration.accuracy is not None:
        yield "clean_accuracy", repr(audit.calibration.accuracy)
    for measure, statistics in audit.aggregates.items():
        for statistic in (s.name for s in STATISTICS):
            value = getattr(statistics, statistic)
            for end in ("value", "low", "high"):
                if (number := getattr(value, end)) is not None:
                    yield f"{measure}.{statistic}" + ("" if end == "value" else f".{end}"), repr(number)
    for f in guaranteed_figures(audit):
        for name, told in ((f.name, f.value), (f"{f.name}.low", f.low), (f"{f.name}.high", f.high)):
            if told is not None:
                yield name, repr(float(told))


def _case(where: str, name: str) -> Element:
    return Element("testcase", classname=where, name=xml_safe(name), time="0")


def _decided(where: str, name: str, verdict: Verdict, message: str) -> Element:
    case = _case(where, name)
    if verdict == "fail":
        SubElement(case, "failure", type="gate", message=xml_safe(message)).text = xml_safe(message)
    elif verdict != "pass":
        SubElement(case, "skipped", type=verdict, message=xml_safe(f"{verdict}: {message}"))
    elif message:
        SubElement(case, "system-out").text = xml_safe(message)
    return case


def _check(name: str, found: tuple[Finding, ...], obstacle: str | None) -> Element:
    case = _case("onnxfim.findings", name)
    if not found and obstacle is not None:
        SubElement(case, "skipped", type="not run", message=f"not run: {obstacle}")
    for finding in found:
        message = xml_safe(visible(finding.message))
        if finding.level == "error":
            SubElement(case, "error", type=finding.level, message=message).text = message
        else:  # a warning is told and fails nothing
            SubElement(case, "system-out").text = f"{finding.level}: {message}"
    return case


def xml_safe(text: str) -> str:
    """Foreign text without what XML 1.0 cannot hold."""
    return visible(text).translate(_NOT_XML)
