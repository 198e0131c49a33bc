"""What an ONNX file takes and gives, and what this machine would run it with."""

from __future__ import annotations

from dataclasses import dataclass

from onnxfim.auditing.entry import whole_input, with_floats, with_names
from onnxfim.graph.choosing_inputs import roles_by_default
from onnxfim.graph.ends import Normalisation, normalisation
from onnxfim.graph.graph import Dimension, Graph, TensorInfo
from onnxfim.graph.heads import Head, heads, main_head
from onnxfim.graph.held import Role
from onnxfim.graph.inner import Place, Unplaced, place_of
from onnxfim.graph.load import ModelFile
from onnxfim.graph.output_axes import class_clues, named_axes
from onnxfim.graph.quantised import rounding_operators
from onnxfim.graph.reach import no_slope
from onnxfim.runtime.providers import available_providers, runtime_version


@dataclass(frozen=True)
class Description:
    """A file as `inspect` tells it.

    Attributes:
        file, sha256, bytes, producer: What it is; the producer is empty where the file does not say.
        opsets: Version of each operator set.
        nodes: Number of operators.
        inputs, outputs: Names, element types and shapes; an unknown dimension is None or its symbol.
        roles: What an audit makes of each input by default: it is perturbed, held (at a value that is to be given), or not read;
            None of those among which one must be named to be perturbed.
        heads: What the outputs hold, each or several together, and what each is among the others.
        audited: The head that an audit takes where none is named, None where there is none; what follows is about it.
        output_kind: What its last nodes make, as `Head` has it.
        output_node: The node that decides it, None where the output is that of plain arithmetic.
        class_axis, class_axis_from: The axis of that output that holds the classes, as far as the graph tells, and what says so.
        batch_axis: The axis of that output that holds the batch, as far as its names tell; the first where they do not.
        at: Of a file of whole numbers, the value behind its input that it would be audited from, or why there is none; None where
            that is its input.
        no_slope: Why that output has no slope by the input, or None.
        normalisation: The normalisation in the graph's first nodes, or None.
        quantised: Whether it rounds to integers somewhere.
        onnxruntime, providers: Version of the runtime, and the providers of this build.
    """

    file: str
    sha256: str
    bytes: int
    producer: str
    opsets: dict[str, int]
    nodes: int
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    heads: tuple[Head, ...]
    audited: str | None
    roles: tuple[Role | None, ...]
    output_kind: str | None
    output_node: str | None
    class_axis: int | None
    class_axis_from: str | None
    batch_axis: int | None
    at: Place | Unplaced | None
    no_slope: str | None
    normalisation: Normalisation | None
    quantised: bool
    onnxruntime: str
    providers: tuple[str, ...]

    @property
    def dynamic_axes(self) -> dict[str, list[int]]:
        """The axes of each input and output whose size the file leaves open."""
        values = {v.name: v.shape for v in (*self.inputs, *self.outputs) if v.shape is not None}
        return {name: axes for name, shape in values.items() if (axes := _open_axes(shape))}


def describe(file: ModelFile) -> Description:
    """The description of a file that was read."""
    graph = file.graph
    found, roles = heads(graph), roles_by_default(file)
    main = main_head(found)
    first = None if main is None else main.value
    output = None if first is None else first.name
    into = next((i for i, r in zip(graph.inputs, roles, strict=False) if r == "perturbed"), None)
    into = into or next((i for i in graph.inputs if i.dtype.startswith("float")), None)
    place = _place(file, output) if into is None or not into.dtype.startswith("float") else None
    start = place.tensor if isinstance(place, Place) else None if into is None else into.name
    batch, (axis, known) = 0 if first is None else batch_axis(first), (None, None)
    if first is not None:
        axis, known = class_axis(graph, first, batch)
    return Description(
        file=str(file.path),
        sha256=file.sha256,
        bytes=file.bytes,
        producer=file.producer,
        opsets=dict(graph.opsets),
        nodes=len(graph.nodes),
        inputs=graph.inputs,
        outputs=graph.outputs,
        roles=roles,
        heads=found,
        audited=None if main is None else main.name,
        output_kind=None if main is None else main.kind,
        output_node=None if main is None else main.node,
        class_axis=axis,
        class_axis_from=known,
        batch_axis=None if first is None else batch,
        at=place,
        no_slope=None if start is None or output is None else no_slope(graph, start, output),
        normalisation=None if start is None else normalisation(graph, start),
        quantised=bool(rounding_operators(file.proto)),
        onnxruntime=runtime_version(),
        providers=available_providers(),
    )


def _place(file: ModelFile, output: str | None) -> Place | Unplaced | None:
    """Where a file without a float input would be audited."""
    into = whole_input(file, None)
    return None if into is None else place_of(with_floats(with_names(file), into, None).graph, into, output)


def batch_axis(output: TensorInfo) -> int:
    """The axis of an output that is called like a batch, the first where none is."""
    named = named_axes(output.shape, "batch")
    return 0 if not named or 0 in named else named[0]


def class_axis(graph: Graph, output: TensorInfo, batch: int) -> tuple[int | None, str | None]:
    """The axis of the classes as far as the graph alone tells it, and what says so."""
    shape = output.shape or graph.shapes.get(output.name)
    if shape is None:
        return None, None
    axes = [k for k in range(len(shape)) if k != batch]
    if len(axes) == 1:
        return axes[0], "the only axis beside the batch"
    for clue in class_clues(graph, output.name, len(shape)):
        if clue.axis in axes and (clue.firm or shape[clue.axis] != 1):
            return clue.axis, clue.how
    return None, None


def _open_axes(shape: tuple[Dimension, ...]) -> list[int]:
    return [k for k, n in enumerate(shape) if not isinstance(n, int)]
