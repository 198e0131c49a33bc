"""Opens ONNX Runtime sessions on a provider with fixed settings, and says which provider really runs.

The only module that knows onnxruntime.
"""

from __future__ import annotations

import ctypes
import io
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from onnxfim.errors import ModelError, ProviderError

Array: TypeAlias = np.ndarray[Any, Any]

_SHORT = {
    "acl": "ACL", "armnn": "ArmNN", "azure": "Azure", "cann": "CANN", "coreml": "CoreML", "cpu": "CPU", "cuda": "CUDA",
    "directml": "Dml", "dml": "Dml", "dnnl": "Dnnl", "js": "JS", "migraphx": "MIGraphX", "nnapi": "Nnapi", "nvtensorrtrtx":
    "NvTensorRTRTX", "openvino": "OpenVINO", "qnn": "QNN", "rknpu": "Rknpu", "rocm": "ROCM", "snpe": "SNPE", "tensorrt":
    "Tensorrt", "tvm": "Tvm", "vitisai": "VitisAI", "vsinpu": "VSINPU", "webgpu": "WebGpu", "webnn": "WEBNN", "xnnpack": "Xnnpack",
}  # fmt: skip
_CPU = "CPUExecutionProvider"
_CUDA = "CUDAExecutionProvider"
_MEMORY = re.compile(
    r"bad_alloc|BFCArena|out of memory|failed to allocate|CUDA_ERROR_OUT_OF_MEMORY|CUDNN_STATUS_ALLOC_FAILED|AllocateRawInternal",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class ProviderReport:
    """Which providers were asked for, which run, and ONNX Runtime's own reason where they differ.

    ``explicit`` is True when a person named a provider that was not obtained: that is then said in red.
    """

    requested: tuple[str, ...]
    obtained: str
    registered: tuple[str, ...]
    reason: str | None
    explicit: bool


class OutOfMemory(ModelError):
    """The runtime could not allocate; a smaller batch may go through."""


def runtime_version() -> str:
    """Version of ONNX Runtime, with its build's name where that tells more."""
    import onnxruntime

    return str(onnxruntime.__version__)


def build_info() -> str | None:
    """What ONNX Runtime says of its own build (commit, type, options), where it does (1.16 on)."""
    import onnxruntime

    tell = getattr(onnxruntime, "get_build_info", None)
    return None if tell is None else str(tell()).removeprefix("ORT Build Info: ")


def available_providers() -> tuple[str, ...]:
    """Providers this build of ONNX Runtime contains; whether one loads is known when a session opens."""
    import onnxruntime

    return tuple(onnxruntime.get_available_providers())


def provider_names(requested: Sequence[str]) -> tuple[str, ...]:
    """Full ONNX Runtime names of providers given short (``cuda``) or full; ``auto`` is CUDA where the build has it, then the CPU.

    Raises:
        ProviderError: a name that ONNX Runtime does not know.
    """
    import onnxruntime

    known = tuple(onnxruntime.get_all_providers())
    names: list[str] = []
    for name in requested:
        if name.lower() == "auto":
            names += [p for p in (_CUDA,) if p in onnxruntime.get_available_providers()] + [_CPU]
            continue
        full = name if name.lower().endswith("executionprovider") else f"{_SHORT.get(name.lower(), name)}ExecutionProvider"
        match = next((k for k in (*known, *available_providers()) if k.lower() == full.lower()), None)
        if match is None:
            raise ProviderError(f"provider {name!r} is unknown. ONNX Runtime {runtime_version()} knows: {', '.join(known)}.")
        names.append(match)
    return tuple(dict.fromkeys(names))


@lru_cache(maxsize=1)
def _preload_cuda() -> None:
    """Let ONNX Runtime find CUDA and cuDNN from pip packages, where it can do that (1.21 on)."""
    import onnxruntime

    preload = getattr(onnxruntime, "preload_dlls", None)
    if preload is not None:
        with _captured_stderr():
            preload()


@contextmanager
def _captured_stderr() -> Iterator[list[str]]:
    """What the runtime writes while the block runs: its C++ side says only on stderr why a provider failed."""
    lines: list[str] = []
    try:
        descriptor = sys.__stderr__.fileno() if sys.__stderr__ is not None else 2
        saved, saved_out = os.dup(descriptor), os.dup(1)
    except (OSError, ValueError):  # no real stderr (embedded interpreter): nothing to capture
        yield lines
        return
    printed = io.StringIO()  # sys.stdout need not be descriptor 1: notebooks have one of their own
    with tempfile.TemporaryFile() as sink:
        # Python's fallback message goes to stdout: kept out of the caller's output too.
        sys.stdout.flush()
        os.dup2(sink.fileno(), descriptor)
        os.dup2(sink.fileno(), 1)
        try:
            with redirect_stdout(printed):
                yield lines
        finally:
            os.dup2(saved, descriptor)
            os.dup2(saved_out, 1)
            os.close(saved)
            os.close(saved_out)
            sink.seek(0)
            lines += [*sink.read().decode("utf-8", "replace").splitlines(), *printed.getvalue().splitlines()]


def _load_failure(provider: str, said: Sequence[str]) -> str:
    """ONNX Runtime's reason for not loading ``provider``, in one line."""
    import onnxruntime

    short = provider.removesuffix("ExecutionProvider")
    if provider not in available_providers():
        has = ", ".join(available_providers())
        return f"this build of ONNX Runtime ({runtime_version()}) does not contain {provider}; it has {has}"
    text = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(said))
    for pattern in (r"with error: (.*)", r"(CUDA failure.*)", r"(Failed to create .*)", r"EP Error (.*)"):
        match = re.search(pattern, text)
        if match:
            return match.group(1).strip()[:300]
    library = Path(onnxruntime.__file__).parent / "capi" / f"libonnxruntime_providers_{short.lower()}.so"
    try:
        ctypes.CDLL(str(library))
    except OSError as error:
        return str(error).splitlines()[0][:300]
    return "ONNX Runtime gave no reason"


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


def _model_error(error: BaseException, model: Path | bytes) -> ModelError:
    where = str(model) if isinstance(model, Path) else "model"
    text = " ".join(str(error).split())
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : ", "", text)[:400]
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
    """One call of the session; runtime errors become `ModelError`, a failed allocation `OutOfMemory`."""
    try:
        return list(session.run(list(outputs), dict(feeds)))
    except Exception as error:
        raise _model_error(error, b"") from error


# Rows are made in pieces of this size on the CPU: what the perturbation keeps meanwhile stays in the cache, and small.
_PIECE_BYTES = 2**20
_PER_ROW = frozenset({"sample", "scale", "v", "w"})


class RowBuffer:
    """Memory on the device for one batch of rows, shared by all that make rows for a model."""

    def __init__(self, obtained: str) -> None:
        self.device = "cuda" if obtained in (_CUDA, "TensorrtExecutionProvider") else "cpu"
        self._held: Any = None
        self._key: tuple[tuple[int, ...], np.dtype] | None = None

    def of(self, shape: tuple[int, ...], dtype: np.dtype) -> Any:
        """An ``OrtValue`` of this shape; the one before it is given up where the shape differs."""
        import onnxruntime

        if self._key != (shape, dtype):
            self.free()
            self._held = onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, dtype, self.device, 0)
            self._key = (shape, dtype)
        return self._held

    def free(self) -> None:
        self._held, self._key = None, None


class BoundPair:
    """The perturbation session bound to the model's session: rows are made on the device and never leave it.

    Args:
        model: Session of the audited file.
        perturbation: Session of `perturb.perturbation_graph`, on the same provider.
        input_name: The model's input that takes the rows.
        outputs: The model's outputs to read.
        buffer: Where the rows lie, on the provider that both run on.
    """

    def __init__(self, model: Any, perturbation: Any, input_name: str, outputs: Sequence[str], buffer: RowBuffer) -> None:
        self._model, self._perturbation = model, perturbation
        self._input, self._outputs = input_name, tuple(outputs)
        self._buffer = buffer

    def run(self, feeds: Mapping[str, Array], shape: tuple[int, ...], dtype: np.dtype) -> list[Array]:
        """Outputs of the model at the rows that the perturbation makes from ``feeds``; ``shape`` is that of the rows."""
        try:
            rows = self._buffer.of(shape, dtype)
            self._fill(rows, feeds, shape, dtype)
            binding = self._model.io_binding()
            binding.bind_ortvalue_input(self._input, rows)
            for name in self._outputs:
                binding.bind_output(name, "cpu")
            self._model.run_with_iobinding(binding)
            return [np.asarray(a) for a in binding.copy_outputs_to_cpu()]
        except Exception as error:
            self._buffer.free()
            raise _model_error(error, b"") from error

    def _fill(self, rows: Any, feeds: Mapping[str, Array], shape: tuple[int, ...], dtype: np.dtype) -> None:
        """Make the rows in place, piece by piece."""
        row_bytes = int(np.prod(shape[1:])) * dtype.itemsize
        device = self._buffer.device
        size = max(1, _PIECE_BYTES // max(row_bytes, 1)) if device == "cpu" else shape[0]
        for start in range(0, shape[0], size):
            stop = min(start + size, shape[0])
            binding = self._perturbation.io_binding()
            for name, value in feeds.items():
                binding.bind_cpu_input(name, value[start:stop] if name in _PER_ROW else value)
            where = rows.data_ptr() + start * row_bytes
            binding.bind_output("rows", device, 0, dtype, (stop - start, *shape[1:]), where)
            self._perturbation.run_with_iobinding(binding)
