"""What ONNX Runtime says when it fails, in our words: out of memory, a model it does not take, rows it does not take."""

from __future__ import annotations

import re
from pathlib import Path

from onnxfim.errors import ModelError

_MEMORY = re.compile(
    r"bad_alloc|BFCArena|out of memory|failed to allocate|CUDA_ERROR_OUT_OF_MEMORY|CUDNN_STATUS_ALLOC_FAILED|AllocateRawInternal",
    re.IGNORECASE,
)
_LONGEST = 400  # of what the runtime says, in a message


class OutOfMemory(ModelError):
    """The runtime could not allocate; a smaller batch may go through."""


class RowsFailed(ModelError):
    """The runtime took the model and failed on these rows; ``said`` is what it said."""

    def __init__(self, message: str, said: str) -> None:
        super().__init__(message)
        self.said = said


def run_error(error: BaseException) -> ModelError:
    """What a failed call of a session means: `OutOfMemory`, or `RowsFailed`."""
    found = model_error(error, b"")
    return found if isinstance(found, OutOfMemory) else RowsFailed(str(found), _said(error)[:_LONGEST])


def _said(error: BaseException) -> str:
    return re.sub(r"^\[ONNXRuntimeError\] : \d+ : ", "", " ".join(str(error).split()))


def model_error(error: BaseException, model: Path | bytes) -> ModelError:
    """What it means that ONNX Runtime did not take a model, given as a file or as bytes."""
    where = str(model) if isinstance(model, Path) else "model"
    text = _said(error)
    if isinstance(model, Path):  # the path stands in front already, and may be long
        text = text.replace(where, "it")
    text = text[:_LONGEST]
    if _MEMORY.search(text):
        return OutOfMemory(f"{where}: ONNX Runtime ran out of memory ({text}). Use a smaller --batch.")
    if "is not a registered function/op" in text or "No Op registered" in text or "NOT_IMPLEMENTED" in text:
        return ModelError(
            f"{where}: ONNX Runtime has no kernel for an operator of this model ({text}). Export it without custom operators."
        )
    if "opset" in text.lower() and ("support" in text.lower() or "unsupported" in text.lower()):
        return ModelError(
            f"{where}: unsupported opset or IR version ({text}). Export with an opset this ONNX Runtime knows, or update it."
        )
    if isinstance(model, bytes):
        return ModelError(f"model: ONNX Runtime failed on it ({text}). Check the inputs' shape and the model with onnx.checker.")
    return ModelError(f"{where}: ONNX Runtime does not take this model ({text}). Check it with onnx.checker, or re-export it.")
