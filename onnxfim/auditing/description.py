"""What an ONNX file takes and gives, and what this machine would run it with."""

from __future__ import annotations

from dataclasses import dataclass

from onnxfim.graph.ends import Normalisation, ending, normalisation
from onnxfim.graph.graph import Dimension, TensorInfo
from onnxfim.graph.load import ModelFile
from onnxfim.runtime.providers import available_providers, runtime_version


@dataclass(frozen=True)
class Description:
    """A file as `inspect` tells it.

    Attributes:
        file, sha256, bytes, producer: What it is; the producer is empty where the file does not say.
        opsets: Version of each operator set.
        nodes: Number of operators.
        inputs, outputs: Names, element types and shapes; an unknown dimension is None or its symbol.
        output_kind: What the last nodes make: ``logits``, ``probabilities`` or ``sigmoid``; None without a floating-point output.
        output_node: The node that decides it, None where the output is that of plain arithmetic.
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
    output_kind: str | None
    output_node: str | None
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
    output = next((o.name for o in graph.outputs if o.dtype.startswith("float")), None)
    end = None if output is None else ending(graph, output)
    into = next((i for i in graph.inputs if i.dtype.startswith("float")), None)
    return Description(
        file=str(file.path),
        sha256=file.sha256,
        bytes=file.bytes,
        producer=file.producer,
        opsets=dict(graph.opsets),
        nodes=len(graph.nodes),
        inputs=graph.inputs,
        outputs=graph.outputs,
        output_kind=None if end is None else end.kind,
        output_node=None if end is None else end.node,
        normalisation=None if into is None else normalisation(graph, into.name),
        quantised=any(n.op in ("QuantizeLinear", "DynamicQuantizeLinear") or n.op.startswith("QLinear") for n in graph.nodes),
        onnxruntime=runtime_version(),
        providers=available_providers(),
    )


def _open_axes(shape: tuple[Dimension, ...]) -> list[int]:
    return [k for k, n in enumerate(shape) if not isinstance(n, int)]
