"""Whatever gives samples one after another, a `torch` DataLoader among it: taken until there are enough, batches or single samples.

No framework is imported: a tensor gives its own numbers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from onnxfim.data.arrays import gather
from onnxfim.data.class_labels import ClassOrder
from onnxfim.data.converting import Target
from onnxfim.data.npy import ChosenRows, HeldRows
from onnxfim.data.samples import Array, Choice, Samples, SampleShape, check_bytes, listed, one_line, shape_text
from onnxfim.data.stored_rows import Collected
from onnxfim.errors import InputError

_INPUTS = ("inputs", "input", "x", "image", "images", "pixel_values", "img", "input_ids", "input_values", "features")
_LABELS = ("labels", "label", "y", "target", "targets")
_SHAPE = "Give x, (x, y), or a dict of them with the model's input names"


@dataclass(frozen=True)
class Taken:
    """What one step of an iterable gave: samples (n, …), their labels, values of other inputs."""

    inputs: Array
    labels: Array | None
    held: Mapping[str, Array]


def as_array(value: Any) -> Array:
    """A tensor of any framework, or whatever NumPy reads, as an array in memory; no gradient is asked for.

    Raises:
        InputError: it has no numbers to give.
    """
    if isinstance(value, np.ndarray):
        return value
    try:
        for step in ("detach", "cpu", "resolve_conj"):  # torch: off the graph and the device
            if callable(getattr(value, step, None)):
                value = getattr(value, step)()
        if hasattr(value, "numpy") and not isinstance(value, type):
            try:
                return np.asarray(value.numpy())
            except TypeError:  # bfloat16, which NumPy has not
                return np.asarray(value.float().numpy())
        if not hasattr(value, "__array__") and callable(getattr(value, "get", None)) and hasattr(value, "dtype"):  # CuPy
            return np.asarray(value.get())
        if not hasattr(value, "__array__") and hasattr(value, "__dlpack__"):
            return np.asarray(np.from_dlpack(value))
        return np.asarray(value)
    except Exception as error:
        raise InputError(
            f"data: a {type(value).__name__} gives no array ({one_line(error)[:120]}), expected numbers in one shape. {_SHAPE}."
        ) from error


def is_whole(value: Any) -> bool:
    """Whether it is all samples at once: an array, a tensor, a table, or a list of numbers; no iterable of steps."""
    if isinstance(value, list):
        first = value[0] if value else None
        steps = isinstance(first, Mapping) or hasattr(first, "detach") or (isinstance(first, tuple) and not _is_numbers(first))
        return not steps
    if isinstance(value, np.ndarray) or hasattr(value, "__array__"):
        return True
    return hasattr(value, "shape") and hasattr(value, "dtype")


def told_by(data: Any) -> ClassOrder | None:
    """The names of the classes that a data set tells of itself, as torchvision's and Hugging Face's do."""
    for _ in range(4):  # a DataLoader of a subset of a data set
        if data is None:
            break
        names = getattr(data, "classes", None)
        if isinstance(names, (list, tuple)) and names and all(isinstance(n, str) for n in names):
            return ClassOrder(tuple(names))
        features = getattr(data, "features", None)
        for name in _LABELS if isinstance(features, Mapping) else ():
            names = getattr(features.get(name), "names", None) if isinstance(features, Mapping) else None
            if isinstance(names, list) and names:
                return ClassOrder(tuple(map(str, names)))
        data = getattr(data, "dataset", None)
    return None


def column_names(data: Any) -> tuple[str, ...] | None:
    """The names of a frame's columns; None of what is no frame."""
    names = getattr(data, "columns", None)
    return None if names is None or callable(names) else tuple(map(str, names))


def from_iterable(
    items: Iterable[Any], target: Target, choice: Choice, *, source: str, input_name: str | None = None,
    held: Collection[str] = (), moved: Collection[str] = (), order: ClassOrder | None = None,
) -> Samples:  # fmt: skip
    """Take the first samples of an iterable, and no more than are asked for.

    Each step gives samples x, (x, y), or a dict by the names of the model's inputs with the labels under ``labels`` or ``label``. A
    step is one sample where x has as many axes as the model's sample, else a batch of them.

    Args:
        items: An iterable; it is gone through once.
        target: What the model takes.
        choice: How many; the first ones.
        source: In words, where they come from.
        input_name: Name of the model's input.
        held: Names of its other inputs, whose values dicts may hold.
        moved: Those of them that are perturbed too.
        order: Names of the classes; by default those that the data set tells.

    Raises:
        InputError: nothing comes, steps are of different shapes, or are none of these; and as `gather`.
    """
    batched = getattr(items, "batch_size", None) is not None
    parts: list[Taken] = []
    inputs = Collected(source)
    for step, item in enumerate(_steps(items)):
        part = _taken(item, f"step {step} of {source}", target.shape, input_name, held, batched)
        _alike(parts, part, step, source)
        part = _first(part, len(part.inputs) if choice.limit is None else choice.limit - inputs.count)
        inputs.add(part.inputs)
        if choice.limit is None:  # it may have no end
            check_bytes(source, inputs.bytes)
        parts.append(replace(part, inputs=part.inputs[:0]))
        if choice.limit is not None and inputs.count >= choice.limit:
            break
    if not parts:
        raise InputError(f"{source}: gave nothing, expected samples. {_SHAPE}; an iterator that was gone through before is empty.")
    labels = None if parts[0].labels is None else np.concatenate([p.labels for p in parts if p.labels is not None])
    others = {name: HeldRows(f"{source}[{name!r}]", np.concatenate([p.held[name] for p in parts])) for name in parts[0].held}
    return gather(
        ChosenRows(source, inputs.rows(), np.arange(inputs.count), inputs.count),
        None if labels is None else HeldRows(f"labels of {source}", labels),
        target, replace(choice, seed=None), source=source, held=others, moved=moved, order=order or told_by(items),
    )  # fmt: skip


def _taken(item: Any, where: str, shape: SampleShape | None, input_name: str | None, held: Collection[str], batched: bool) -> Taken:
    """One step's samples."""
    others: dict[str, Array] = {}
    y: Any = None
    if isinstance(item, Mapping):
        x, y, others = of_mapping(item, where, input_name, held)
    elif isinstance(item, (tuple, list)) and not _is_numbers(item):
        if len(item) not in (1, 2):
            raise InputError(f"{where}: is a {type(item).__name__} of {len(item)}, expected x or (x, y). {_SHAPE}.")
        x, y = item[0], item[1] if len(item) == 2 else None
    else:
        x = item
    X, labels = as_array(x), None if y is None else as_array(y)
    if X.dtype.kind == "O":
        raise InputError(f"{where}: holds {type(x).__name__} without numbers in one shape, expected an array. {_SHAPE}.")
    if not _is_batch(X, labels, shape, batched):
        X, labels, others = X[None], None if labels is None else labels[None], {n: v[None] for n, v in others.items()}
    if labels is not None and (labels.ndim == 0 or len(labels) != len(X)):
        raise InputError(
            f"{where}: has {len(X)} samples and labels of shape {shape_text(labels.shape)}, expected one for each sample. {_SHAPE}."
        )
    if bad := next((n for n, v in others.items() if v.ndim == 0 or len(v) != len(X)), None):
        raise InputError(f"{where}: has {len(X)} samples and not as many values of {bad!r}, expected one for each. {_SHAPE}.")
    return Taken(X, labels, others)


def _is_numbers(item: Sequence[Any]) -> bool:
    """Whether a list or tuple is one sample, written out: numbers, or a list of lists."""
    if isinstance(item, tuple) and len(item) == 2:
        return False
    return bool(item) and (all(isinstance(v, (int, float)) for v in item) or all(isinstance(v, list) for v in item))


def of_mapping(
    item: Mapping[Any, Any], where: str, input_name: str | None, held: Collection[str]
) -> tuple[Any, Any, dict[str, Array]]:
    """Samples, labels and values of other inputs in a dict.

    Raises:
        InputError: none of its keys can be told to be the samples'.
    """
    label = next((name for name in _LABELS if name in item and name != input_name), None)
    others = {name: as_array(item[name]) for name in held if name in item and name != label}
    if input_name in item:
        found: Any = input_name
    else:
        left = [name for name in item if name != label and name not in others]
        found = next((name for name in _INPUTS if name in left), left[0] if len(left) == 1 else None)
    if found is None:
        there = listed(list(item)) or "nothing"
        if input_name is not None:
            raise InputError(f"{where}: is a dict without {input_name!r}, found {there}, expected the model's input. {_SHAPE}.")
        raise InputError(f"{where}: is a dict of {there}, expected one named as the model's input among them. {_SHAPE}.")
    return item[found], None if label is None else item[label], others


def _is_batch(X: Array, labels: Array | None, shape: SampleShape | None, batched: bool) -> bool:
    """Whether it is samples rather than one sample."""
    if shape is not None and X.ndim in (len(shape), len(shape) + 1):
        return X.ndim == len(shape) + 1
    if X.ndim == 0:
        return False
    if labels is not None and labels.ndim <= 1:
        return labels.ndim == 1 and len(labels) == len(X)
    return batched


def _alike(parts: Sequence[Taken], part: Taken, step: int, source: str) -> None:
    """Refuse a step whose samples have another shape, or labels where others have none."""
    if not parts:
        return
    first = parts[0]
    if part.inputs.shape[1:] != first.inputs.shape[1:]:
        raise InputError(
            f"step {step} of {source}: gives samples of shape {shape_text(part.inputs.shape[1:])}, but step 0 gave "
            f"{shape_text(first.inputs.shape[1:])}, expected one shape. Resize or pad them before."
        )
    if (part.labels is None) != (first.labels is None) or part.held.keys() != first.held.keys():
        raise InputError(f"step {step} of {source}: gives other things than step 0, expected the same in each. {_SHAPE}.")


def _first(part: Taken, count: int) -> Taken:
    return Taken(
        part.inputs[:count], None if part.labels is None else part.labels[:count], {n: v[:count] for n, v in part.held.items()}
    )


def _steps(data: Any) -> Iterator[Any]:
    """What an iterable gives; of a data set with a length and no iterator, its items in order."""
    if hasattr(data, "__iter__"):
        yield from data
    else:
        for i in range(len(data)):
            yield data[i]
