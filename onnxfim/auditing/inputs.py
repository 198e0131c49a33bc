"""What becomes of a model's inputs: one is perturbed, the others are held at given values or are not read at all."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from onnxfim.auditing.feeding import Feeds, Fitting, filled_with, fitted, from_samples
from onnxfim.data import Samples
from onnxfim.errors import InputError, ModelError
from onnxfim.graph.graph import Graph, TensorInfo
from onnxfim.graph.held import POSITION, HeldValue, InputRole, hold, reaching, without_inputs
from onnxfim.graph.load import ModelFile, choose_input, choose_output, fixed_batch, told
from onnxfim.record.settings import Settings, shape_given
from onnxfim.runtime.forgiving import rows_that_run
from onnxfim.runtime.hardware import Hardware
from onnxfim.runtime.row_counts import filled
from onnxfim.runtime.session import open_session, run

Array: TypeAlias = np.ndarray[Any, Any]

_ROWS = 4  # on which the copy must give what the file does
_SAME = 1e-5  # relative to the outputs' scale: another session may fuse other nodes


@dataclass(frozen=True)
class Arranged:
    """A model whose only input is the one that is perturbed, with its samples."""

    file: ModelFile
    samples: Samples


def arranged(file: ModelFile, samples: Samples, settings: Settings, hardware: Hardware) -> Arranged:
    """The model with all inputs but one held, where it has several, and the samples with what is held at their own values.

    Raises:
        InputError, ModelError: an input that nothing is given for, or a value that does not fit.
    """
    into, out = choose_input(file, settings.input, settings.output), choose_output(file, settings.output)
    others = [i for i in file.graph.inputs if i.name not in (into.name, POSITION)]
    feeds = Feeds.of(file.path, settings.feed, [i.name for i in others])
    shapes = _shapes(file, settings)
    if not others:
        return Arranged(file, samples)
    there = reaching(file.graph, out.name)
    unread = [i for i in others if i.name not in there]
    read = [i for i in others if i.name in there]
    fitting = Fitting(
        str(file.path), samples.indices, _sizes(into, samples.inputs.shape), into.shape[0] if into.shape else None, shapes
    )
    held, words = {}, {}
    missing = [i for i in read if i.name not in feeds.given and i.name not in samples.held]
    if missing:
        raise InputError(_nothing_given(file, missing))
    for info in read:
        if info.name in feeds.given:
            held[info.name] = fitted(info, feeds.given[info.name], fitting)
            words[info.name] = feeds.given[info.name]
        else:
            held[info.name] = from_samples(info, samples.held[info.name], fitting)
            words[info.name] = (
                "each sample's own value" if held[info.name].per_sample else "the data's value, the same for all samples"
            )
    copy = hold(without_inputs(file.proto, [i.name for i in unread]) if unread else file.proto, into.name, held)
    graph = Graph(copy, base_dir=file.path.parent)
    roles = {i.name: InputRole(i.name, i.dtype, i.shape, "not read") for i in unread}
    roles |= {i.name: InputRole(i.name, i.dtype, i.shape, "held", words[i.name]) for i in read}
    roles[into.name] = InputRole(into.name, into.dtype, into.shape, "perturbed")
    ordered = tuple(roles[i.name] for i in file.graph.inputs)
    reason = "; ".join(filter(None, [
        f"inputs held ({', '.join(i.name for i in read)})" if read else "",
        f"inputs left out that the output does not read ({', '.join(i.name for i in unread)})" if unread else "",
    ]))  # fmt: skip
    made = replace(file, proto=copy, graph=graph, held=reason, held_hash=_hash(held), roles=ordered)
    samples = replace(samples, held={name: h.value for name, h in held.items() if h.per_sample})
    spare = {i.name: filled_with(0, i, fitting) for i in unread}
    _prove(file, made, into, out.name, {**held, **spare}, samples, hardware)
    return Arranged(made, samples)


def _nothing_given(file: ModelFile, missing: Sequence[TensorInfo]) -> str:
    feeds = " ".join(f"--feed {i.name}=VALUE" for i in missing)
    return (
        f"{file.path}: nothing says what to hold {', '.join(map(told, missing))} at, expected a value. Say {feeds} (a number, "
        "zeros, ones, FILE.npy or FILE.npz:KEY), or save each sample's own value in the data (.npz) under the input's name."
    )


def _shapes(file: ModelFile, settings: Settings) -> dict[str, tuple[int | None, ...]]:
    """The sizes given, by input.

    Raises:
        InputError: of an input that there is not, or that has others.
    """
    found: dict[str, tuple[int | None, ...]] = {}
    inputs = {i.name: i for i in file.graph.inputs}
    for text in settings.shape:
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
    file: ModelFile, copy: ModelFile, into: TensorInfo, output: str, held: Mapping[str, HeldValue], samples: Samples,
    hardware: Hardware,
) -> None:  # fmt: skip
    """Raise where the copy does not give what the file gives when all its inputs are fed.

    Raises:
        ModelError: it does not.
    """
    X, fixed = samples.inputs.astype(np.dtype(into.dtype), copy=False), fixed_batch(into)
    session, _ = open_session(file.path, hardware, base_dir=None)

    def whole(rows: Array, of: Array) -> Array:
        """The file's own outputs at rows of these samples."""
        count = max(len(rows), fixed or 0)
        feeds = {into.name: filled(rows, count)}
        feeds |= {name: _fed(h, filled(of, count)) for name, h in held.items()}
        return run(session, [output], feeds)[0]

    at = rows_that_run(whole, X, min(_ROWS, fixed or _ROWS))
    want = whole(X[at], at)
    del session
    session, _ = open_session(copy.source, hardware, base_dir=file.path.parent.resolve())
    count = max(len(at), fixed or 0)
    places = {POSITION: filled(at, count)} if copy.placed else {}
    got = run(session, [output], {into.name: filled(X[at], count), **places})[0]
    good = np.isfinite(want)
    scale = float(np.abs(want[good]).max(initial=0.0)) or 1.0
    if got.shape != want.shape or not np.allclose(got[good], want[good], rtol=0, atol=_SAME * scale):
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


__all__ = ["Arranged", "arranged"]
