"""Reading the graph: its architecture class and the bound from its weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from onnxfim.auditing.cache import remembered_bound
from onnxfim.auditing.context import Context
from onnxfim.auditing.stages import stage
from onnxfim.graph.ends import ending
from onnxfim.record.bound import Bound
from onnxfim.spectral.reading import GraphReading, bound_for, read_graph


@stage("bounding")
def read(context: Context) -> GraphReading | None:
    """Class, bound and closed forms; None where they were not asked for, or there is no graph."""
    file, info = context.subject.file, context.subject.info
    if file is None or not context.settings.bounds:
        return None
    context.say("bounding")
    store = context.memory.store({"bound of": file.sha256})

    def remember(key: str, compute: Callable[[], Bound]) -> Bound:
        return compute() if store is None else remembered_bound(store, key, compute)

    logits = context.subject.kind.made_by(ending(file.graph, info.output))
    reading = read_graph(file.graph, input_name=info.input, output_name=info.output, logits=logits, remember=remember)
    return replace(reading, bound=bound_for(reading.bound, context.reader.log10_largest_spread))
