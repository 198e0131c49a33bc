"""Several independent heads as one distribution: the Fisher informations of independent outputs add up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from onnxfim.auditing.description import class_axis
from onnxfim.auditing.finding_axes import OutputAxes
from onnxfim.auditing.opening_heads import Trials, View, copied, read_head
from onnxfim.errors import InputError, ModelError
from onnxfim.graph.ends import Ending, ending
from onnxfim.graph.head_copies import Pen, element_type, widened, yes_or_no
from onnxfim.graph.heads import Head
from onnxfim.record.settings import Settings
from onnxfim.runtime.output_layout import as_classes
from onnxfim.slopes.kinds import OutputReader, reader_of

Array: TypeAlias = np.ndarray[Any, Any]


_HOW = "as its heads are read; --output NAME audits one of them alone"


@dataclass(frozen=True)
class _Read:
    """A head as it is read: ``p`` are its probabilities (n, K, P) on the trial's samples, or its outputs where it has none."""

    head: Head
    reader: OutputReader
    end: Ending
    axis: int
    z: Array
    p: Array
    doubt: str | None


def stacked(trials: Trials, chosen: Sequence[Head], settings: Settings) -> View:
    """A copy whose one output holds all heads side by side: ``F = Σ_h F_h`` of independent heads.

    Choices among classes are the positions of (N, K, P), K the most that one has; where one has fewer, classes that cannot be are
    added. Heads of yes-or-no outputs alone, or of means of Gaussians alone, are joined along their one axis.

    Raises:
        InputError: heads that are no one distribution, or whose logits or axes cannot be read; a copy that gives others.
    """
    if settings.class_axis is not None or settings.batch_axis is not None:
        raise InputError(
            f"{trials.file.path}: --class-axis and --batch-axis are of one output, and {len(chosen)} are asked for. Name one with "
            "--output, or drop the axis."
        )
    reads = [_read(trials, head, settings) for head in chosen]
    name = ", ".join(h.name for h in chosen)
    kinds = {(r.reader.independent, r.reader.has_classes) for r in reads}
    if len(kinds) > 1 and not all(classes for _, classes in kinds):
        told = ", ".join(f"{r.head.name!r} ({r.reader.name})" for r in reads)
        raise InputError(
            f"{trials.file.path}: outputs {told} are no one distribution: means and classes have no common unit. Name one of them, "
            "or several of one kind, with --output."
        )
    doubt = "; ".join(r.doubt for r in reads if r.doubt) or None
    pen = Pen(trials.file.proto)
    dtype = _common([r.head.value.dtype for r in reads])
    logits = [_logits(trials, pen, r, dtype) for r in reads]
    shown = Head(name, chosen[0].value, tuple(o for h in chosen for o in h.outputs))
    sizes = ", ".join(f"{r.head.name} ({r.z.shape[1]})" for r in reads)
    if all(independent for independent, _ in kinds):
        flat = [pen.reshaped(z, 0, -1) for z in logits]
        value = pen.emit("Concat", *flat, axis=1)
        view = copied(
            trials, pen, value, dtype, lambda: _flat([r.p for r in reads]), shown, settings, f"{len(reads)} heads joined: {sizes}",
            seen=lambda z: _flat([_probabilities(_logit_reader(r), part) for r, part in zip(reads, _cut(z, reads), strict=True)]),
        )  # fmt: skip
        reader = _logit_reader(reads[0])
        return replace(
            view, settings=replace(settings, output_kind=reader.name), end=Ending(reader.name, linear=True),
            axes=OutputAxes(1, 0, f"{len(reads)} independent heads joined: {sizes}"), how=_HOW, doubt=doubt,
        )  # fmt: skip
    most = max(2 if r.reader.independent else r.z.shape[1] for r in reads)
    parts = []
    for r, z in zip(reads, logits, strict=True):
        both = yes_or_no(pen, pen.reshaped(z, 0, -1), dtype) if r.reader.independent else z
        parts.append(widened(pen, both, 2 if r.reader.independent else r.z.shape[1], most, dtype))
    value = pen.emit("Concat", *parts, axis=2)
    view = copied(
        trials, pen, value, dtype, lambda: _flat([r.p for r in reads]), shown, settings,
        f"{len(reads)} heads side by side as positions: {sizes}", seen=lambda z: _flat(_seen(z, reads)),
    )  # fmt: skip
    how = f"{len(reads)} independent heads as positions of {most} classes: {sizes}"
    return replace(
        view, settings=replace(settings, output_kind="auto"), end=Ending(linear=True), axes=OutputAxes(1, 0, how),
        how=_HOW, doubt=doubt,
    )  # fmt: skip


def _read(trials: Trials, head: Head, settings: Settings) -> _Read:
    """One head: its kind by graph and values, as it would be read alone."""
    raw = read_head(trials, head)
    end = ending(trials.file.graph, head.value.name)
    axis, _ = (1, "") if raw.ndim <= 2 else class_axis(trials.file.graph, head.value, 0)
    if axis is None or raw.ndim < 2:
        raise InputError(
            f"{trials.file.path}: output {head.name!r} has shape {raw.shape}, of which nothing tells the axis of the "
            f"classes. Audit it alone, with --output {head.name!r} --class-axis."
        )
    z = as_classes(raw, axis, 0)
    try:
        reader, known = reader_of(replace(settings, class_axis=None), end, z)
    except ModelError as error:
        why = str(error).rstrip(".")
        raise InputError(f"{trials.file.path}: output {head.name!r}: {why}. Or name the others with --output.") from error
    doubt = None if known.doubt is None else f"of output {head.name!r}, {known.doubt}"
    return _Read(head, reader, end, axis, z, _probabilities(reader, z), doubt)


def _probabilities(reader: OutputReader, z: Array) -> Array:
    return reader.probabilities(z) if reader.has_classes else z


def _logit_reader(read: _Read) -> OutputReader:
    return read.reader.before_activation() or read.reader


def _logits(trials: Trials, pen: Pen, read: _Read, dtype: str) -> str:
    """The head's logits, (N, K, P), in the copy."""
    value, axis = read.head.value.name, read.axis
    if read.reader.before_activation() is not None:
        end = read.end
        whole = end.axes is not None and end.axes == tuple(range(len(end.axes)))
        made = read.reader.made_by(end) and end.logits is not None and whole
        if made and end.logits is not None:
            value = end.logits
        elif read.reader.of_logarithm(read.z) is not None:
            tiny = pen.constant(np.array(np.finfo(read.head.value.dtype).tiny, read.head.value.dtype))
            value = pen.emit("Log", pen.emit("Add", value, tiny))
        else:
            raise InputError(
                f"{trials.file.path}: the logits of output {read.head.name!r} cannot be read, which several heads together need. "
                f"Audit it alone, with --output {read.head.name!r}."
            )
    value = pen.emit("Cast", value, to=element_type(dtype))
    rank = 2 if read.z.shape[2] == 1 and axis == 1 else axis + 1
    if rank > 2:
        rank = len(read.head.value.shape or ()) or rank
        value = pen.emit("Transpose", value, perm=[0, axis, *(k for k in range(1, rank) if k != axis)])
    return pen.reshaped(value, 0, read.z.shape[1], -1)


def _common(dtypes: Sequence[str]) -> str:
    """One type for all heads: their own where it is one, else the wider."""
    return dtypes[0] if len(set(dtypes)) == 1 else "float64" if "float64" in dtypes else "float32"


def _cut(z: Array, reads: Sequence[_Read]) -> list[Array]:
    """The heads' own parts (n, K, P) of joined outputs."""
    ends = np.cumsum([r.z.shape[1] * r.z.shape[2] for r in reads])[:-1]
    return [part.reshape(r.z.shape) for r, part in zip(reads, np.split(z.astype(np.float64), ends, axis=1), strict=True)]


def _seen(z: Array, reads: Sequence[_Read]) -> list[Array]:
    """The heads' own probabilities out of positions (n, K, P), where a softmax is taken over all classes."""
    shares = np.exp(z.astype(np.float64) - z.max(axis=1, keepdims=True))
    p = shares / shares.sum(axis=1, keepdims=True)
    found, start = [], 0
    for r in reads:
        _, K, P = r.z.shape
        count = K * P if r.reader.independent else P
        part = p[:, :, start : start + count]
        found.append(part[:, 1].reshape(r.z.shape) if r.reader.independent else part[:, :K])
        start += count
    return found


def _flat(parts: Sequence[Array]) -> Array:
    return np.concatenate([np.asarray(p, np.float64).reshape(len(p), -1) for p in parts], axis=1)
