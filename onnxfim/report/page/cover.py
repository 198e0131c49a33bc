"""What a report is called and who made it when: the head of the page, and the title page of its print."""

from __future__ import annotations

import shlex

from onnxfim.record.audit import Audit
from onnxfim.record.foreign_text import visible
from onnxfim.report.numbers import count
from onnxfim.report.page.view import Fact
from onnxfim.report.page.whole import Cover

_SHORT = 12  # digits of a report's id that are printed on every sheet


def cover(audit: Audit) -> Cover:
    """The title page of ``audit``; what was not recorded is left out."""
    identity = audit.identity
    name = visible(audit.model.name or audit.model.path)
    title = visible(identity.title) if identity and identity.title else name
    facts = [
        Fact("Model", name),
        Fact("SHA-256 of the model", visible(audit.model.sha256), code=True),
        Fact("Data", f"{count(len(audit.samples), 'sample')} of {visible(audit.data.source)}"),
        Fact("SHA-256 of the data", visible(audit.data.sha256), code=True),
    ]
    line = []
    if identity is not None:
        if identity.date:
            facts.append(Fact("Date", visible(identity.date)))
            line.append(visible(identity.date))
        facts.append(Fact("Report", visible(identity.report_id), code=True))
        line.append(f"report {visible(identity.report_id[:_SHORT])}")
        if identity.command:
            facts.append(Fact("Command", visible(shlex.join(identity.command)), code=True))
        if identity.host:
            facts.append(Fact("Host", visible(identity.host)))
        facts += [Fact(visible(key), visible(value)) for key, value in identity.meta]
    version = audit.run.versions.get("onnxfim")
    if version is not None:
        facts.append(Fact("Made by", f"onnxfim {visible(str(version))}"))
    return Cover(
        heading=title,
        line=" · ".join([*([name] if title != name else []), *line]),
        note=visible(identity.note) if identity and identity.note else "",
        facts=tuple(facts),
        running=" · ".join([title, *line]),
    )
