"""A provider that is not there: the CPU under another name, with what it was given and how it fails set by a test."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import onnxruntime
import pytest
from onnxruntime.capi import onnxruntime_pybind11_state as native

#: Skips where the runtime keeps no record of where nodes are: before 1.24.
needs_record = pytest.mark.skipif(
    not hasattr(onnxruntime.InferenceSession, "get_provider_graph_assignment_info"),
    reason=f"ONNX Runtime {onnxruntime.__version__} does not tell where nodes are",
)

CPU, OPENVINO = "CPUExecutionProvider", "OpenVINOExecutionProvider"


@dataclass(frozen=True)
class Node:
    """As ONNX Runtime's own record of a node."""

    op_type: str
    name: str
    domain: str = ""


@dataclass(frozen=True)
class Part:
    """As ONNX Runtime's own record of nodes that a provider was given."""

    ep_name: str
    nodes: tuple[Node, ...]

    def get_nodes(self) -> tuple[Node, ...]:
        return self.nodes


@dataclass
class Pretended:
    """What the pretended OpenVINO does.

    Attributes:
        leaves: Kinds of nodes that it leaves to the CPU; None for all.
        tells: Whether the runtime tells where nodes are.
        fails_at: Calls after which each one fails; None for never.
        error: What they raise.
        calls: How many there were.
        opened: Sessions that were opened, with the providers that each was asked for.
    """

    leaves: frozenset[str] | None = frozenset()
    tells: bool = True
    fails_at: int | None = None
    error: BaseException = field(default_factory=lambda: native.EPFail("[ONNXRuntimeError] : 11 : EP_FAIL : the device broke"))
    calls: int = 0
    opened: list[tuple[str, ...]] = field(default_factory=list)

    def called(self) -> None:
        self.calls += 1
        if self.fails_at is not None and self.calls > self.fails_at:
            raise self.error


def pretend(monkeypatch: Any, **what: Any) -> Pretended:
    """Let this process believe that ONNX Runtime has OpenVINO."""
    state = Pretended(**what)
    real = onnxruntime.InferenceSession

    class Session(real):  # type: ignore[misc, valid-type]
        def __init__(self, source, options, providers=None, **others):
            self.names = [p[0] for p in providers]
            state.opened.append(tuple(self.names))
            super().__init__(source, options, providers=[CPU], **others)

        def get_providers(self):
            return self.names

        def get_provider_graph_assignment_info(self):
            if not state.tells:
                raise RuntimeError("not recorded")
            found = []
            for part in super().get_provider_graph_assignment_info():
                nodes = tuple(Node(n.op_type, n.name, n.domain) for n in part.get_nodes())
                here = OPENVINO in self.names and state.leaves is not None and not {n.op_type for n in nodes} & state.leaves
                found.append(Part(OPENVINO if here else CPU, nodes))
            return found

        def run(self, *given, **others):
            if OPENVINO in self.names:
                state.called()
            return super().run(*given, **others)

        def run_with_iobinding(self, *given, **others):
            if OPENVINO in self.names:
                state.called()
            return super().run_with_iobinding(*given, **others)

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [OPENVINO, CPU])
    return state


def kinds(placed: Any, provider: str) -> Counter[str]:
    """Nodes of a provider by kind."""
    return Counter({op: n for p in placed if p.provider == provider for op, n in p.operators.items()})
