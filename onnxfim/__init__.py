"""Robustness auditor for ONNX models: the largest eigenvalue of the input Fisher information.

``audit(model, inputs, labels)`` measures, ``Audit.to_json()`` and ``render_html(audit)`` render.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnxfim.audit import audit
    from onnxfim.errors import OnnxFimError
    from onnxfim.report import render_html
    from onnxfim.results import Audit, Settings
    from onnxfim.subject import from_callable

__version__ = "0.1.0"
__all__ = ["Audit", "OnnxFimError", "Settings", "__version__", "audit", "from_callable", "render_html"]

_HOMES = {
    "Audit": "onnxfim.results",
    "OnnxFimError": "onnxfim.errors",
    "Settings": "onnxfim.results",
    "audit": "onnxfim.audit",
    "from_callable": "onnxfim.subject",
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
