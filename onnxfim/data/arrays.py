"""Arrays of samples and labels held against what the model takes, and converted to it."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import numpy as np
import numpy.typing as npt

from onnxfim.data.class_labels import NO_NUMBERS, ClassLabels, ClassOrder, alphabetical, are_words, class_labels
from onnxfim.data.converting import Conversion, ConvertedRows, Target
from onnxfim.data.lazy_rows import LazyRows, blocks, is_large, part_of
from onnxfim.data.npy import RowSource
from onnxfim.data.preprocessing import order_of, turn
from onnxfim.data.samples import (
    Array,
    ArrayHash,
    Choice,
    Indices,
    Samples,
    SampleShape,
    check_bytes,
    shape_text,
    unusable,
)
from onnxfim.data.stored_rows import FileRows, Spool, bytes_of
from onnxfim.errors import InputError
from onnxfim.record.sample import Skipped

_BESIDE = 64  # bytes that are held of a sample which is read at need: its place, label, index


def gather(
    inputs: RowSource, labels: RowSource | None, target: Target, choice: Choice, *, source: str,
    held: Mapping[str, RowSource] | None = None, moved: Collection[str] = (), order: ClassOrder | None = None,
    faults: Mapping[int, str] | None = None,
) -> Samples:  # fmt: skip
    """Take the chosen samples, check them and bring them to the model's layout, units and element type.

    ``held`` are the values of the model's other inputs, one for each sample, or a single number for all; those of ``moved`` are
    perturbed too, so that samples without finite ones are skipped. ``order`` names the classes; ``faults`` tells, by position in
    the data, why samples cannot be used, whose values and labels stand for nothing then.

    Raises:
        InputError: anything that concerns all samples; a single bad one is skipped.
    """
    _check_kind(inputs)
    axes = _sample_axes(inputs, target)
    if target.preprocessing.resize or target.preprocessing.crop:
        raise InputError(f"{inputs.where}: is an array, expected images where resize or crop is given. Resize before saving it.")
    if labels is not None and (len(labels.shape) not in (1, 2) or labels.shape[0] != inputs.shape[0]):
        raise InputError(
            f"{labels.where}: labels have shape {shape_text(labels.shape)}, expected one for each of the "
            f"{inputs.shape[0]} samples. Pass class indices of shape ({inputs.shape[0]},); labels of "
            "positions are not read."
        )
    conversion = Conversion(inputs.where, inputs.dtype, axes, target)
    many, one = choice.many_of(inputs.shape[0]), _largest_row(inputs, target)
    check_bytes(inputs.where, many * (_BESIDE if is_large(many, one) else one))
    indices = choice.of(inputs.shape[0])
    raw_labels = None if labels is None else labels.take(indices)
    others = {name: _held(rows, inputs.shape[0], indices) for name, rows in (held or {}).items()}
    known = {i: faults[at] for i, at in enumerate(indices.tolist()) if at in faults} if faults else {}
    found = None if labels is None or raw_labels is None else _labels(labels, raw_labels, indices, known, order)
    if found is not None and raw_labels is not None and raw_labels.dtype.kind in "OUS":
        raw_labels = found.indices  # how long a word may be is no part of the data

    digest = ArrayHash()
    X, reasons = _checked(inputs, indices, conversion, known, digest)
    for name in sorted(others.keys() & set(moved)):
        reasons = _not_finite(others[name], f"holds {{}} NaN or infinite values in {name!r}") | reasons
    skipped = tuple(Skipped(int(indices[i]), reasons[i]) for i in sorted(reasons))
    if len(skipped) == len(indices):
        raise unusable(inputs.where, skipped)
    conversion.check()
    digest.add(raw_labels, *(a for name in sorted(others) for a in (np.frombuffer(name.encode(), np.uint8), others[name])))

    kept = [i for i in range(len(indices)) if i not in reasons]
    named = order if found is None else found.order
    return Samples(
        inputs=X if not reasons else part_of(X, np.array(kept, np.int64)),
        labels=None if found is None else found.indices[kept],
        indices=indices[kept],
        names=("",) * len(kept),
        class_names=None if named is None else named.names,
        source=source,
        sha256=digest.hexdigest(),
        skipped=skipped,
        held={name: values[kept] for name, values in others.items()},
        prepared=target.preprocessing.given,
        classes_guessed=named is not None and named.guessed,
    )


def _checked(
    inputs: RowSource, indices: Indices, conversion: Conversion, known: Mapping[int, str], digest: ArrayHash
) -> tuple[Array, dict[int, str]]:
    """The chosen samples as the model takes them, held in memory or, where they are many, read at need; and which are at fault.

    They are gone through once, in blocks where they are many; the hash takes them in as they are. Rows at fault stay among them.
    """
    one = _largest_row(inputs, conversion.target)
    large = is_large(len(indices), one)
    lasting = inputs.lasting(indices) if large else None
    spool = Spool(inputs.where) if large and lasting is None else None
    digest.begin((len(indices), *inputs.shape[1:]), inputs.dtype)
    reasons: dict[int, str] = {}
    X: Array | None = None
    for part in blocks(len(indices), one) if large else (slice(0, len(indices)),):
        raw = inputs.take(indices[part])
        digest.update(raw)
        here = range(part.start, part.stop)
        faults = _not_finite(raw, "holds {} NaN or infinite values") | {k: known[i] for k, i in enumerate(here) if i in known}
        good = [k for k in range(len(raw)) if k not in faults]
        conversion.see(some := raw[good] if faults else raw)
        converted = conversion(some)
        late = _not_finite(converted, f"has {{}} values that overflow the model's {conversion.target.dtype}")
        faults |= {good[k]: reason for k, reason in late.items()}
        reasons |= {part.start + k: reason for k, reason in faults.items()}
        if spool is not None:
            spool.write(bytes_of(raw))
        if not large:
            X = converted
            if len(good) < len(raw):
                X = np.zeros((len(raw), *converted.shape[1:]), converted.dtype)
                X[good] = converted
    if X is not None:
        return X, reasons
    if lasting is None:
        assert spool is not None
        shape = (len(indices), *inputs.shape[1:])
        lasting = FileRows(spool.done(), 0, shape, inputs.dtype, spool), np.arange(len(indices), dtype=np.int64)
    reader, at = lasting
    return LazyRows(reader if conversion.nothing else ConvertedRows(reader, conversion), at).in_place, reasons


def _largest_row(inputs: RowSource, target: Target) -> int:
    """Bytes of a sample, as the data hold it or as the model takes it."""
    return math.prod(inputs.shape[1:]) * max(inputs.dtype.itemsize, target.dtype.itemsize)


def _labels(labels: RowSource, raw: Array, indices: Indices, known: Mapping[int, str], order: ClassOrder | None) -> ClassLabels:
    """The class of each chosen sample, 0 of those that are known to be faulty."""
    # Of all that there are, so that a part of the data has the same order.
    if order is None and raw.dtype.kind in "OUS" and are_words(every := labels.take_all()):
        order = alphabetical(labels.where, every.reshape(-1).astype(str).tolist())
    good = np.array([i for i in range(len(raw)) if i not in known], np.int64)
    of_good = class_labels(labels.where, raw[good], indices[good], order)
    classes = np.zeros(len(raw), np.int64)
    classes[good] = of_good.indices
    return ClassLabels(classes, of_good.order)


def held_array(name: str, values: npt.ArrayLike) -> Array:
    """Values of an input that is held, as an array of numbers or of text.

    Raises:
        InputError: they are Python objects of other kinds.
    """
    found = np.asarray(values)
    if found.dtype.kind != "O":
        return found
    if not all(isinstance(v, str) for v in found.ravel().tolist()):
        raise InputError(f"inputs[{name!r}]: holds Python objects, expected numbers or text. Pass a rectangular array of one type.")
    return found.astype(str)


def _held(rows: RowSource, total: int, indices: Indices) -> Array:
    """The chosen samples' values of an input that is held."""
    if not rows.shape:
        return np.repeat(rows.take_all()[None], len(indices), axis=0)
    if rows.shape[0] != total:
        raise InputError(
            f"{rows.where}: has shape {shape_text(rows.shape)}, expected one value for each of the {total} samples. Save it with "
            f"{total} along its first axis, or hold the input at one value for all by --feed."
        )
    check_bytes(rows.where, len(indices) * math.prod(rows.shape[1:]) * rows.dtype.itemsize)
    return rows.take(indices)


def _check_kind(rows: RowSource) -> None:
    if rows.dtype.kind not in "fiu":
        raise InputError(
            f"{rows.where}: holds {NO_NUMBERS.get(rows.dtype.kind, 'no numbers')} ({rows.dtype}), expected real numbers. "
            "Save it as float32 or as integers."
        )


def _not_finite(X: Array, reason: str) -> dict[int, str]:
    """Rows that hold NaN or infinity, each with its reason."""
    if X.dtype.kind != "f":
        return {}
    bad = np.count_nonzero(~np.isfinite(X.reshape(len(X), math.prod(X.shape[1:]))), axis=1)  # (N,)
    return {int(i): reason.format(bad[i]) for i in np.flatnonzero(bad)}


def _sample_axes(rows: RowSource, target: Target) -> tuple[int, ...]:
    """The order in which a sample's axes are taken so that it has the model's layout."""
    if not rows.shape:
        raise InputError(f"{rows.where}: is a single number, expected an array of samples. Save it with shape (N, …).")
    if 0 in rows.shape:
        raise InputError(
            f"{rows.where}: is empty, shape {shape_text(rows.shape)}, expected at least one sample. Check how it was saved."
        )
    sample, layout = rows.shape[1:], target.preprocessing.layout
    straight = tuple(range(len(sample)))
    turned = turn(layout) if layout is not None and len(sample) == 3 else straight
    fits = _fits(sample, target.shape)
    turned_fits = _fits(tuple(sample[a] for a in turned), target.shape)
    if turned_fits and (not fits or order_of(sample) not in (None, layout)):
        return turned
    if fits or target.shape is None:
        return straight
    raise InputError(
        f"{rows.where}: samples have shape {shape_text(sample)}, but the model takes {shape_text(target.shape)}. "
        + _advice(rows.shape, target.shape)
    )


def _fits(sample: tuple[int, ...], shape: SampleShape | None) -> bool:
    return shape is None or (len(sample) == len(shape) and all(b in (None, a) for a, b in zip(sample, shape, strict=True)))


def _advice(found: tuple[int, ...], shape: SampleShape) -> str:
    """What to do about an array of shape ``found`` where the model takes samples of ``shape``."""
    sample = found[1:]
    if _fits(found, shape):
        return "It is one sample without a batch axis: save x[None]."
    if len(shape) == len(sample) + 1 and shape[0] in (1, None) and _fits(sample, shape[1:]):
        return "The channel axis is missing: save x[:, None]."
    if len(shape) == len(sample) + 1 and shape[-1] in (1, None) and _fits(sample, shape[:-1]):
        return "The channel axis is missing: save x[..., None]."
    if len(sample) == 3 and _fits(tuple(sample[a] for a in turn("NCHW")), shape):
        return "Only the axes are in another order: pass --layout NCHW."
    if len(sample) == 3 and _fits(tuple(sample[a] for a in turn("NHWC")), shape):
        return "Only the axes are in another order: pass --layout NHWC."
    sizes = [size for size in shape if size is not None]
    if len(sizes) == len(shape) and math.prod(sizes) == math.prod(sample):
        return f"The numbers are as many: save x.reshape({', '.join(map(str, (-1, *sizes)))}), if their order is the model's."
    return f"Pass an array of shape {shape_text(shape, batched=True)}."
