"""Opens ONNX Runtime sessions with fixed settings, runs them, and turns their errors into ours."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from onnxfim.errors import ModelError, ProviderError
from onnxfim.runtime.providers import (
    _CPU,
    _CUDA,
    ProviderReport,
    _captured_stderr,
    _load_failure,
    _preload_cuda,
    available_providers,
    provider_names,
)

Array: TypeAlias = np.ndarray[Any, Any]
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


def open_session(
    model: Path | bytes,
    *,
    providers: Sequence[str] = ("auto",),
    require: bool = False,
    tf32: bool = False,
    threads: int | None = None,
    base_dir: Path | None = None,
) -> tuple[Any, ProviderReport]:
    """An ``onnxruntime.InferenceSession`` and the report on its provider.

    Args:
        model: File to run as it is, or serialised bytes of a copy.
        providers: As in `provider_names`.
        require: Raise instead of falling back.
        tf32: Allow TF32 on CUDA (10 bits of mantissa: differences then resolve nothing below about 1e-3).
        threads: Threads inside an operator; None for ONNX Runtime's default. One thread also stops spinning.
        base_dir: Folder of the external data of a model given as bytes.

    Raises:
        ModelError: the runtime does not take the model.
        ProviderError: an unknown provider, or a required one not obtained.
    """
    import onnxruntime

    names = provider_names(providers)
    wanted = [(n, _options(n, tf32)) for n in names if n in available_providers()]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised, and then told in one line
    if base_dir is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(base_dir))
    if threads is not None:
        options.intra_op_num_threads = threads
        if threads == 1:
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if any(n == _CUDA for n, _ in wanted):
        _preload_cuda()
    source = str(model) if isinstance(model, Path) else model
    chain = [*wanted] if any(n == _CPU for n, _ in wanted) else [*wanted, (_CPU, {})]
    with _captured_stderr() as said:
        try:
            session = onnxruntime.InferenceSession(source, options, providers=chain)
        except Exception as error:
            raise _model_error(error, model) from error
    registered = tuple(session.get_providers())
    obtained = registered[0] if registered else _CPU
    named = provider_names([p for p in providers if p.lower() != "auto"])
    reason = _load_failure(names[0], said) if names[0] != obtained else None
    report = ProviderReport(tuple(providers), obtained, registered, reason, explicit=bool(named) and named[0] != obtained)
    if require and named and obtained not in named:
        raise ProviderError(
            f"provider {named[0]} was required and not obtained: {reason}. Install what it needs, or drop the requirement."
        )
    return session, report


def _options(provider: str, tf32: bool) -> dict[str, Any]:
    return {"use_tf32": int(tf32)} if provider == _CUDA else {}


def run_error(error: BaseException) -> ModelError:
    """What a failed call of a session means: `OutOfMemory`, or `RowsFailed`."""
    found = _model_error(error, b"")
    return found if isinstance(found, OutOfMemory) else RowsFailed(str(found), _said(error)[:_LONGEST])


def _said(error: BaseException) -> str:
    return re.sub(r"^\[ONNXRuntimeError\] : \d+ : ", "", " ".join(str(error).split()))


def _model_error(error: BaseException, model: Path | bytes) -> ModelError:
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


def run(session: Any, outputs: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
    """One call of the session; runtime errors become `RowsFailed`, a failed allocation `OutOfMemory`."""
    try:
        return list(session.run(list(outputs), dict(feeds)))
    except Exception as error:
        raise run_error(error) from error
