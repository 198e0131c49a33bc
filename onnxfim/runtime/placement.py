"""Where ONNX Runtime put the nodes of a model, and which of them compute on a sample's values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx

#: The setting of a session that makes it remember where nodes went; ONNX Runtime before 1.24 ignores it.
RECORD = "session.record_ep_graph_assignment_info"

_COPY = "Memcpy"  # operators that copy between memories of devices begin so
_MOST_KINDS = 8  # in a message
# These turn a value into its shape: what is made of their results alone is the same for all samples of that shape.
_SHAPES = frozenset({"Shape", "Size"})
# Kinds that shape arithmetic consists of, for nodes that the file does not have under that name.
_USUAL_IN_SHAPES = frozenset({
    "Shape", "Size", "Constant", "ConstantOfShape", "Range", "Gather", "Squeeze", "Unsqueeze", "Concat", "Slice", "Cast", "Reshape",
    "Expand", "Equal", "Where", "NonZero", "Identity", "Floor", "Ceil",
})  # fmt: skip


@dataclass(frozen=True)
class AssignedNode:
    """A node as the runtime tells it: the provider, its operator (with its domain, but for ONNX's own) and its name."""

    provider: str
    operator: str
    name: str


@dataclass(frozen=True)
class OnProvider:
    """The nodes that one provider was given; `record.placed.Placed` tells what the fields are."""

    provider: str
    nodes: int
    operators: Mapping[str, int]
    asked: bool
    compute: Mapping[str, int] | None

    @property
    def computing(self) -> int:
        """Compute nodes; all that are no copies where they were not told apart."""
        kinds = self.operators if self.compute is None else self.compute
        return sum(n for operator, n in kinds.items() if not operator.startswith(_COPY))


@dataclass(frozen=True)
class Placement:
    """Where the nodes of a model went, in the order of the session's providers; providers without a node are not in it."""

    placed: tuple[OnProvider, ...]

    @property
    def total(self) -> int:
        """Compute nodes of all providers."""
        return sum(p.computing for p in self.placed)

    @property
    def elsewhere(self) -> tuple[OnProvider, ...]:
        """Providers with compute nodes that were not asked for."""
        return tuple(p for p in self.placed if p.computing and not p.asked)

    @property
    def first(self) -> str | None:
        """The first provider that computes; None where no node is known."""
        computing = [p for p in self.placed if p.computing] or list(self.placed)
        return computing[0].provider if computing else None

    def told(self, parts: Sequence[OnProvider] | None = None) -> str:
        """Where compute nodes lie, in words: ``3 of 21 compute nodes went to CPUExecutionProvider (Conv 2, Relu 1)``."""
        shown = [p for p in self.placed if p.computing] if parts is None else parts
        went = f"of {self.total} compute nodes went to"
        return " and ".join(f"{p.computing} {went} {p.provider} ({kinds_told(p.compute or p.operators)})" for p in shown)


def kinds_told(operators: Mapping[str, int]) -> str:
    """``Conv 9, Relu 7 and 3 other kinds``."""
    told = [f"{op} {n}" for op, n in operators.items()]
    more = len(told) - _MOST_KINDS
    return ", ".join(told[:_MOST_KINDS]) + (f" and {more} other kinds" if more > 0 else "")


def placement(session: Any, model: Path | bytes, asked: Iterable[str] = ()) -> Placement | None:
    """Where the nodes of an open session are; None where this ONNX Runtime does not tell.

    A **compute node** is one that values of a sample flow through. Shape arithmetic and constants, which CUDA keeps on the CPU on
    purpose, are not: they are found by following the model's inputs through its graph, where ``Shape`` and ``Size`` end the way.

    Args:
        session: Opened with `RECORD` set.
        model: What it was opened from; read only where several providers have nodes.
        asked: Full names of the providers that were asked for; the session's first where there are none.
    """
    nodes = assigned(session)
    if nodes is None:
        return None
    providers = tuple(session.get_providers())
    named = frozenset(asked) or frozenset(providers[:1])
    whole = Counter(n.provider for n in nodes)
    order = [*(p for p in providers if p in whole), *(p for p in whole if p not in providers)]
    judge = None if len(whole) < 2 and named.issuperset(whole) else _ComputeJudge.of(model)
    found = []
    for provider in order:
        own = [n for n in nodes if n.provider == provider]
        compute = None if judge is None else _counted(n.operator for n in own if judge.computes(n))
        found.append(OnProvider(provider, len(own), _counted(n.operator for n in own), provider in named, compute))
    return Placement(tuple(found))


def assigned(session: Any) -> list[AssignedNode] | None:
    """Every node with its provider; None where the runtime keeps no such record (before 1.24, or in a reduced build)."""
    tell = getattr(session, "get_provider_graph_assignment_info", None)
    if tell is None:
        return None
    try:
        return [
            AssignedNode(part.ep_name, f"{n.domain}.{n.op_type}" if n.domain not in ("", "ai.onnx") else n.op_type, n.name)
            for part in tell()
            for n in part.get_nodes()
        ]
    except Exception:  # noqa: BLE001 - not told: that is then what is said
        return None


def _counted(operators: Iterable[str]) -> Mapping[str, int]:
    return dict(Counter(operators).most_common())


@dataclass(frozen=True)
class _ComputeJudge:
    """Tells compute nodes from those of shapes and constants, by the file's own nodes.

    Attributes:
        by_name: Whether a node of that operator and name computes.
        by_kind: Whether nodes of that operator do, where all of the file are alike.
    """

    by_name: Mapping[tuple[str, str], bool]
    by_kind: Mapping[str, bool]

    @classmethod
    def of(cls, model: Path | bytes) -> _ComputeJudge:
        """Of a model; one that cannot be read is judged by the kinds of its nodes alone."""
        import onnx

        try:
            content = model if isinstance(model, bytes) else model.read_bytes()
            proto = onnx.load_model_from_string(content)
        except Exception:  # noqa: BLE001 - the runtime took it, in a format of its own perhaps
            return cls({}, {})
        judged = _judged(proto.graph, {i.name for i in proto.graph.input} - {t.name for t in proto.graph.initializer})
        kinds: dict[str, set[bool]] = {}
        for (operator, _), computes in judged:
            kinds.setdefault(operator, set()).add(computes)
        return cls(dict(judged), {op: all(seen) for op, seen in kinds.items() if len(seen) == 1})

    def computes(self, node: AssignedNode) -> bool:
        if node.operator.startswith(_COPY) or node.operator in _SHAPES:
            return False
        known = self.by_name.get((node.operator, node.name)) if node.name else None
        if known is None:
            known = self.by_kind.get(node.operator)
        return node.operator not in _USUAL_IN_SHAPES if known is None else known


def _judged(graph: onnx.GraphProto, flowing: set[str]) -> list[tuple[tuple[str, str], bool]]:
    """((operator, name), whether values flow through it) of every node, those of subgraphs among them; adds to ``flowing``."""
    found = []
    for node in graph.node:
        operator = f"{node.domain}.{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type
        bodies = [b for a in node.attribute for b in ((a.g,) if a.HasField("g") else a.graphs)]
        reached = any(i in flowing for i in _read(node, bodies))
        computes = reached and operator not in _SHAPES
        found.append(((operator, node.name), computes))
        for body in bodies:
            if reached:  # what a loop is handed may come from any of its inputs
                flowing.update(i.name for i in body.input)
            found += _judged(body, flowing)
        if computes:
            flowing.update(o for o in node.output if o)
    return found


def _read(node: onnx.NodeProto, bodies: Sequence[onnx.GraphProto]) -> list[str]:
    """Values that a node reads, those that its subgraphs take from outside among them."""
    names = [i for i in node.input if i]
    for body in bodies:
        for inner in body.node:
            names += _read(inner, [b for a in inner.attribute for b in ((a.g,) if a.HasField("g") else a.graphs)])
    return names
