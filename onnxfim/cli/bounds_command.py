"""What the `bounds` command does: the class and the spectral bound of a model, from its weights alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from onnxfim.auditing.entry import unread
from onnxfim.auditing.inputs import with_feeds
from onnxfim.cli.console import Console
from onnxfim.cli.identifying import told_by, words_given
from onnxfim.cli.outputs import Outputs, write_each
from onnxfim.errors import InputError, OutputError
from onnxfim.graph.choosing_heads import choose_heads, heads_of
from onnxfim.graph.ends import ending
from onnxfim.graph.graph import Graph
from onnxfim.graph.heads import Head, main_head
from onnxfim.graph.held import POSITION
from onnxfim.graph.in_logarithms import in_logarithms
from onnxfim.graph.load import ModelFile, load_model
from onnxfim.record.dates import report_date
from onnxfim.record.identity import FileDigest, Identity
from onnxfim.record.plain import to_plain
from onnxfim.record.report_id import asked_of_bounds, report_id
from onnxfim.report.bound_words import bound_lines
from onnxfim.report.page.bound_section import upper
from onnxfim.spectral.costs import Weighed
from onnxfim.spectral.reading import NO_LOGITS, GraphReading, read_graph, without

_TOLD = 8  # outputs in a message
_LAYERS = 20  # on a screen, in graph order


def bounds_command(
    model: str,
    outputs: Sequence[tuple[str, str]],
    as_json: bool,
    console: Console,
    assets: str | None = None,
    **options: Any,
) -> None:
    """Read a graph, write what was asked for, and print the summary."""
    from onnxfim.report import render_bounds_html

    wanted, told = Outputs(outputs, assets), told_by(options, words_given())
    wanted.check([model])
    if wanted.to_stdout:
        if as_json:
            raise OutputError("--json: prints to stdout, which -o takes too, expected one of them. Drop --json, or name a file.")
        console.take_stdout()
    with console.said_where_slow("reading the model"):
        file = load_model(model)
    wanted.check_apart(file.files)
    with console.layers() as progress:
        head = _head(file, options["output"])
        output = None if head is None else head.value.name
        fed, into = with_feeds(file, tuple(options["input"]), options["output"], options["feed"], options["shape"])
        graph, entry = unread(fed, input_name=into, output_name=output, at=options["at"])
        reading = _read(graph, head, entry, file.path.parent, progress)
    identity = told.of(_identity(file, fed.held_hash, options))
    record = to_json(file, reading, identity)
    render: dict[str, Callable[[GraphReading], str]] = {
        "html": lambda found: render_bounds_html(file.path.name, file.sha256, found, identity=identity, assets_dir=assets),
        "json": lambda _: record,
    }
    written = write_each(outputs, render, reading)
    if as_json:
        console.document(record)
    else:
        _print(reading, console, _ways(fed, graph, entry))
    if written.problem is not None:
        raise written.problem


def _read(
    graph: Graph, head: Head | None, entry: str | None, folder: Path, progress: Callable[[int, int, float], None]
) -> GraphReading:
    """Class and bound of what an audit of the head measures: its logits, or those that probabilities are written out from."""
    output, logits, why = None if head is None else head.value.name, True, ""
    if head is not None and output is not None:
        end = ending(graph, output)
        if head.holds_probabilities and end.logits is None:
            made = in_logarithms(graph.model, output, odds=end.kind == "sigmoid", base_dir=folder)
            why = NO_LOGITS if made is None else ""
            if made is not None:
                graph, output, logits = Graph(made[0], base_dir=folder), made[1], False
        elif head.detects:
            why = f"output {head.name!r} holds boxes too: an audit with --output-kind detection has the bound of the scores"
    weighed = Weighed(graph)

    def told(number: int, total: int, name: str) -> None:
        progress(number, total, weighed.begins(name))

    reading = read_graph(graph, input_name=entry, output_name=output, logits=logits, progress=told)
    return replace(reading, bound=without(reading.bound, why), closed_forms=()) if why else reading


def _head(file: ModelFile, name: str | None) -> Head | None:
    """The head that an audit of this output reads; None where no output can be read, which the bound then says.

    Raises:
        InputError: an output that cannot be read, or several.
    """
    if name is None:
        return main_head(heads_of(file))
    chosen = choose_heads(file, name)
    if len(chosen) > 1:
        told = ", ".join(repr(h.name) for h in chosen[:_TOLD]) + (", …" if len(chosen) > _TOLD else "")
        raise InputError(
            f"{file.path}: --output {name} names {len(chosen)} outputs, expected one: a bound is of one. Name one of {told}; the "
            "bound of several together stands in the report of an audit with the same --output."
        )
    return chosen[0]


def _identity(file: ModelFile, held: str | None, options: Mapping[str, Any]) -> Identity:
    """Who the report is; ``held`` is the hash of what other inputs were held at."""
    asked = asked_of_bounds(
        file.sha256, held=held, **{name: options[name] for name in ("input", "output", "shape", "at")}
    )  # fmt: skip
    files = [FileDigest("weights" if at else "model", str(path), sha256) for at, (path, sha256) in enumerate(file.digests)]
    return Identity(report_id(asked), report_date(), asked=asked, files=tuple(files))


def to_json(file: ModelFile, reading: GraphReading, identity: Identity | None = None) -> str:
    """The reading as JSON text; every number is finite."""
    record = {
        "schema_version": "1.0",
        "model": {"path": str(file.path), "sha256": file.sha256, "bytes": file.bytes},
        "architecture": to_plain(reading.architecture),
        "bound": to_plain(reading.bound),
        "closed_forms": to_plain(reading.closed_forms),
        **({} if identity is None else {"identity": to_plain(identity)}),
    }
    return json.dumps(record, indent=1, allow_nan=False)


def _ways(file: ModelFile, graph: Graph, entry: str | None) -> str:
    """What can be said of inputs that may give a bound where there is none, as sentences after the reason."""
    batches = {(i.shape or (None,))[0] for i in file.graph.inputs} - {None}
    unsized = [i.name for i in file.graph.inputs if any(not isinstance(d, int) and d not in batches for d in (i.shape or ())[1:])]
    others = [i.name for i in graph.inputs if i.name not in (entry, POSITION)] if entry is not None else []
    told = [
        f"Sizes that the file leaves open can be said: --shape {unsized[0]}:[N,SIZE,…]." if unsized else "",
        f"Inputs that are not held may have any value: --feed {others[0]}=VALUE holds one." if others else "",
    ]
    return " ".join(filter(None, told))


def _print(reading: GraphReading, console: Console, ways: str) -> None:
    """The answer, the class with its evidence, and, but for --quiet, the layers and what is assumed."""
    for text in bound_lines(reading.bound, ways):
        console.line(text)
    console.line(f"class: {reading.architecture.family}")
    for line in reading.architecture.evidence:
        console.line(f"  {line}")
    if console.quiet:
        return
    factors = reading.bound.factors
    if console.on_screen:
        largest = sorted(range(len(factors)), key=lambda i: -factors[i].log10_norm)[:_LAYERS]
        factors = tuple(factors[i] for i in sorted(largest))
    if factors:
        console.table(
            ("layer", "op", "shape", "norm at most", "method"),
            [(f.node, f.op, "×".join(map(str, f.shape)), upper(f.log10_norm), f.method + ("" if f.rigorous else " (not rigorous)"))
             for f in factors],
        )  # fmt: skip
    if left := len(reading.bound.factors) - len(factors):
        console.line(f"{left:,} layers with smaller norms are not shown; a pipe (| less), --json and -o html=PATH have them all")
    for form in reading.closed_forms:
        if form.log10_lipschitz is not None:
            console.line(f"these layers in the form of {form.family}, {form.formula}: {upper(form.log10_lipschitz)}")
    for assumption in reading.bound.assumptions:
        console.line(f"assumes: {assumption}")
