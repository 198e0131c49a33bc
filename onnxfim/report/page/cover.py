"""What a report is called and who made it when: the head of the page, and the title page of its print."""

from __future__ import annotations

from onnxfim.record.audit import Audit
from onnxfim.record.foreign_text import visible
from onnxfim.report.identity_words import command_text, date_text, identity_line, note_lines, running_line
from onnxfim.report.numbers import count
from onnxfim.report.page.view import Fact
from onnxfim.report.page.whole import Cover
from onnxfim.report.served_words import hash_name


def cover(audit: Audit) -> Cover:
    """The title page of ``audit``; what was not recorded is left out."""
    identity = audit.identity
    name = visible(audit.model.name or audit.model.path)
    title = visible(identity.title) if identity and identity.title else name
    facts = [
        Fact("Model", name),
        *([] if audit.model.served is None else [Fact("Served at", visible(audit.model.served.address), code=True)]),
        Fact(_hash(audit), visible(audit.model.sha256), code=True),
        Fact("Data", f"{count(len(audit.samples), 'sample')} of {visible(audit.data.source)}"),
        Fact("SHA-256 of the data", visible(audit.data.sha256), code=True),
    ]
    line = identity_line(identity, {})
    if identity is not None:
        if identity.date:
            facts.append(Fact("Date", visible(date_text(identity))))
        if identity.report_id:
            facts.append(Fact("Report id", visible(identity.report_id), code=True))
        if identity.command:
            facts.append(Fact("Command", visible(command_text(identity)), code=True))
        if identity.host:
            facts.append(Fact("Host", visible(identity.host)))
        facts += [Fact(visible(key), visible(value)) for key, value in identity.meta]
    version = audit.run.versions.get("onnxfim")
    if version is not None:
        facts.append(Fact("Made by", f"onnxfim {visible(str(version))}"))
    return Cover(
        heading=title,
        line=" · ".join(filter(None, (name if title != name else "", line))),
        note=note_lines(identity),
        facts=tuple(facts),
        running=running_line(title, identity),
    )


def _hash(audit: Audit) -> str:
    """What the model's hash is called."""
    return "SHA-256 of the model" if audit.model.served is None else hash_name(audit.model)
