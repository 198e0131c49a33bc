"""KServe's open inference protocol, version 2: requests and answers as bytes, in JSON or with binary tensors behind it.

Source: https://github.com/kserve/open-inference-protocol (inference_rest.md), and Triton's extension_binary_data.md.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from onnxfim.errors import ModelError
from onnxfim.record.foreign_text import clipped
from onnxfim.served.trouble import Trouble

Array: TypeAlias = np.ndarray[Any, Any]
Wire: TypeAlias = Literal["binary", "JSON"]

#: The header that tells where the JSON ends and binary tensors begin.
HEADER = "Inference-Header-Content-Length"
#: The extension that a server names which takes binary tensors.
BINARY = "binary_tensor_data"
_FLOATS: dict[str, np.dtype[Any]] = {"FP16": np.dtype("<f2"), "FP32": np.dtype("<f4"), "FP64": np.dtype("<f8")}
_LONGEST = 120  # letters of a foreign name in a message


@dataclass(frozen=True)
class Tensor:
    """An input or output as the server tells it; the shape holds the batch, None for a size that is open."""

    name: str
    datatype: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class Metadata:
    """What a server tells of a model."""

    name: str
    versions: tuple[str, ...]
    platform: str | None
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    sha256: str


def element(datatype: str) -> np.dtype[Any] | None:
    """The NumPy type of a datatype, where it is one of floats."""
    return _FLOATS.get(datatype)


def datatype_of(dtype: np.dtype[Any]) -> str:
    """What the protocol calls a type of floats."""
    return next(name for name, kind in _FLOATS.items() if kind == dtype)


def read_metadata(content: bytes, where: str) -> Metadata:
    """What an answer tells of a model.

    Raises:
        ModelError: it is none of this protocol.
    """
    try:
        told = json.loads(content)
        inputs, outputs = (tuple(map(_tensor, told.get(side) or ())) for side in ("inputs", "outputs"))
        text = json.dumps(told, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return Metadata(
            str(told["name"]), tuple(map(str, told.get("versions") or ())), _text(told.get("platform")), inputs, outputs,
            hashlib.sha256(text.encode("ascii")).hexdigest(),
        )  # fmt: skip
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ModelError(
            f"{where}: answers with no metadata of KServe v2 (it begins with {_begin(content)}), expected name, inputs and "
            "outputs. Check the address; another protocol is audited by --predict MODULE:FUNCTION."
        ) from None


def _tensor(told: Mapping[str, Any]) -> Tensor:
    shape = tuple(None if int(n) < 0 else int(n) for n in told["shape"])
    return Tensor(str(told["name"]), str(told["datatype"]), shape)


def _text(value: object) -> str | None:
    return None if value in (None, "") else str(value)


@dataclass(frozen=True)
class WireRequest:
    """A request as it is sent: body and headers."""

    body: bytes
    headers: dict[str, str]


def request_of(rows: Array, into: str, output: str | None, number: str, wire: Wire) -> WireRequest:
    """The request for the model's answers to some rows.

    Args:
        rows: Contiguous rows of floats, (B, *shape).
        into: The input's name.
        output: The output's name, or None for all.
        number: What the answer is told from others by.
        wire: How the numbers travel.
    """
    tensor: dict[str, Any] = {"name": into, "shape": list(rows.shape), "datatype": datatype_of(rows.dtype)}
    asked: dict[str, Any] = {"id": number, "inputs": [tensor]}
    if output is not None:
        asked["outputs"] = [{"name": output}]
    if wire == "JSON":
        tensor["data"] = rows.ravel().tolist()
        return WireRequest(json.dumps(asked, allow_nan=False).encode("ascii"), {"Content-Type": "application/json"})
    content = rows.astype(rows.dtype.newbyteorder("<"), copy=False).tobytes()
    tensor["parameters"] = {"binary_data_size": len(content)}
    if output is not None:
        asked["outputs"][0]["parameters"] = {"binary_data": True}
    else:
        asked["parameters"] = {"binary_data_output": True}
    head = json.dumps(asked).encode("ascii")
    return WireRequest(head + content, {"Content-Type": "application/octet-stream", HEADER: str(len(head))})


@dataclass(frozen=True)
class Expected:
    """What an answer must be.

    Attributes:
        number: The request's.
        rows: Along the axis ``batch``.
        output: Name of the output; None for the only one.
        shape: Sizes that are known, the batch's among them; None where nothing is.
        batch: Axis of the rows.
    """

    number: str
    rows: int
    output: str | None
    shape: tuple[int | None, ...] | None
    batch: int = 0


def answer_of(content: bytes, header: str | None, expected: Expected) -> Array:
    """The output that an answer holds, float64 of the answer's shape.

    Raises:
        Trouble: it is cut off, malformed, another request's, or of another shape or type; another try may bring a whole one.
            Where it has no output of that name, none will.
    """
    head, rest = _parts(content, header)
    try:
        told = json.loads(head)
    except (ValueError, RecursionError):
        raise Trouble(f"an answer that is no JSON (it begins with {_begin(head)})") from None
    if not isinstance(told, dict) or not isinstance(outputs := told.get("outputs"), list):
        raise Trouble("an answer without outputs" + _error_in(told))
    if (number := told.get("id")) not in (None, "", expected.number):
        raise Trouble(f"the answer to another request ({clipped(str(number), _LONGEST)!r})")
    chosen: tuple[dict[str, Any], int] | None = None
    at = 0
    for output in outputs:
        if not isinstance(output, dict) or not isinstance(output.get("name"), str):
            raise Trouble("an answer whose outputs have no names")
        size = (output.get("parameters") or {}).get("binary_data_size") if isinstance(output.get("parameters"), dict) else None
        if size is not None and (type(size) is not int or size < 0):
            raise Trouble("an answer with a size of binary data that is none")
        if expected.output in (None, output["name"]):
            if chosen is not None and expected.output is None:
                raise Trouble(f"several outputs ({_names(outputs)})", "none", mends="Name one by --output.")
            chosen = output, at
        at += size or 0
    if chosen is None:
        raise Trouble(f"no output {expected.output!r} (it has {_names(outputs)})", "none", mends="Name one of them by --output.")
    if header is not None and at != len(rest):
        raise Trouble(f"an answer of {len(rest):,} bytes of binary data, which says {at:,}")
    return _values(*chosen, rest, expected)


def _parts(content: bytes, header: str | None) -> tuple[bytes, bytes]:
    """The JSON, and the binary data behind it."""
    if header is None:
        return content, b""
    length = int(header) if header.strip().isdecimal() and len(header) < 20 else -1
    if not 0 <= length <= len(content):
        raise Trouble(f"an answer of {len(content):,} bytes whose JSON is said to take {clipped(header, 20)}")
    return content[:length], content[length:]


def _values(output: dict[str, Any], at: int, rest: bytes, expected: Expected) -> Array:
    numbers_type, shape = _FLOATS.get(str(output.get("datatype"))), output.get("shape")
    if numbers_type is None:
        told = f"output {clipped(output['name'], _LONGEST)!r} of {clipped(str(output.get('datatype')), 20)}"
        raise Trouble(f"{told}, expected floats (FP32, FP64, FP16)", "none", mends="Name another by --output.")
    if not isinstance(shape, list) or any(type(n) is not int or n < 0 for n in shape):
        raise Trouble("an answer without a shape")
    sizes = tuple(shape)
    known = expected.shape or ()
    wrong = expected.batch >= len(sizes) or sizes[expected.batch] != expected.rows
    wrong |= bool(known) and len(known) != len(sizes)
    wrong |= any(k is not None and i != expected.batch and k != n for i, (k, n) in enumerate(zip(known, sizes, strict=False)))
    if wrong:
        wanted = "" if not known else " × ".join(
            str(expected.rows) if i == expected.batch else "?" if k is None else str(k) for i, k in enumerate(known)
        )  # fmt: skip
        told = " × ".join(map(str, sizes)) or "none"
        rows = f"{expected.rows} row{'' if expected.rows == 1 else 's'} were asked"
        raise Trouble(f"an answer of shape {told} where {rows}" + (f", expected {wanted}" if wanted else ""))
    count = math.prod(sizes)
    size = (output.get("parameters") or {}).get("binary_data_size")
    if size is not None:
        if size != count * numbers_type.itemsize or at + size > len(rest):
            raise Trouble(f"an answer of {size:,} bytes for {count:,} numbers of {numbers_type.itemsize} bytes")
        return np.frombuffer(rest, numbers_type, count, at).reshape(sizes).astype(np.float64)
    try:
        numbers = np.array(output["data"], dtype=object if output["data"] is None else None)
        if numbers.dtype.kind not in "fiu" or numbers.size != count:
            raise ValueError
    except (KeyError, ValueError, TypeError, OverflowError):
        raise Trouble(f"an answer whose data are not {count:,} numbers") from None
    return numbers.astype(numbers_type).astype(np.float64).reshape(sizes)  # as the server holds them: JSON may print more digits


def said_in(content: bytes) -> str:
    """What an answer that is an error says; empty where it says nothing."""
    try:
        told = json.loads(content)
    except (ValueError, RecursionError):
        return ""
    return _error_in(told).removeprefix(": ")


def _error_in(told: object) -> str:
    """What the JSON of an answer says that went wrong, after a colon, as it is; FastAPI's servers call it ``detail``."""
    if not isinstance(told, dict):
        return ""
    found = told.get("error", told.get("detail"))
    return f": {' '.join(str(found).split())}" if found else ""


def _names(outputs: list[Any]) -> str:
    return clipped(", ".join(str(o.get("name")) if isinstance(o, dict) else "?" for o in outputs) or "none", _LONGEST)


def _begin(content: bytes) -> str:
    """How bytes begin, for a message."""
    return repr(clipped(" ".join(content[:200].decode("utf-8", "replace").split()), 40)) if content else "nothing"
