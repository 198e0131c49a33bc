"""Reading the graph: its architecture class and the bound from its weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from onnxfim.auditing.cache import remembered_bound
from onnxfim.auditing.context import Context
from onnxfim.auditing.stages import stage
from onnxfim.graph.ends import Ending, ending
from onnxfim.record.bound import Bound

if TYPE_CHECKING:
    from onnxfim.spectral.reading import GraphReading


@stage("bounding", instead=lambda context, reason: None)
def read(context: Context) -> GraphReading | None:
    """Class, bound and closed forms; None where they were not asked for, or there is no graph."""
    file, info = context.subject.file, context.subject.info
    if file is None or not context.settings.bounds:
        return None
    from onnxfim.spectral.reading import read_graph  # once the first line is out

    context.say("bounding")
    if context.subject.turns is not None:
        context.subject.turns.none()
    store = context.memory.store({"bound of": file.sha256, **({} if file.held_hash is None else {"held": file.held_hash})})

    def remember(key: str, compute: Callable[[], Bound]) -> Bound:
        return compute() if store is None else remembered_bound(store, key, compute)

    end = ending(file.graph, info.output)
    logits = context.subject.kind.made_by(end)
    reading = read_graph(
        file.graph,
        input_name=info.input,
        output_name=info.output,
        logits=logits,
        remember=remember,
        progress=lambda *_: context.meter.check(),
    )
    return replace(reading, bound=_of_audit(reading.bound, context, end, logits=logits))


def _of_audit(bound: Bound, context: Context, end: Ending, *, logits: bool) -> Bound:
    """The bound of what the audit measured; not available where that is another quantity than the one that was bounded."""
    target = end.logits if logits and end.logits is not None else context.subject.info.output
    why = ""
    if not context.subject.kind.reads_logits and target == context.subject.info.output:
        why = (
            "the outputs are probabilities whose logits cannot be read: the Fisher information divides by them, so that a bound of "
            "their own slope is none of it"
        )
    elif context.subject.info.batch_axis:
        why = "the output holds its batch on another axis than the first, which the rules of the bound do not follow"
    if why:
        return replace(bound, available=False, reason=why, log10_lipschitz=None, log10_fisher=None, shares=())
    from onnxfim.spectral.reading import bound_for

    return replace(bound_for(bound, context.reader.log10_largest_spread), of_what_was_read=target == context.subject.read)
