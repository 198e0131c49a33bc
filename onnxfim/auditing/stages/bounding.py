"""Reading the graph: its architecture class and the bound from its weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from onnxfim.auditing.cache import remembered_bound
from onnxfim.auditing.context import Context
from onnxfim.auditing.stages import stage
from onnxfim.graph.ends import Ending, ending
from onnxfim.graph.graph import Graph
from onnxfim.record.bound import Bound

if TYPE_CHECKING:
    from onnxfim.spectral.reading import GraphReading


@stage("bounding", instead=lambda context, reason: None)
def read(context: Context) -> GraphReading | None:
    """Class, bound and closed forms; None where they were not asked for, or there is no graph."""
    file, info = context.subject.file, context.subject.info
    if file is None or not context.settings.bounds:
        return None
    from onnxfim.spectral.costs import Weighed
    from onnxfim.spectral.prepared import prepared_view
    from onnxfim.spectral.reading import read_graph  # once the first line is out

    context.say("bounding")
    if context.subject.turns is not None:
        context.subject.turns.none()
    copied = {} if context.subject.output == info.output else {"read as": (info.output, info.rewritten)}
    held = {} if file.held_hash is None else {"held": file.held_hash}
    store = context.memory.store({"bound of": file.sha256, **copied, **held})

    def remember(key: str, compute: Callable[[], Bound]) -> Bound:
        return compute() if store is None else remembered_bound(store, key, compute)

    weighed = Weighed(file.graph)

    def told(done: int, total: int, name: str) -> None:
        context.meter.check()
        context.meter.count(done - 1, total, "layers", weighed.begins(name))
        context.say("bounding")

    view = prepared_view(file.graph, info.input)
    end = ending(view.graph, context.subject.output)  # of the graph that is bounded: some scores are values of it alone
    logits, output = context.subject.kind.made_by(end), context.subject.output
    source = context.subject.differentiable
    if source is not None and _written_out(context, end, logits=logits):
        view, logits, output = prepared_view(Graph(source.proto, base_dir=source.base_dir), info.input), False, source.logits
    reading = read_graph(
        view,
        input_name=info.input,
        output_name=output,
        logits=logits,
        remember=remember,
        progress=told,
    )
    return replace(reading, bound=_of_audit(reading.bound, context, end.logits if logits and end.logits is not None else output))


def _written_out(context: Context, end: Ending, *, logits: bool) -> bool:
    """Whether the audit read logarithms that stand in its copy alone, where the file holds no logits."""
    subject = context.subject
    return not (logits and end.logits) and subject.of_copy and not subject.of_logarithm


def _of_audit(bound: Bound, context: Context, target: str) -> Bound:
    """The bound of what the audit measured; not available where that is another quantity than the one that was bounded."""
    from onnxfim.spectral.reading import NO_LOGITS, bound_for, without

    why = ""
    if not context.subject.kind.reads_logits and target == context.subject.output:
        why = NO_LOGITS
    elif context.subject.info.batch_axis:
        why = "the output holds its batch on another axis than the first, which the rules of the bound do not follow"
    if why:
        return without(bound, why)

    return replace(bound_for(bound, context.reader.log10_largest_spread), of_what_was_read=target == context.subject.read)
