"""What the `inspect` command shows."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from typing import Any

from onnxfim.auditing.description import Description, describe
from onnxfim.cli.console import Console
from onnxfim.graph.graph import TensorInfo
from onnxfim.graph.heads import Head
from onnxfim.graph.inner import Place, Unplaced
from onnxfim.graph.load import load_model
from onnxfim.record.foreign_text import visible


def inspect_command(path: str, as_json: bool, console: Console) -> None:
    """Print the description of a model file."""
    found = describe(load_model(path))
    record = published(found)
    if as_json:
        console.document(json.dumps(record, indent=1, allow_nan=False))
        return
    for line in _answer(found, path):
        console.line(line, copied=line.startswith("next: "))
    console.table((), [(key.replace("_", " "), _text(value)) for key, value in record.items()], folded=True)


def _answer(found: Description, path: str) -> Iterator[str]:
    """Whether an audit can read the file, of what by what, and the command that does; or why not."""
    kind = found.output_kind
    if found.audited is None or kind is None:
        yield "answer: no output can be audited as it is: none holds scores that can be read"
        return
    if isinstance(found.at, Unplaced):
        yield f"answer: cannot be audited: {found.at.words}"
        return
    if found.no_slope is not None:
        yield f"answer: an audit finds no slope: {found.no_slope}"
        return
    output = next((h.value for h in found.heads if h.name == found.audited), None)
    roles = list(zip(found.inputs, found.roles, strict=True))
    moved = [i for i, role in roles if role == "perturbed"]
    asked = [i.name for i, role in roles if role is None]
    by = f"value {found.at.tensor!r} inside" if isinstance(found.at, Place) else None
    by = by or ", ".join(f"input {i.name!r} {i.dtype} {_text(_value(i)['shape'])}" for i in moved) or "the input named by --input"
    shape = "" if output is None else f" {_text(_value(output)['shape'])}"
    yield f"answer: can be audited: {kind} of output {found.audited!r}{shape}, by {by}"
    named = f" --input {shlex.quote(asked[0])}" if asked and not moved else ""
    fed = "".join(
        f" --feed {shlex.quote(i.name)}=VALUE" for i, role in zip(found.inputs, found.roles, strict=False) if role == "held"
    )
    yield f"next: onnxfim audit {shlex.quote(path)} --data DATA.npz{named}{fed}"


_NAMES = {"known_from": "known from", "before_it": "before it"}  # keys of ``--json`` as a table has them


def published(found: Description) -> dict[str, Any]:
    """The description in the layout of ``--json``."""
    norm = found.normalisation
    return {
        "file": found.file,
        "sha256": found.sha256,
        "bytes": found.bytes,
        "producer": found.producer or None,
        "opsets": found.opsets,
        "nodes": found.nodes,
        "inputs": [{**_value(v), "role": r} for v, r in zip(found.inputs, found.roles, strict=True)],
        "outputs": [_value(v) for v in found.outputs],
        "heads": [_head(h) for h in found.heads],
        "audited_output": found.audited,
        "dynamic_axes": found.dynamic_axes,
        "output_kind": None if found.output_kind is None else {"kind": found.output_kind, "node": found.output_node},
        "output_axes": {"classes": found.class_axis, "known_from": found.class_axis_from, "batch": found.batch_axis},
        "audited_from": _entry(found.at),
        "no_slope": found.no_slope,
        "normalisation": None if norm is None else {"mean": list(norm.mean), "std": list(norm.std), "nodes": list(norm.nodes)},
        "quantised": found.quantised,
        "onnxruntime": found.onnxruntime,
        "providers_in_this_build": list(found.providers),
    }


def _head(head: Head) -> dict[str, Any]:
    value = _value(head.value) | {"name": head.name}
    return value | {"kind": head.kind, "role": head.role, "of": head.of, "value": head.value.name, "how": head.how}


def _entry(at: Place | Unplaced | None) -> dict[str, Any] | str:
    """Where the file would be audited."""
    if isinstance(at, Place):
        return {"value": at.tensor, "before_it": at.front, "units": f"nats per squared {at.unit}"}
    return "its input" if at is None else f"no value of its own: {at.words}"


def _value(info: TensorInfo) -> dict[str, Any]:
    return {"name": info.name, "dtype": info.dtype, "shape": None if info.shape is None else list(info.shape)}


def _among(value: dict[str, Any]) -> str:
    """What a head is read as, and what it is among the others; nothing of inputs and outputs."""
    if "role" not in value:
        return ""
    role = {
        "head": "", "same": "the same as", "derived": "follows from", "features": "what is computed before",
        "state": "what a later call takes as",
    }.get(value["role"])  # fmt: skip
    place = value["role"] if role is None else f"{role} {visible(value['of'])}" if role else ""
    told = [value["kind"] or "", place, visible(value["how"] or "")]
    return "  " + "; ".join(filter(None, told))


def _beside(value: dict[str, Any]) -> str:
    """What stands beside a value: of a head what it is among the others, of an input what becomes of it."""
    return _among(value) if "kind" in value else _role(value)


def _role(value: dict[str, Any]) -> str:
    """What an audit makes of an input, where it makes something else of it than to perturb it."""
    told = {
        "held": "  held at a --feed",
        "not read": "  not read by the output",
        None: "  perturbed as --input, or held at a --feed",
    }
    return told.get(value["role"], "") if "role" in value else ""


def _text(value: Any) -> str:
    if isinstance(value, dict):
        shown = {k: v for k, v in value.items() if not (k == "node" and v is None)}  # most kinds are told by no node
        return ", ".join(f"{visible(_NAMES.get(k, k))}: {_text(v)}" for k, v in shown.items()) or "none"
    if isinstance(value, list):
        if value and isinstance(value[0], dict):
            return "\n".join(f"{visible(v['name'])}  {v['dtype']}  {_text(v['shape'])}{_beside(v)}" for v in value)
        return "[" + ", ".join("?" if v is None else visible(str(v)) for v in value) + "]"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none found" if value is None else f"{value:,}" if isinstance(value, int) else visible(str(value))
