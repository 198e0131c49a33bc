"""The bound of a whole graph: one pass of the operators' rules in topological order."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

from onnxfim.errors import ModelError
from onnxfim.graph.ends import ending
from onnxfim.graph.flow import Flow
from onnxfim.graph.graph import Graph, Node
from onnxfim.graph.held import POSITION
from onnxfim.graph.joint import JOINT
from onnxfim.spectral.bound_rules import RULES, BoundRule
from onnxfim.spectral.kernels import gaussian_kernels, polynomial_machines
from onnxfim.spectral.patterns import normalisations
from onnxfim.spectral.prepared import prepared_view
from onnxfim.spectral.result import Bound, Share, shown, times, up
from onnxfim.spectral.rules.classical import of_kernels
from onnxfim.spectral.rules.normalisations import normalised
from onnxfim.spectral.site import Composition, NotFinite, Value, unbounded

_LINEAR = ("Conv", "Gemm", "MatMul", "ConvTranspose")
#: What a rule raises at a malformed node: it met a shape or an attribute that the operator does not allow.
_UNFIT = (LookupError, ValueError, TypeError, AttributeError, ArithmeticError)
_STATIC = ("Shape", "Size")


def spectral_bound(
    graph: Graph | Flow,
    *,
    input_name: str | None = None,
    output_name: str | None = None,
    logits: bool = True,
    input_range: tuple[float, float] | None = None,
    progress: Callable[[int, int, str], None] | None = None,
    rules: Mapping[str, BoundRule] = RULES,
) -> Bound:
    """Upper bound of the L2 Lipschitz constant of the map from one sample to its logits, and of ``‖F‖ ≤ ½L²``.

    Every operator's rule bounds the derivative of its output in terms of those of its inputs; linear operators are
    merged first.
    All arithmetic is in float64 and log10, rounded up.

    Args:
        graph: The model's graph, or its view by `prepared_view`.
        input_name: The audited input; the first floating-point input by default. Other inputs are taken as fixed.
        output_name: The output; the first one by default.
        logits: Whether a final Softmax, LogSoftmax or Sigmoid is left out, so that the bound is that of the logits.
        input_range: Least and largest value of any input entry. Products and attention may be bounded on this box where they
            have no global bound; the bound then holds inside the box only, and says so.
        progress: Called with (layers done, layers in all, name) before each layer.
        rules: The operators' rules; others only for comparison.

    Returns:
        The bound; not available, with the reason, where an operator has no rule or no finite bound.

    Raises:
        ModelError: the graph has no such input or output.
    """
    view = prepared_view(graph, input_name)
    target = _target(view, output_name, logits=logits)
    needed = _needed(view, target)
    ctx = Composition(view, progress, sum(n.op in _LINEAR for n in needed))
    low, high = input_range if input_range is not None else (-math.inf, math.inf)
    ctx.values[view.source.name] = Value(view.source.name, view.shape(view.source.name), log=0.0, low=low, high=high)
    problem = view.problem or ""
    if not view.source.dtype.startswith(("float", "bfloat")):
        problem = problem or f"input {view.source.name!r} holds {view.source.dtype}: whole numbers have no derivative"
    try:
        _run(ctx, needed, rules)
        value = ctx.values.get(target)
        log = -math.inf if value is None else ctx.log(value)
        problem = problem or ("" if value is None or log < math.inf else ctx.reason(value))
        _complete(ctx)
    except NotFinite as error:
        log, problem = math.inf, problem or str(error)
    except _UNFIT as error:  # linear operators are merged when a norm is asked for: some of them do not fit one another
        log, problem = math.inf, problem or f"its operators' shapes or attributes do not fit one another ({_first_line(error)})"
    factors = tuple(f for _, f in sorted(ctx.factors, key=lambda entry: entry[0]))
    assumptions = _assumptions(view, ctx, logits=logits, target=target, input_range=input_range)
    if problem or log == math.inf:
        return Bound(False, problem or "no finite bound", None, None, factors, assumptions, ())
    fisher = up(times(log, log) + math.log10(0.5)) if log > -math.inf else -math.inf
    return Bound(True, "", shown(log), shown(fisher), factors, assumptions, _shares(ctx, needed, target))


def _target(view: Flow, output_name: str | None, *, logits: bool) -> str:
    """The value whose bound is asked for."""
    graph = view.graph
    names = [o.name for o in graph.outputs]
    if not names:
        raise ModelError("graph: has no output, so nothing can be bounded. Export the model with its output.")
    floating = [o.name for o in graph.outputs if o.dtype.startswith(("float", "bfloat"))]
    name = output_name if output_name is not None else (floating or names)[0]
    if name not in graph.producers and name not in names:
        raise ModelError(f"graph: has no output {name!r}; its outputs are {', '.join(map(repr, names))}. Choose one of them.")
    if not logits:
        return name
    end = ending(graph, name)
    return end.logits if end.logits is not None and end.logits in view.varying else name


def _needed(view: Flow, target: str) -> list[Node]:
    """The nodes between the input and ``target``, in graph order; reading only shapes does not count."""
    live = {view.source.name}
    for node in view.graph.nodes:
        if node.op not in _STATIC and any(o in view.varying for o in node.outputs) and (
            node.has_subgraph or any(n in live for n in node.inputs)
        ):  # fmt: skip
            live.update(o for o in node.outputs if o)
    wanted, result = {target}, []
    for node in reversed(view.graph.nodes):
        if any(o in wanted and o in live for o in node.outputs):
            result.append(node)
            wanted.update(n for n in node.inputs if n in live)
    return result[::-1]


def _run(ctx: Composition, nodes: list[Node], rules: Mapping[str, BoundRule]) -> None:
    machines = polynomial_machines(ctx.flow)
    patterns, kernels = normalisations(ctx.flow), gaussian_kernels(ctx.flow)
    for node in nodes:
        found = patterns.get(node.outputs[0])
        if found is not None and found.source in ctx.values:
            results: tuple[Value, ...] = (normalised(ctx, node, ctx.values[found.source], found),)
        elif (made := kernels.get(node.outputs[0])) is not None and made.source in ctx.values:
            results = (of_kernels(ctx, node, ctx.values[made.source], made),)
        else:
            results = _apply(ctx, node, rules)
        cause = _cause(ctx, node) or machines.get(node.label, "")
        for value in results:
            ctx.values[value.name] = replace(value, reason=cause) if value.log == math.inf and cause else value
        for output in node.outputs:
            if output and output not in ctx.values:
                ctx.values[output] = replace(
                    ctx.fresh(node, math.inf, reason=unbounded(node, "this output has no rule")), name=output
                )


def _cause(ctx: Composition, node: Node) -> str:
    """Why the node's one input that varies has no bound, which comes before what its own rule says; empty where it has one.

    Of several inputs the rule itself says which matters: attention has a bound where its scores by themselves have none.
    """
    varying = {n for n in node.inputs if n in ctx.values}
    value = ctx.values[varying.pop()] if len(varying) == 1 else None
    if value is None or not any(v.log == math.inf for v in (value, *(anchor for anchor, _ in value.terms))):
        return ""
    return ctx.reason(value)


def _apply(ctx: Composition, node: Node, rules: Mapping[str, BoundRule]) -> tuple[Value, ...]:
    problem = next((ctx.flow.problems[o] for o in node.outputs if o in ctx.flow.problems), None)
    if problem is not None:
        return (ctx.fresh(node, math.inf, reason=problem),)
    if node.has_subgraph:
        return (ctx.fresh(node, math.inf, reason=unbounded(node, "sub-graphs have no rule")),)
    rule = rules.get(node.op)
    if rule is None:
        return (ctx.fresh(node, math.inf, reason=unbounded(node, "has no rule")),)
    try:
        result = rule(ctx, node)
    except NotFinite:
        raise
    except ModelError as error:
        raise NotFinite(unbounded(node, str(error))) from error
    except _UNFIT as error:
        reason = f"its inputs or attributes do not fit it ({_first_line(error)})"
        return (ctx.fresh(node, math.inf, reason=unbounded(node, reason)),)
    except MemoryError:
        return (ctx.fresh(node, math.inf, reason=unbounded(node, "its shapes take more memory than there is")),)
    return result if isinstance(result, tuple) else (result,)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__


def _complete(ctx: Composition) -> None:
    """Bound the layers that the figure did not need, so that the table is whole even where there is no figure."""
    for value in list(ctx.values.values()):
        if value.terms and any(ctx.log(a) == math.inf for a, _ in value.terms) and not _continued(ctx, value):
            ctx.log(value)


def _continued(ctx: Composition, value: Value) -> bool:
    """Whether only linear operators read the value, so that its layers appear in theirs."""
    readers = ctx.flow.graph.consumers.get(value.name, ())
    return bool(readers) and all(r.outputs and r.outputs[0] in ctx.values and ctx.values[r.outputs[0]].terms for r in readers)


def _shares(ctx: Composition, nodes: list[Node], target: str) -> tuple[Share, ...]:
    """log10 L from one value that all paths cross to the next: what each block contributes."""
    readers: dict[str, int] = {}
    inside = {o for n in nodes for o in n.outputs if o} | {ctx.flow.source.name}
    for node in nodes:
        for name in dict.fromkeys(node.inputs):
            if name in inside:
                readers[name] = readers.get(name, 0) + 1
    open_values, before, count = {ctx.flow.source.name}, 0.0, 0
    shares: list[Share] = []
    pending: Node | None = None
    for node in nodes:
        count += 1
        for name in dict.fromkeys(node.inputs):
            if name in inside:
                readers[name] -= 1
                if readers[name] == 0:
                    open_values.discard(name)
        open_values.update(o for o in node.outputs if o and (readers.get(o) or o == target))
        if node.op in _LINEAR or pending is None:
            pending = node
        if len(open_values) != 1:
            continue
        (crossing,) = open_values
        value = ctx.values[crossing]
        if crossing != target and (value.terms or crossing not in node.outputs):
            continue
        log = shown(ctx.log(value))
        shares.append(Share(pending.label, pending.op, log - before, log, count))
        before, count, pending = log, 0, None
    return tuple(shares)


def _assumptions(
    view: Flow, ctx: Composition, *, logits: bool, target: str, input_range: tuple[float, float] | None
) -> tuple[str, ...]:
    where = "all inputs" if input_range is None else f"inputs with every entry in [{input_range[0]:g}, {input_range[1]:g}]"
    moved = "inputs perturbed together, as one vector," if view.source.name == JOINT else f"input {view.source.name!r}"
    lines = [
        f"L2 norm of one sample's {moved} in the units the file reads, for {where}.",
        "Exact arithmetic on the stored weights; rounding in float32 or less while the model runs is not part of the map.",
        "Each norm is rounded up: a relative 1e-8 for its own arithmetic, then the next float up.",
    ]
    if logits and not any(target == o.name for o in view.graph.outputs):
        lines.append(f"The logits are {target!r}: the final softmax or sigmoid is left out.")
    elif logits and not ending(view.graph, target).linear:
        lines.append(f"The output {target!r} is taken as logits: where it holds probabilities, ½L² is no bound of F.")
    others = [i.name for i in view.graph.inputs if i.name not in (view.source.name, POSITION)]
    if any(i.name == POSITION for i in view.graph.inputs):
        lines.append("Inputs that are held at each sample's own value may have any.")
    if others:
        lines.append(f"Other inputs are fixed: {', '.join(others)}.")
    return (*lines, *ctx.notes)
