"""Opens the heads that are audited: the file itself where its output can be read, else a copy that reproduces it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx

from onnxfim.auditing.finding_axes import OutputAxes
from onnxfim.auditing.reproducing import same
from onnxfim.errors import InputError, OnnxFimError
from onnxfim.graph.choosing_heads import choose_heads, heads_of
from onnxfim.graph.detections import boxes_beside_scores, boxes_by_shape, located_scores, suppression
from onnxfim.graph.ends import Ending, ending
from onnxfim.graph.graph import Graph, TensorInfo
from onnxfim.graph.head_copies import Pen, element_type, of_length_1
from onnxfim.graph.heads import Head
from onnxfim.graph.held import POSITION
from onnxfim.graph.load import ModelFile, fixed_batch
from onnxfim.record.audit import OutputInfo
from onnxfim.record.settings import Settings
from onnxfim.runtime.forgiving import rows_that_run
from onnxfim.runtime.hardware import Hardware
from onnxfim.runtime.row_counts import filled
from onnxfim.runtime.session import open_session, run
from onnxfim.slopes.kinds import taken_of

Array: TypeAlias = np.ndarray[Any, Any]

_FEW = 8
_REGRESSION = "if its values are means, say --output-kind gaussian; if they are logits, --output-kind logits"
_EMBEDDING = "if it is one, say --output-kind embedding; if it holds logits, --output-kind logits"


@dataclass(frozen=True)
class View:
    """What is audited of a file.

    Attributes:
        file: The file as it is, or with a copy of its graph in place of its own.
        value: The value that is read: an output of that graph.
        name: What the head is called.
        source: What to run: the file's path, or the copy's bytes.
        end: How the graph ends there.
        settings: As asked, or for the kind of what several heads are stacked to.
        rewritten: What the copy was needed for, or None.
        axes: Where classes and batch lie, where that is known beforehand.
        classes: Names of the classes, where the graph gives them.
        outputs: Everything that the file gives, where that is more than one thing.
        how: How its kind is known, where neither graph nor values tell it.
        doubt: What speaks against reading it so.
    """

    file: ModelFile
    value: TensorInfo
    name: str
    source: Path | bytes
    end: Ending
    settings: Settings
    rewritten: str | None = None
    axes: OutputAxes | None = None
    classes: tuple[str, ...] | None = None
    outputs: tuple[OutputInfo, ...] = ()
    how: str | None = None
    doubt: str | None = None

    @property
    def copied(self) -> bool:
        """Whether a copy runs in place of the file."""
        return isinstance(self.source, bytes)


@dataclass
class Trials:
    """Runs the file and copies of it on a few samples."""

    file: ModelFile
    into: TensorInfo
    X: Array
    hardware: Hardware
    _rows: Array | None = None
    _known: dict[tuple[str, ...], list[Any]] = field(default_factory=dict)

    def of_file(self, names: Sequence[str]) -> list[Any]:
        """Outputs of the file as it gives them, at samples that it runs on."""
        if tuple(names) not in self._known:
            session = self._session(self.file.source)
            self._known[tuple(names)] = run(session, names, self._fed(self._that_run(session, names)))
        return self._known[tuple(names)]

    def _that_run(self, session: Any, names: Sequence[str]) -> Array:
        """Positions of the first samples that the file takes, as many as one call may have."""
        if self._rows is None:
            fixed = fixed_batch(self.into)

            def call(X: Array, of: Array) -> object:
                return run(session, names, self._fed(filled(of, fixed or 0)))

            self._rows = filled(rows_that_run(call, self.X, fixed or _FEW), fixed or 0)
        return self._rows

    def _fed(self, of: Array) -> dict[str, Array]:
        """What is fed for these samples."""
        rows = self.X[of].astype(self.into.dtype)
        return {self.into.name: rows, **({POSITION: of} if self.file.placed else {})}

    def of_copy(self, copy: onnx.ModelProto, name: str) -> Array:
        """The output of a copy."""
        session = self._session(copy.SerializeToString())
        return np.asarray(run(session, [name], self._fed(self._that_run(session, [name])))[0])

    def _session(self, source: Path | bytes) -> Any:
        folder = None if isinstance(source, Path) else self.file.path.parent.resolve()
        return open_session(source, self.hardware, base_dir=folder, plain=True)[0]


def open_heads(file: ModelFile, into: TensorInfo, X: Array, settings: Settings, hardware: Hardware) -> View:
    """What is audited of a file, by the settings; a copy has reproduced the file's own outputs.

    Args:
        file: The file.
        into: Its input.
        X: Samples, (N, *shape).
        settings: The output and its kind as asked for.
        hardware: Where it runs.

    Raises:
        InputError: no such output, one that cannot be read, a detector's output whose scores were not asked for, or a copy that
            does not give the file's values.
    """
    taken = taken_of(settings)
    told = _told(file)
    trials = Trials(file, into, X, hardware)
    chosen = choose_heads(file, settings.output, scores=taken == "scores")
    boxes = boxes_apart(trials)
    told = tuple(replace(o, role="boxes") if o.name in boxes else o for o in told)
    if taken == "scores" and chosen[0].name in boxes:
        scores = [h for h in heads_of(file) if h.role == "head" and h.name not in boxes]
        if settings.output is not None:
            raise InputError(
                f"{file.path}: output {chosen[0].name!r} holds boxes, expected scores of boxes. Name another with --output, "
                "or none."
            )
        chosen = tuple(scores[:1])
    if len(chosen) > 1:
        from onnxfim.auditing.stacked_heads import stacked

        return replace(stacked(trials, chosen, settings), outputs=told)
    head = chosen[0]
    if taken == "scores":
        from onnxfim.auditing.detected import scores_of

        return replace(scores_of(trials, head, settings), outputs=told)
    view = replace(_of_one(trials, head, settings), outputs=told)
    if not settings.tells_kind:
        refuse_boxes(file, head, boxes if settings.output is None or head.name in boxes else [])
        if head.embeds and view.end.normalised is None:
            view = replace(view, doubt=f"it is called {head.name!r}, like an embedding: {_EMBEDDING}")
        if head.regresses:
            made = f"node {head.node!r} makes it" if head.node else f"it is called {head.name!r}"
            view = replace(view, doubt=f"{made}, as a regression: {_REGRESSION}")
    return _directions(trials, view) if taken == "directions" else view


def boxes_apart(trials: Trials) -> list[str]:
    """Names of a detector's boxes that are outputs of their own: by names and shapes in the graph, else by the values' shapes."""
    found = heads_of(trials.file)
    if told := [h.name for h in found if h.role == "boxes"]:
        return told
    unknown = [h for h in found if h.role == "head" and (h.value.shape is None or len(h.value.shape) == 3) and not h.looked_through]
    open_ = [h for h in unknown if h.value.shape is None or not all(isinstance(n, int) for n in h.value.shape[1:])]
    if len(unknown) < 2 or not open_:
        return []
    return boxes_by_shape({h.name: np.shape(read_head(trials, h)) for h in unknown})


def refuse_values(file: ModelFile, name: str, z: Array) -> None:
    """Raise where the values of an output (N, …) are a detector's boxes beside scores.

    Raises:
        InputError: they are.
    """
    if (place := located_scores(z)) is not None:
        axis, start, stop = place
        found = f"holds values of any size (entries 0 to {start - 1}) beside scores (entries {start} to {stop - 1}) on axis {axis}"
        raise _detector(file, name, found)


def refuse_boxes(file: ModelFile, head: Head, apart: Sequence[str]) -> None:
    """Raise where an output is a detector's, which no kind of one distribution fits.

    Raises:
        InputError: it is, or outputs ``apart`` from it are boxes.
    """
    beside = boxes_beside_scores(file.graph, head.value.name)
    last = suppression(file.graph, head.value.name)
    if beside is not None:
        found = f"holds {beside.words} on axis {beside.axis} (node {beside.node!r})"
    elif last is not None:
        found = f"comes after {last.op} (node {last.label!r})"
    elif apart:
        others = ", ".join(map(repr, apart[:3]))
        found = "holds boxes beside other outputs" if head.name in apart else f"stands beside boxes ({others})"
    else:
        return
    raise _detector(file, head.name, found)


def _detector(file: ModelFile, name: str, found: str) -> InputError:
    return InputError(
        f"{file.path}: output {name!r} {found}, as a detector's, expected scores of classes alone. Say --output-kind "
        "detection to audit the scores of the boxes above --score-threshold, or name another output with --output."
    )


def as_it_is(file: ModelFile, head: Head, settings: Settings) -> View:
    """The file's own output."""
    value = head.value
    return View(file, value, head.name, file.source, ending(file.graph, value.name), settings, classes=head.class_names)


def copied(
    trials: Trials, pen: Pen, value: str, dtype: str, expected: Callable[[], Array], head: Head, settings: Settings, what: str,
    seen: Callable[[Array], Array] = np.asarray,
) -> View:  # fmt: skip
    """A copy with one value as its output, which gives the values expected from the file's outputs, as ``seen`` of it.

    Raises:
        InputError: it does not.
    """
    file = trials.file
    copy = pen.alone(value, element_type(dtype))
    try:
        truth = expected()  # first: it tells which samples the file takes
        got = seen(trials.of_copy(copy, value))
    except (OnnxFimError, KeyError, ValueError, TypeError, IndexError) as error:
        raise _unlike(file, head, what, " ".join(str(error).split())[:200]) from error
    if not same(got, truth, half=dtype == "float16"):
        raise _unlike(file, head, what, f"a copy that reads it gives other values (shapes {got.shape} and {truth.shape})")
    graph = Graph(copy, base_dir=file.path.parent)
    shape = graph.shapes.get(value)
    return View(
        replace(file, proto=copy, graph=graph, copied=True), TensorInfo(value, dtype, shape), head.name, copy.SerializeToString(),
        ending(graph, value), settings, rewritten=what, classes=head.class_names,
    )  # fmt: skip


def _unlike(file: ModelFile, head: Head, what: str, why: str) -> InputError:
    return InputError(
        f"{file.path}: output {head.name!r} could not be read through {what}: {why}. Export scores, logits or probabilities "
        "as one tensor; with skl2onnx use options={'zipmap': False}."
    )


def read_head(trials: Trials, head: Head) -> Array:
    """A head's values as the file gives them, (n, K) or as the tensor has them."""
    given = trials.of_file(head.outputs)
    if head.form == "map":
        return np.array([[_entry(row, label) for label in head.classes or ()] for row in given[0]], np.float32)
    if head.form == "element":
        return np.asarray(given[0][head.element])
    if head.form == "pieces":
        pieces = [np.asarray(p) for p in given[0]]
        return np.concatenate(pieces, head.axis)
    if head.form == "columns":
        return np.stack([np.asarray(z).reshape(-1) for z in given], axis=1)
    return np.asarray(given[0])


def _entry(row: Mapping[Any, float], label: str) -> float:
    return row[label] if label in row else row[int(label)]


def _of_one(trials: Trials, head: Head, settings: Settings) -> View:
    """One head as it is, or through a copy where it is not one tensor of rows."""
    file, value, pen = trials.file, head.value, Pen(trials.file.proto)
    if head.looked_through:
        return copied(trials, pen, value.name, value.dtype, lambda: read_head(trials, head), head, settings, head.how or "")
    if value.shape is None or len(value.shape) != 1:
        return as_it_is(file, head, settings)
    rows, given = fixed_batch(trials.into), value.shape[0]
    if rows == 1 and isinstance(given, int) and given > 1:  # one sample at a time, whose axis was dropped
        row = pen.reshaped(value.name, 1, -1)
        what = "one more axis for the batch, which the file drops"
        return copied(trials, pen, row, value.dtype, lambda: read_head(trials, head)[None], head, settings, what)
    column = pen.reshaped(value.name, -1, 1)
    what = "one more axis for the classes, which the file drops"
    return copied(trials, pen, column, value.dtype, lambda: read_head(trials, head)[:, None], head, settings, what)


def _directions(trials: Trials, view: View) -> View:
    """An embedding divided by its length; as it is where the graph ends in that."""
    if view.end.normalised is not None:
        return view
    shape = view.value.shape or view.file.graph.shapes.get(view.value.name)
    axis = (view.settings.class_axis or -1) if shape is None or len(shape) <= 2 else view.settings.class_axis or 1
    pen = Pen(view.file.proto)
    unit = of_length_1(pen, view.value.name, view.value.dtype, axis)
    before = Trials(view.file, trials.into, trials.X, trials.hardware) if view.copied else trials

    def expected() -> Array:
        z = before.of_copy(view.file.proto, view.value.name) if view.copied else before.of_file([view.value.name])[0]
        z = np.asarray(z, np.float64)
        return np.asarray(z / np.sqrt((z**2).sum(axis=axis, keepdims=True)))

    head = Head(view.name, view.value, (view.name,), classes=view.classes)
    made = copied(trials, pen, unit, view.value.dtype, expected, head, view.settings, "its rows divided by their length")
    rewritten = "; ".join(filter(None, (view.rewritten, made.rewritten)))
    return replace(made, outputs=view.outputs, rewritten=rewritten)


def _told(file: ModelFile) -> tuple[OutputInfo, ...]:
    """The file's outputs for the record; none where there is only one."""
    found = heads_of(file)
    if len(found) < 2:
        return ()
    return tuple(OutputInfo(h.name, h.kind, h.value.shape, h.role, h.of) for h in found)
