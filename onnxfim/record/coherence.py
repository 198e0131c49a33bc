"""What the fields of an audit must say together, beyond the type and the limits of each."""

from __future__ import annotations

from onnxfim.record.audit import Audit


def require_coherent(audit: Audit) -> None:
    """Raise where parts of a saved audit contradict one another so that nothing can be shown of it.

    Raises:
        Misfit: the first of them, by its path.
    """
