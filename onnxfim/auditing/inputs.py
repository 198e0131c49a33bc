"""What becomes of a model's inputs: one is perturbed, the others are held at given values or are not read at all."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import onnx

from onnxfim.auditing.feeding import Feeds, Fitting, fitted, from_samples, nothing, own_values
from onnxfim.auditing.reproducing import SAME, SAME_IN_HALF
from onnxfim.data import Samples
from onnxfim.errors import InputError, ModelError, OnnxFimError
from onnxfim.graph.choosing_heads import choose_heads
from onnxfim.graph.choosing_inputs import batch_first, choose_input, told, values_behind
from onnxfim.graph.graph import Graph, TensorInfo
from onnxfim.graph.held import POSITION, HeldValue, InputRole, hold, without_inputs
from onnxfim.graph.joint import JOINT, JoinedInput, join, joined_rows
from onnxfim.graph.load import ModelFile, fixed_batch, sample_shape
from onnxfim.graph.quantised import computes_in_half
from onnxfim.record.settings import Settings, shape_given
from onnxfim.runtime.forgiving import rows_that_run
from onnxfim.runtime.hardware import Hardware
from onnxfim.runtime.providers import CPU
from onnxfim.runtime.row_counts import filled
from onnxfim.runtime.session import open_session, run

Array: TypeAlias = np.ndarray[Any, Any]

_ROWS = 4  # on which the copy must give what the file does


@dataclass(frozen=True)
class Arranged:
    """A model whose only input is the one that is perturbed, with its samples."""

    file: ModelFile
    samples: Samples


def arranged(file: ModelFile, samples: Samples, settings: Settings, hardware: Hardware) -> Arranged:
    """The model with all inputs held but what is perturbed, where it has several, and the samples with what is held at their own.

    Several inputs that are perturbed together are one vector, `JOINT`, and the samples' inputs then these vectors, (N, d).

    Raises:
        InputError, ModelError: an input that nothing is given for, or a value that does not fit.
    """
    moved = [choose_input(file, name, settings.output) for name in settings.inputs or (None,)]
    into, together = moved[0], len(moved) > 1
    others = [i for i in file.graph.inputs if i.name not in {POSITION, *(m.name for m in moved)}]
    feeds = Feeds.of(file.path, settings.feed, [i.name for i in others])
    given_shape(file, into, settings.shape)
    sizes = _sizes(into, samples.inputs.shape)
    fitting = Fitting(str(file.path), samples.indices, sizes, (into.shape or (None,))[0], _shapes(file, settings.shape))
    if not others and not together:
        return Arranged(file, samples)
    if together:
        samples = _usable(file, moved, samples, fitting)
    there = values_behind(file, settings.output)
    unread = [i for i in others if i.name not in there]
    held, words = _held(file, [i for i in others if i.name in there], feeds, samples, fitting)
    copy = hold(without_inputs(file.proto, [i.name for i in unread]) if unread else file.proto, into.name, held)
    roles = {i.name: InputRole(i.name, i.dtype, i.shape, "not read") for i in unread}
    roles |= {i.name: InputRole(i.name, i.dtype, i.shape, "held", words[i.name]) for i in others if i.name in held}
    roles |= {i.name: InputRole(i.name, i.dtype, i.shape, "perturbed") for i in moved}
    own_rows = samples.inputs[:] if together else samples.inputs  # one vector is made of several: all of them are held
    rows = {into.name: own_rows} | {i.name: samples.held[i.name] for i in moved[1:]}
    whole = samples.inputs
    if together:
        parts = [JoinedInput(i.name, rows[i.name].shape[1:], np.dtype(i.dtype)) for i in moved]
        copy, whole = join(copy, parts), joined_rows([rows[p.name] for p in parts], parts)
        ends = np.cumsum([0, *(p.size for p in parts)]).tolist()
        roles |= {
            p.name: replace(roles[p.name], at=f"numbers {start} to {stop - 1} of one vector")
            for p, start, stop in zip(parts, ends[:-1], ends[1:], strict=True)
        }
    reason = [
        f"inputs perturbed together ({', '.join(rows)})" if together else "",
        f"inputs held ({', '.join(held)})" if held else "",
        f"inputs left out that the output does not read ({', '.join(i.name for i in unread)})" if unread else "",
    ]
    made = replace(
        file, proto=copy, graph=Graph(copy, base_dir=file.path.parent), held="; ".join(filter(None, reason)), held_hash=_hash(held),
        roles=tuple(roles[i.name] for i in file.graph.inputs),
    )  # fmt: skip
    own = {name: h.value for name, h in held.items() if h.per_sample}
    first = choose_heads(file, settings.output)[0].outputs[0]
    fed = {**held, **{i.name: nothing(i) for i in unread}}
    try:
        _prove(file, made, rows, whole, first, fed, hardware.on(CPU))  # a provider of its own may compile both for minutes
    except OnnxFimError:
        if hardware.on(CPU) == hardware:
            raise
        _prove(file, made, rows, whole, first, fed, hardware)
    return Arranged(made, replace(samples, inputs=whole, held=own))


def with_feeds(
    file: ModelFile, names: Sequence[str], output: str | None, feeds: Sequence[str], shapes: Sequence[str]
) -> tuple[ModelFile, str | None]:
    """The file as far as it can be told without samples, and the input to bound it by: None where that is not named.

    Inputs are held at the given values, others stay as they are; sizes are those given; several inputs are one vector, `JOINT`.

    Raises:
        InputError: a value that does not fit, or is another for each sample; or inputs that cannot be one vector.
    """
    named = names[0] if len(names) == 1 else None
    if not feeds and not shapes and len(names) < 2:
        return file, named
    moved = [choose_input(file, name, output) for name in names or (None,)]
    sizes = _shapes(file, shapes)
    symbols = {d: n for i in file.graph.inputs for d, n in zip((i.shape or ())[1:], sizes.get(i.name, ())[1:], strict=False)}
    known = {d: n for d, n in symbols.items() if isinstance(d, str) and n is not None and d != (moved[0].shape or (None,))[0]}
    file = _sized(file, {i.name: _filled(i, sizes.get(i.name), known) for i in file.graph.inputs})
    moved = [choose_input(file, m.name, output) for m in moved]
    others = [i for i in file.graph.inputs if i.name not in {m.name for m in moved}]
    given = Feeds.of(file.path, feeds, [i.name for i in others]).given
    fitting = Fitting(str(file.path), np.empty(0, np.int64), known, (moved[0].shape or (None,))[0], sizes)
    held = {i.name: fitted(i, given[i.name], fitting) for i in others if i.name in given}
    copy = hold(file.proto, moved[0].name, held)
    if len(moved) > 1:
        copy, named = join(copy, _parts(file, moved)), JOINT
    kept = replace(file, proto=copy, graph=Graph(copy, base_dir=file.path.parent))
    return replace(kept, held="inputs held", held_hash=_hash(held)) if held else kept, named


def _filled(info: TensorInfo, given: Sequence[int | None] | None, known: Mapping[str, int]) -> tuple[int | str | None, ...]:
    """An input's shape with the sizes that are given for it, or for a dimension of the same name."""
    own = info.shape or ()
    here = given or (None,) * len(own)
    return tuple(n if n is not None else known.get(d, d) if isinstance(d, str) else d for d, n in zip(own, here, strict=True))


def _sized(file: ModelFile, shapes: Mapping[str, Sequence[int | str | None]]) -> ModelFile:
    """The file whose inputs say these sizes, where they are open in it."""
    proto = onnx.ModelProto()
    proto.CopyFrom(file.proto)
    for value in proto.graph.input:
        for dimension, size in zip(value.type.tensor_type.shape.dim, shapes.get(value.name, ()), strict=False):
            if isinstance(size, int):
                dimension.dim_value = size
    return replace(file, proto=proto, graph=Graph(proto, base_dir=file.path.parent))


def _parts(file: ModelFile, moved: Sequence[TensorInfo]) -> list[JoinedInput]:
    """The inputs as parts of one vector.

    Raises:
        InputError: one of whole numbers, with an open size, or with its batch elsewhere than first.
    """
    parts: list[JoinedInput] = []
    for info in moved:
        if not info.dtype.startswith("float"):
            raise InputError(f"{file.path}: {told(info)} takes whole numbers, expected one --input. Name one.")
        batch_first(file, info.name)
        if not all(isinstance(d, int) for d in (info.shape or (None, None))[1:]):
            raise InputError(
                f"{file.path}: {told(info)} has open sizes, expected none but the batch. Say --shape {info.name}:[N,SIZE]."
            )
        parts.append(
            JoinedInput(info.name, tuple(int(d) for d in (info.shape or ())[1:] if isinstance(d, int)), np.dtype(info.dtype))
        )
    return parts


def _usable(file: ModelFile, moved: Sequence[TensorInfo], samples: Samples, fitting: Fitting) -> Samples:
    """The samples with the values of the inputs that are perturbed beside the first, in these inputs' own types.

    Raises:
        InputError: an input of another kind, that is named twice, or that the data hold no values of.
    """
    held = dict(samples.held)
    names = [i.name for i in moved]
    if len(set(names)) < len(names):
        raise InputError(f"{file.path}: --input names {max(names, key=names.count)!r} twice, expected each once.")
    for info in moved[1:]:
        if info.name not in held:
            raise InputError(
                f"{file.path}: the data hold no values of {told(info)}, which is perturbed too, expected those of each sample. "
                "Save them in the data (.npz) under the input's name."
            )
        if fitting.axis(info) != 0:
            raise InputError(
                f"{file.path}: input {told(info)} does not have its batch on the first axis, expected that of an input that is "
                "perturbed. Hold it by --feed."
            )
        held[info.name] = own_values(info, held[info.name], fitting)
        if not np.isfinite(held[info.name]).all():
            raise InputError(f"data[{info.name}]: holds NaN or infinite values, expected finite ones. Leave such samples out.")
    return replace(samples, held=held)


def _held(
    file: ModelFile, read: Sequence[TensorInfo], feeds: Feeds, samples: Samples, fitting: Fitting
) -> tuple[dict[str, HeldValue], dict[str, str]]:
    """What the inputs are held at, and that in words.

    Raises:
        InputError: nothing is given for one, or what does not fit.
    """
    missing = [i for i in read if i.name not in feeds.given and i.name not in samples.held]
    if missing:
        raise InputError(_nothing_given(file, missing))
    held, words = dict[str, HeldValue](), dict[str, str]()
    for info in read:
        if info.name in feeds.given:
            held[info.name], words[info.name] = fitted(info, feeds.given[info.name], fitting), feeds.given[info.name]
            continue
        held[info.name] = from_samples(info, samples.held[info.name], fitting)
        same = not held[info.name].per_sample
        words[info.name] = "the data's value, the same for all samples" if same else "each sample's own value"
    return held, words


def _nothing_given(file: ModelFile, missing: Sequence[TensorInfo]) -> str:
    feeds = " ".join(f"--feed {i.name}=VALUE" for i in missing)
    return (
        f"{file.path}: nothing says what to hold {', '.join(map(told, missing))} at, expected a value. Say {feeds} (a number, "
        "zeros, ones, FILE.npy or FILE.npz:KEY), or save each sample's own value in the data (.npz) under the input's name."
    )


def given_shape(file: ModelFile, into: TensorInfo, texts: Sequence[str]) -> tuple[int | None, ...]:
    """Shape of one sample of an input that is perturbed, with the sizes of ``NAME:[N,SIZE,…]``; None for a size that is open.

    Raises:
        InputError: as `arranged`, or its batch is not on the first axis.
    """
    batch_first(file, into.name)
    shape, given = sample_shape(into), _shapes(file, texts).get(into.name)
    if given is None:
        return shape
    if given[0] is not None and fixed_batch(into) is None:
        raise InputError(
            f"--shape {into.name}: fixes the batch at {given[0]}, which the file leaves open, expected N first. Rows of a call are "
            "said by --batch."
        )
    return given[1:]


def _shapes(file: ModelFile, texts: Sequence[str]) -> dict[str, tuple[int | None, ...]]:
    """The sizes given, by input.

    Raises:
        InputError: of an input that there is not, or that has others.
    """
    found: dict[str, tuple[int | None, ...]] = {}
    inputs = {i.name: i for i in file.graph.inputs}
    for text in texts:
        name, sizes = shape_given(text) or ("", ())
        if name not in inputs:
            raise InputError(f"--shape {text}: the model has no input {name!r}. Use one of: {', '.join(inputs)}.")
        own = inputs[name].shape
        if own is not None and (
            len(own) != len(sizes) or any(isinstance(d, int) and s is not None and d != s for d, s in zip(own, sizes, strict=True))
        ):
            raise InputError(f"--shape {text}: the file says {told(inputs[name])}. Give sizes for its open dimensions alone.")
        found[name] = sizes
    return found


def _sizes(into: TensorInfo, shape: tuple[int, ...]) -> dict[str, int]:
    """Sizes of the symbolic dimensions that the samples tell; the batch is none of them."""
    return {d: n for d, n in list(zip(into.shape or (), shape, strict=False))[1:] if isinstance(d, str)}


def _hash(held: Mapping[str, HeldValue]) -> str:
    """Hash of how inputs are held, and of the values that are the same for all samples."""
    digest = hashlib.sha256()
    for name, h in sorted(held.items()):
        shape = h.value.shape[1:] if h.per_sample else h.value.shape
        digest.update(f"{name} {h.axis} {h.per_sample} {h.value.dtype.str} {shape}".encode())
        if not h.per_sample:
            digest.update(np.ascontiguousarray(h.value).tobytes())
    return digest.hexdigest()[:32]


def _prove(
    file: ModelFile, copy: ModelFile, rows: Mapping[str, Array], X: Array, output: str, held: Mapping[str, HeldValue],
    hardware: Hardware,
) -> None:  # fmt: skip
    """Raise where the copy at X does not give what the file gives when all its inputs are fed, those that are perturbed with rows.

    Raises:
        ModelError: it does not.
    """
    types = {i.name: np.dtype(i.dtype) for i in (*file.graph.inputs, *copy.graph.inputs) if i.name in rows or i.name == JOINT}
    fixed = next(fixed_batch(i) for i in file.graph.inputs if i.name in rows)
    session, _ = open_session(file.path, hardware, base_dir=None)

    def whole(some: Array, of: Array) -> Array:
        """The file's own outputs at rows of these samples."""
        of = filled(of, max(len(of), fixed or 0))
        feeds = {name: a[of].astype(types[name], copy=False) for name, a in rows.items()}
        return run(session, [output], {**feeds, **{name: _fed(h, of) for name, h in held.items()}})[0]

    at = rows_that_run(whole, X, min(_ROWS, fixed or _ROWS))
    want = whole(X[at], at)
    del session
    session, _ = open_session(copy.source, hardware, base_dir=file.path.parent.resolve())
    of = filled(at, max(len(at), fixed or 0))
    name = next(i.name for i in copy.graph.inputs if i.name in types)
    places = {POSITION: of} if copy.placed else {}
    got = run(session, [output], {name: X[of].astype(types[name], copy=False), **places})[0]
    good = np.isfinite(want)
    scale = float(np.abs(want[good]).max(initial=0.0)) or 1.0
    slack = (SAME_IN_HALF if computes_in_half(file.proto) else SAME) * scale
    if got.shape != want.shape or not np.allclose(got[good], want[good], rtol=0, atol=slack):
        raise ModelError(
            f"{file.path}: a copy with inputs held does not give the file's own outputs, so that nothing can be said of the file. "
            "Export the model with the other inputs as constants."
        )


def _fed(held: HeldValue, of: Array) -> Array:
    """What to feed for rows of these samples."""
    if held.axis is None:
        return held.value
    if held.per_sample:
        return np.ascontiguousarray(np.moveaxis(held.value[of], 0, held.axis))
    return np.repeat(held.value, len(of), axis=held.axis)


__all__ = ["Arranged", "arranged", "given_shape", "with_feeds"]
