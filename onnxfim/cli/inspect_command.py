"""What the `inspect` command shows."""

from __future__ import annotations

import json
from typing import Any

import click

from onnxfim.graph.ends import ending, normalisation
from onnxfim.graph.load import ModelFile, load_model
from onnxfim.runtime.providers import available_providers, runtime_version


def inspect_command(path: str, as_json: bool) -> None:
    """Print the description of a model file."""
    record = describe(load_model(path))
    if as_json:
        click.echo(json.dumps(record, indent=1, allow_nan=False))
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in record.items():
        table.add_row(key.replace("_", " "), escape(_text(value)))
    Console().print(table)


def describe(file: ModelFile) -> dict[str, Any]:
    """The description as plain values."""
    graph = file.graph
    floats = [o for o in graph.outputs if o.dtype.startswith("float")]
    output = floats[0].name if floats else None
    end = ending(graph, output) if output is not None else None
    into = next((i for i in graph.inputs if i.dtype.startswith("float")), None)
    norm = normalisation(graph, into.name) if into is not None else None
    return {
        "file": str(file.path),
        "sha256": file.sha256,
        "bytes": file.bytes,
        "producer": file.producer or None,
        "opsets": dict(graph.opsets),
        "nodes": len(graph.nodes),
        "inputs": [{"name": i.name, "dtype": i.dtype, "shape": _shape(i.shape)} for i in graph.inputs],
        "outputs": [{"name": o.name, "dtype": o.dtype, "shape": _shape(o.shape)} for o in graph.outputs],
        "dynamic_axes": {
            v.name: [k for k, n in enumerate(v.shape) if not isinstance(n, int)]
            for v in (*graph.inputs, *graph.outputs)
            if v.shape is not None and any(not isinstance(n, int) for n in v.shape)
        },
        "output_kind": None if end is None else {"kind": end.kind, "node": end.node},
        "normalisation": None if norm is None else {"mean": list(norm.mean), "std": list(norm.std), "nodes": list(norm.nodes)},
        "quantised": any(n.op in ("QuantizeLinear", "DynamicQuantizeLinear") or n.op.startswith("QLinear") for n in graph.nodes),
        "onnxruntime": runtime_version(),
        "providers_in_this_build": list(available_providers()),
    }


def _shape(shape: tuple[int | str | None, ...] | None) -> list[int | str | None] | None:
    return None if shape is None else list(shape)


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k}: {_text(v)}" for k, v in value.items()) or "none"
    if isinstance(value, list):
        if value and isinstance(value[0], dict):
            return "\n".join(f"{v['name']}  {v['dtype']}  {_text(v['shape'])}" for v in value)
        return "[" + ", ".join("?" if v is None else str(v) for v in value) + "]"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none found" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
