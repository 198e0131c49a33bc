"""Which of a file's heads is meant: the named one, several, or the one that a classifier's file leads with."""

from __future__ import annotations

from collections.abc import Sequence

from onnxfim.errors import InputError
from onnxfim.graph.detections import is_scores
from onnxfim.graph.graph import TensorInfo
from onnxfim.graph.heads import Head, heads, main_head
from onnxfim.graph.load import ModelFile

_ALL = "all"
_TOLD = 8  # names in a message


def heads_of(file: ModelFile) -> tuple[Head, ...]:
    """All outputs of a file, as `heads`; inputs that are held in a copy of it are known still."""
    return heads(file.graph, [TensorInfo(r.name, r.dtype, r.shape) for r in file.roles] or file.graph.inputs)


def choose_heads(file: ModelFile, name: str | None, *, scores: bool = False) -> tuple[Head, ...]:
    """The heads to audit: one, or several where several are named or all are asked for.

    Args:
        file: The model.
        name: What was asked for: an output, several with commas between them, ``all``, or None.
        scores: A detector's scores are meant, not boxes.

    Raises:
        InputError: an unknown name, an output that cannot be read, or none that can.
    """
    found = heads_of(file)
    if name is not None:
        return tuple(_readable(file, found, head) for head in _named(file, found, name))
    if scores and (told := [h for h in found if h.role == "head" and is_scores(h.name)]):
        return (told[0],)
    main = main_head(found)
    if main is not None:
        return (main,)
    told_outputs = ", ".join(f"{h.name!r} ({h.value.dtype})" for h in found[:_TOLD])
    why = "".join(f" Of {h.name!r}, {h.how}." for h in found if h.role == "unread")
    raise InputError(
        f"{file.path}: no output is a floating-point tensor (found {told_outputs}).{why} Export scores, logits or probabilities; "
        "with skl2onnx use options={'zipmap': False}."
    )


def _named(file: ModelFile, found: Sequence[Head], name: str) -> list[Head]:
    """The heads of that name; exact names come before `all` and lists."""
    own = [h for h in found if h.name == name] or [h for h in found if name in h.outputs]
    if own:
        return own
    if name == _ALL:
        every = [h for h in found if h.role == "head"]
        if every:
            return every
    if "," in name:
        parts = [part.strip() for part in name.split(",") if part.strip()]
        return list({h.name: h for part in parts for h in _named(file, found, part)}.values())
    import difflib  # for a message alone

    names = [h.name for h in found]
    near = difflib.get_close_matches(name, names, 1)
    hint = f"Did you mean {near[0]!r}?" if near else f"Use one of: {', '.join(names[:_TOLD])}{', …' if len(names) > _TOLD else ''}."
    raise InputError(f"{file.path}: no output is called {name!r}. {hint}")


def _readable(file: ModelFile, found: Sequence[Head], head: Head) -> Head:
    """The head, where there are numbers to be read of it."""
    good = [repr(h.name) for h in found if h.role not in ("labels", "unread")]
    instead = f"Name {' or '.join(good[:_TOLD])}." if good else "Export scores, logits or probabilities."
    if head.role == "unread":
        raise InputError(f"{file.path}: output {head.name!r} cannot be read: {head.how}, expected a tensor of floats. {instead}")
    shape = head.value.shape
    if head.role == "labels" and (head.value.dtype in ("object", "str", "bool") or (shape is not None and len(shape) < 2)):
        raise InputError(
            f"{file.path}: output {head.name!r} holds {_type(head)} of shape {_shape(head)}: class labels, which have no "
            f"slope, expected scores of each class. {instead}"
        )
    return head


def _type(head: Head) -> str:
    return "text" if head.value.dtype in ("object", "str") else head.value.dtype


def _shape(head: Head) -> str:
    shape = head.value.shape
    return "?" if shape is None else f"({', '.join('N' if n is None else str(n) for n in shape)})"
