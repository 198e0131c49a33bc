"""A file's outputs as heads: which value is read for each, what its last nodes make of it, and which of them tell the same.

`inspect`, `bounds` and `audit` all ask here what an output is called, and which one is meant.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from onnxfim.graph.detections import boxes_beside_scores, boxes_by_shape, is_boxes, is_scores, suppression
from onnxfim.graph.ends import LAYERS, TRANSPARENT, ending
from onnxfim.graph.graph import Dimension, Graph, Node, TensorInfo
from onnxfim.graph.making_probabilities import regressor
from onnxfim.graph.shares import makes_shares

#: What an output is among the others: a ``head`` tells something of its own; the ``same`` and ``derived`` ones follow from another
#: head without weights; ``features`` are what another head is computed of; ``state`` is what a later call takes as an input;
#: ``boxes`` are a detector's; ``labels`` are integers or text; ``unread`` ones hold no tensor that can be read.
Role: TypeAlias = Literal["head", "same", "derived", "features", "state", "boxes", "labels", "unread"]
#: How a head's values come out of the file's outputs: as they are, as maps from class to value, as one element of a sequence, as
#: the pieces of a sequence, or as one output for each class.
Form: TypeAlias = Literal["tensor", "map", "element", "pieces", "columns"]

_MANY = 64  # float outputs beyond which they are debugging outputs: no roles are sought among them
_CUTS = ("Slice", "Split", "Gather", "ai.onnx.ml.ArrayFeatureExtractor")
_LABELS = ("classlabels_strings", "classlabels_int64s", "classlabels_ints")
_SECOND = re.compile(r"(^|[^a-z])aux(iliary|logits)?([^a-z]|$)", re.IGNORECASE)
_EMBEDS, _MEANS, _DETECTS, _LOGITS = "embedding", "gaussian", "detection", "logits"
_ACTIVATED = frozenset({"probabilities", "sigmoid"})
_EMBEDDING = re.compile(r"embed|pooler|hidden_?state|(^|[^a-z])feat(ure)?s?([^a-z]|$)", re.IGNORECASE)
_STATE = re.compile(
    r"states?|hidden|cell|cache|memory|past|present|(^|[^a-z])[hc](_?(n|0|t|in|out|prev|next))?(_?\d+)?([^a-z]|$)", re.IGNORECASE
)
_REGRESSION = re.compile(r"variable\d*")  # what skl2onnx calls the outputs of regressors
_PLAIN_ML = frozenset(f"ai.onnx.ml.{op}" for op in ("ZipMap", "Normalizer", "ArrayFeatureExtractor", "Scaler", "LabelEncoder"))


@dataclass(frozen=True)
class Head:
    """One output, or several that belong together, and the value that is read for it.

    Attributes:
        name: What it is called: the output's own name, or those of all its columns.
        value: The value that is read: its name in the graph, element type and shape.
        outputs: The file's outputs that it comes out as.
        kind: What the last nodes make: ``logits``, ``probabilities``, ``sigmoid``, ``detection`` or ``embedding``; None of labels,
            of states and of what cannot be read.
        node: The node that decides it, None where that is plain arithmetic.
        role: What it is among the others.
        of: The head that it follows from, or that is computed of it; of a state the input that takes it; None where there is none.
        form: How its values come out of the outputs.
        element: Which element of a sequence.
        axis: Along which a sequence's pieces lie.
        how: Why the value is not the output itself, or why none can be read, in words.
        classes: Names of the classes, where the graph gives them.
    """

    name: str
    value: TensorInfo
    outputs: tuple[str, ...]
    kind: str | None = None
    node: str | None = None
    role: Role = "head"
    of: str | None = None
    form: Form = "tensor"
    element: int = 0
    axis: int = 0
    how: str | None = None
    classes: tuple[str, ...] | None = None

    @property
    def embeds(self) -> bool:
        """Whether it is called, or made, as embeddings are."""
        return self.kind == _EMBEDS

    @property
    def regresses(self) -> bool:
        """Whether it is called, or made, as the means of a regression are."""
        return self.role == "head" and self.kind == _MEANS

    @property
    def detects(self) -> bool:
        """Whether it holds a detector's boxes beside scores."""
        return self.kind == _DETECTS

    @property
    def holds_probabilities(self) -> bool:
        """Whether it holds probabilities, which are not bounded as logits are."""
        return self.kind in _ACTIVATED

    @property
    def looked_through(self) -> bool:
        """Whether another value than an output of the file is read."""
        return self.form != "tensor"

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Names of the classes, where these are more than their numbers 0, 1, 2, …"""
        return None if self.classes is None or self.classes == tuple(map(str, range(len(self.classes)))) else self.classes


def heads(graph: Graph, inputs: Sequence[TensorInfo] | None = None) -> tuple[Head, ...]:
    """All outputs in the file's order, with what each is among the others; ``inputs`` are the file's, of a copy that lacks some."""
    found = _joined(graph, [h for o in graph.outputs for h in _read(graph, o)])
    floats = [h for h in found if h.role == "head"]
    states = _states(graph.inputs if inputs is None else inputs, floats)
    if 0 < len(states) < len(floats):
        found = [replace(h, role="state", of=states[h.name]) if h.name in states else h for h in found]
        floats = [h for h in floats if h.name not in states]
    roles = _roles(graph, floats) if 1 < len(floats) <= _MANY else {}
    return tuple(_told(graph, replace(h, role=roles[h.name][0], of=roles[h.name][1]) if h.name in roles else h) for h in found)


def main_head(found: Sequence[Head]) -> Head | None:
    """The head that is audited where none is named; None where there is none.

    The first one of its own, auxiliary heads and single numbers that may be anything coming after the others.
    """
    own = [h for h in found if h.role == "head"]
    return min(own, key=lambda h: (bool(_SECOND.search(h.name)), _may_be_anything(h)), default=None)


def _may_be_anything(head: Head) -> bool:
    shape = head.value.shape
    return head.kind in (_LOGITS, _MEANS) and shape is not None and (len(shape) == 1 or (len(shape) == 2 and shape[1] == 1))


def class_labels(graph: Graph, value: str) -> tuple[str, ...] | None:
    """Names of the classes of a value, where a classifier or ZipMap near it gives them."""
    for _ in range(8):
        node = graph.producers.get(value)
        if node is None or not node.inputs:
            return None
        if (names := _labels_of(node)) is not None:
            return names
        if node.op not in TRANSPARENT | _PLAIN_ML:
            return None
        value = node.inputs[0]
    return None


def _labels_of(node: Node) -> tuple[str, ...] | None:
    for key in _LABELS:
        labels = node.attributes.get(key)
        if isinstance(labels, tuple) and labels:
            return tuple(map(str, labels))
    return None


def _read(graph: Graph, output: TensorInfo) -> list[Head]:
    """The heads that one output holds."""
    own = (output.name,)
    if output.dtype.startswith(("float", "bfloat")):
        return [Head(output.name, output, own, classes=class_labels(graph, output.name))]
    if output.dtype != "unknown":
        return [Head(output.name, output, own, role="labels", how=f"it holds {output.dtype} values")]
    node = graph.producers.get(output.name)
    while node is not None and node.op in ("Identity", "Optional") and node.inputs:
        node = graph.producers.get(node.inputs[0])
    made = "nothing in the graph" if node is None else f"{node.op.rpartition('.')[2]} (node {node.label!r})"
    if node is not None and node.op == "ai.onnx.ml.ZipMap":
        classes = _labels_of(node) or ()
        value = _inner(graph, node.inputs[0], len(classes) or None)
        return [Head(output.name, value, own, form="map", how=f"the tensor before {made}", classes=classes)]
    if node is not None and node.op == "SplitToSequence":
        axis = node.attributes.get("axis", 0)
        value = _inner(graph, node.inputs[0])
        return [
            Head(output.name, value, own, form="pieces", axis=axis if isinstance(axis, int) else 0, how=f"the tensor before {made}")
        ]
    if parts := _elements(graph, node):
        names = [output.name] if len(parts) == 1 else [f"{output.name}[{k}]" for k in range(len(parts))]
        return [
            Head(name, _inner(graph, part), own, form="element", element=k, how=f"element {k} of the sequence that {made} makes",
                 classes=class_labels(graph, part))
            for k, (name, part) in enumerate(zip(names, parts, strict=True))
        ]  # fmt: skip
    return [Head(output.name, output, own, role="unread", how=f"it is no tensor, and {made} makes it")]


def _elements(graph: Graph, node: Node | None) -> list[str]:
    """The tensors of a sequence in their order; empty where they are not told one by one."""
    if node is not None and node.op == "SequenceConstruct":
        return list(node.inputs)
    parts: list[str] = []
    while node is not None and node.op == "SequenceInsert" and len(node.inputs) == 2:  # one after the other
        parts.insert(0, node.inputs[1])
        node = graph.producers.get(node.inputs[0])
    return parts if node is not None and node.op == "SequenceEmpty" else []


def _inner(graph: Graph, name: str, classes: int | None = None) -> TensorInfo:
    known = graph.shapes.get(name)
    own = next((o.dtype for o in graph.outputs if o.name == name), "float32")
    return TensorInfo(name, own, known if known is not None else None if classes is None else (None, classes))


def _joined(graph: Graph, found: list[Head]) -> list[Head]:
    """Outputs of one class each, cut from one value, as one head."""
    cut: dict[str, list[Head]] = {}
    for head in found:
        if head.role == "head" and head.form == "tensor" and (source := _cut_from(graph, head)) is not None:
            cut.setdefault(source, []).append(head)
    labelled = any(h.role == "labels" for h in found)
    for source, columns in cut.items():
        shape = graph.shapes.get(source)
        count = shape[-1] if shape else None
        told = labelled or ending(graph, source).kind != "logits"
        if len(columns) < 2 or not told or (isinstance(count, int) and count != len(columns)):
            continue
        names = tuple(h.name for h in columns)
        joined = Head(
            ", ".join(names), TensorInfo(source, columns[0].value.dtype, (None, len(names))), names, form="columns",
            how=f"the {len(names)} outputs of one class each, which are cut from it", classes=class_labels(graph, source),
        )  # fmt: skip
        at = found.index(columns[0])
        found = [joined if k == at else h for k, h in enumerate(found) if k == at or h not in columns]
    return found


def _cut_from(graph: Graph, head: Head) -> str | None:
    """The value that an output of one number per sample is cut from; None where it is not."""
    shape = head.value.shape
    if shape is None or len(shape) > 2 or (len(shape) == 2 and shape[1] != 1):
        return None
    name, cut = head.value.name, False
    while (node := graph.producers.get(name)) is not None and node.inputs and node.op in (*TRANSPARENT, *_CUTS) and not cut:
        cut = node.op in _CUTS
        name = node.inputs[0]
    return name if cut else None


def _states(inputs: Sequence[TensorInfo], floats: Sequence[Head]) -> dict[str, str]:
    """Heads that are called like states and have the shape of an input that is too, each with that input: no two take one."""
    free = [i for i in inputs if i.dtype.startswith("float") and i.shape and _STATE.search(i.name)]
    found: dict[str, str] = {}
    for head in floats:
        if not _STATE.search(head.name):
            continue
        fits = [i for i in free if i.dtype == head.value.dtype and _alike(i.shape, head.value.shape)]
        if fits:
            found[head.name] = fits[0].name
            free.remove(fits[0])
    return found


def _alike(one: Sequence[Dimension] | None, other: Sequence[Dimension] | None) -> bool:
    """Whether two shapes may be one; sizes that are open may be any."""
    if one is None or other is None or len(one) != len(other):
        return False
    return all(a == b for a, b in zip(one, other, strict=True) if isinstance(a, int) and isinstance(b, int))


def _roles(graph: Graph, floats: Sequence[Head]) -> dict[str, tuple[Role, str | None]]:
    """What each head is among the others; nothing of those that stand for themselves."""
    cores = {h.name: _core(graph, h.value.name) for h in floats}
    groups: dict[str, list[Head]] = {}
    for head in floats:
        groups.setdefault(cores[head.name], []).append(head)
    first = {core: min(same, key=lambda h: ending(graph, h.value.name).node is not None) for core, same in groups.items()}
    upstream, nearest = _flows(graph, frozenset(first))
    roles: dict[str, tuple[Role, str | None]] = {}
    for core, head in first.items():
        near, free = nearest.get(core, (frozenset(), True))
        if len(near) == 1 and not free:
            roles[head.name] = ("derived", first[next(iter(near))].name)
    for core, head in first.items():
        later = [h for c, h in first.items() if core in upstream.get(c, ()) and h.name not in roles]
        if later and head.name not in roles:
            roles[head.name] = ("features", later[-1].name)
    boxes = [h for h in floats if is_boxes(h.name, h.value.shape)] or boxes_by_shape({h: h.value.shape for h in floats})
    if not boxes and any(is_scores(h.name) for h in floats):  # whose sizes the file leaves open
        boxes = [h for h in floats if is_boxes(h.name, None) and not any(isinstance(n, int) for n in (h.value.shape or ())[1:])]
    if 0 < len(boxes) < len(floats):
        roles |= {h.name: ("boxes", None) for h in boxes}
    for core, same in groups.items():
        roles |= {h.name: ("same", first[core].name) for h in same if h is not first[core]}
    return roles


def _core(graph: Graph, value: str) -> str:
    """The value that an output is another form of: its logits, before moves and casts."""
    name = ending(graph, value).logits or value
    while (node := graph.producers.get(name)) is not None and node.inputs and node.op in TRANSPARENT:
        name = node.inputs[0]
    return name


_Near: TypeAlias = tuple[frozenset[str], bool]


def _flows(graph: Graph, cores: frozenset[str]) -> tuple[dict[str, frozenset[str]], dict[str, _Near]]:
    """For each core: all cores that it is computed of; the next ones that it follows from without weights, and whether of more."""
    deps: dict[str, frozenset[str]] = {}
    near: dict[str, _Near] = {i.name: (frozenset(), True) for i in graph.inputs}
    upstream: dict[str, frozenset[str]] = {}
    nearest: dict[str, _Near] = {}
    none: frozenset[str] = frozenset()
    for node in graph.nodes:
        above = none.union(*(deps.get(i, none) | ({i} & cores) for i in node.inputs))
        said = [near[i] for i in node.inputs if i in near]
        here = (none.union(*(n for n, _ in said)), any(free for _, free in said))
        if node.has_subgraph or (said and _has_weights(node)):
            here = (none, True)
        for o in filter(None, node.outputs):
            deps[o] = above
            if said or node.has_subgraph:
                near[o] = here
            if o in cores:
                upstream[o], nearest[o] = above, here
                near[o] = (frozenset({o}), False)
    return upstream, nearest


def _has_weights(node: Node) -> bool:
    return node.op in LAYERS or (node.op.startswith("ai.onnx.ml.") and node.op not in _PLAIN_ML)


def _told(graph: Graph, head: Head) -> Head:
    """The head with what its last nodes make of it."""
    if head.role in ("labels", "state", "unread"):
        return head
    end = ending(graph, head.value.name)
    kind, node = end.kind, end.node
    if (beside := boxes_beside_scores(graph, head.value.name)) is not None:
        kind, node = _DETECTS, beside.node
    elif (last := suppression(graph, head.value.name)) is not None:
        kind, node = _DETECTS, last.label
    elif end.normalised or (kind == "logits" and node is None and _EMBEDDING.search(head.name)):
        kind, node = _EMBEDS, end.normalised
    elif head.role == "boxes":
        kind = _MEANS
    elif kind == "logits" and node is None and (shares := makes_shares(graph, head.value.name)) is not None:
        kind, node = "probabilities", shares
    elif kind == "logits" and node is None:
        node = regressor(graph, head.value.name, TRANSPARENT)
        kind = _MEANS if node is not None or _REGRESSION.fullmatch(head.name) else kind
    return replace(head, kind=kind, node=node)
