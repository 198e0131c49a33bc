"""Robustness auditor for ONNX models: the largest eigenvalue of the input Fisher information.

``audit(model, inputs, labels)`` measures; ``Audit.save`` and ``render_html`` write; ``check`` decides; ``compare`` ranks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnxfim.record.shown import shown_by

if TYPE_CHECKING:
    from onnxfim.auditing.api import audit_isolated, bounds, check, inspect, load_samples
    from onnxfim.auditing.meter import Progress
    from onnxfim.auditing.run import audit
    from onnxfim.auditing.served_model import from_url
    from onnxfim.auditing.subject import from_callable
    from onnxfim.data.samples import Samples
    from onnxfim.errors import InputError, ModelError, OnnxFimError, OutputError, ProviderError, SettingsError, UnsupportedOperator
    from onnxfim.record.audit import Audit
    from onnxfim.record.settings import Settings
    from onnxfim.report.dossier import write_dossier
    from onnxfim.report.html import render_html
    from onnxfim.verdict.compare import compare
    from onnxfim.verdict.suggest import suggest

__version__ = "0.1.0"

# Every public name and the module that holds it; each is imported when it is asked for, so that `onnxfim --help` waits for nothing.
_HOMES = {
    "audit": "onnxfim.auditing.run",
    "audit_isolated": "onnxfim.auditing.api",
    "bounds": "onnxfim.auditing.api",
    "check": "onnxfim.auditing.api",
    "compare": "onnxfim.verdict.compare",
    "from_callable": "onnxfim.auditing.subject",
    "from_url": "onnxfim.auditing.served_model",
    "inspect": "onnxfim.auditing.api",
    "load_samples": "onnxfim.auditing.api",
    "render_html": "onnxfim.report.html",
    "write_dossier": "onnxfim.report.dossier",
    "suggest": "onnxfim.verdict.suggest",
    "Audit": "onnxfim.record.audit",
    "Progress": "onnxfim.auditing.meter",
    "Samples": "onnxfim.data.samples",
    "Settings": "onnxfim.record.settings",
    **dict.fromkeys(
        ("OnnxFimError", "InputError", "ModelError", "OutputError", "ProviderError", "SettingsError", "UnsupportedOperator"),
        "onnxfim.errors",
    ),
}
# A record knows nothing of the wings above it: who shows it in a notebook is told here.
shown_by(
    card="onnxfim.report.notebook:card", frame="onnxfim.report.frames:frame", figures="onnxfim.report.figures:figures",
    plot="onnxfim.report.plotting:plot",
)  # fmt: skip
__all__ = [
    "Audit", "InputError", "ModelError", "OnnxFimError", "OutputError", "Progress", "ProviderError", "Samples", "Settings",
    "SettingsError", "UnsupportedOperator", "__version__", "audit", "audit_isolated", "bounds", "check", "compare", "from_callable",
    "from_url", "inspect", "load_samples", "render_html", "suggest", "write_dossier",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        value = getattr(import_module(_HOMES[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'onnxfim' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
