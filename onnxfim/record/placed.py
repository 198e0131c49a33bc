"""Which nodes of a model a provider was given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from onnxfim.record.limits import ALWAYS, Count

_COPIES = "Memcpy"


@dataclass(frozen=True)
class Placed:
    """Nodes that ONNX Runtime assigned to one provider when it opened the model; it may fuse or fold some of them afterwards.

    Attributes:
        provider: Full name.
        nodes: How many.
        operators: How many of each kind, most frequent first; ``MemcpyToHost`` and ``MemcpyFromHost`` are copies between devices.
        asked: Whether this provider was asked for; where none was named, the first of the session is.
        compute: Compute nodes by kind: those that values of a sample flow through, not shapes or constants alone. None where one
            provider was given all nodes and they were not told apart.
    """

    provider: str
    nodes: Count
    operators: Mapping[str, Count]
    asked: bool = field(default=True, metadata=ALWAYS)
    compute: Mapping[str, Count] | None = field(default=None, metadata=ALWAYS)

    @property
    def copies(self) -> int:
        """Copies between memories of devices; they are among ``nodes``."""
        return sum(n for op, n in self.operators.items() if op.startswith(_COPIES))

    @property
    def computing(self) -> int:
        """Compute nodes; all that are no copies where they were not told apart."""
        return self.nodes - self.copies if self.compute is None else sum(self.compute.values())

    def kinds(self, most: int = 8, *, compute: bool = False) -> str:
        """Kinds of nodes in words: ``Conv 9, Relu 7 and 3 other kinds``; with ``compute`` those of compute nodes."""
        operators = self.compute if compute and self.compute is not None else self.operators
        told = [f"{op} {n:,}" for op, n in operators.items()]
        more = len(told) - most
        return ", ".join(told[:most]) + (f" and {more} other kind{'s' if more > 1 else ''}" if more > 0 else "")
