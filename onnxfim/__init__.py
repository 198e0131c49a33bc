"""Robustness auditor for ONNX models: the largest eigenvalue of the input Fisher information.

``audit(model, inputs, labels)`` measures, ``Audit.to_json()`` and ``render_html(audit)`` render.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnxfim.auditing.run import audit
    from onnxfim.auditing.subject import from_callable
    from onnxfim.errors import OnnxFimError
    from onnxfim.record.audit import Audit
    from onnxfim.record.settings import Settings
    from onnxfim.report import render_html

__version__ = "0.1.0"
__all__ = ["Audit", "OnnxFimError", "Settings", "__version__", "audit", "from_callable", "render_html"]

_HOMES = {
    "Audit": "onnxfim.record.audit",
    "OnnxFimError": "onnxfim.errors",
    "Settings": "onnxfim.record.settings",
    "audit": "onnxfim.auditing.run",
    "from_callable": "onnxfim.auditing.subject",
    "render_html": "onnxfim.report",
}


def __getattr__(name: str) -> Any:
    # Lazy, so that `onnxfim --help` does not wait for the runtime.
    if name in _HOMES:
        from importlib import import_module

        value = getattr(import_module(_HOMES[name]), name)
        globals()[name] = value  # a function wins over the module of the same name
        return value
    raise AttributeError(f"module 'onnxfim' has no attribute {name!r}")
