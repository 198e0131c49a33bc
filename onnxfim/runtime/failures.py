"""What ONNX Runtime says when it fails, in our words: memory, a provider that broke, a model or rows that it does not take."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from onnxfim.errors import ModelError, OnnxFimError, ProviderError

Kind: TypeAlias = Literal["memory", "provider", "operator", "opset", "other"]

_LONGEST = 400  # of what the runtime says, in a message
# Where in its sources the runtime raised: file, line and function, before what it has to say; and what CUDA's errors end in.
_LOCATION = re.compile(
    r"/?[\w./+-]*\.(?:cc|cpp|cu|cuh|h|hpp):\d+ (?:[\w:<>,*&~ ]+\([^()]*\)(?: const)?(?: \[with [^\]]*\])? |\w+(?:\(\))? )?"
)
_WHEREABOUTS = re.compile(r" ; GPU=-?\d+ ; hostname=.*?(?:; expr=[^;]*;|$)")
_CUDA_PACKAGES = "pip install 'onnxruntime-gpu[cuda,cudnn]'"


class OutOfMemory(ModelError):
    """The runtime could not allocate; a smaller batch may go through."""


class RowsFailed(ModelError):
    """The runtime took the model and failed on these rows; ``said`` is what it said."""

    def __init__(self, message: str, said: str) -> None:
        super().__init__(message)
        self.said = said


class ProviderFailed(ProviderError):
    """An execution provider broke while it ran or compiled the model: not the rows' doing, and nothing runs there any more."""

    def __init__(self, message: str, provider: str) -> None:
        super().__init__(message)
        self.provider = provider


@dataclass(frozen=True)
class Failure:
    """One thing that ONNX Runtime says.

    Attributes:
        pattern: How to know it in the runtime's text.
        kind: What it is: ``memory`` halves the batch, ``provider`` ends the audit on that provider, the others are the model's.
        means: What has happened; empty where the text says it itself.
        mends: What to do about it.
    """

    pattern: re.Pattern[str]
    kind: Kind
    means: str
    mends: str


def _failure(pattern: str, kind: Kind, means: str, mends: str) -> Failure:
    return Failure(re.compile(pattern, re.IGNORECASE), kind, means, mends)


_MEMORY = "Use a smaller --batch, free memory on the device, or use another provider."
_RESTART = "Run it again in a new process; where it returns, update the driver, or use --provider cpu."
#: Texts that are told apart, of ONNX Runtime 1.20 to 1.31 and of the libraries below it; the first that fits counts.
FAILURES = (
    # Failed allocations: of the CPU and the arena, CUDA and HIP (2), cuBLAS, cuDNN 8 and 9, TensorRT, OpenVINO, DirectML, WebGPU.
    _failure(r"bad_alloc|bad allocation|out[ _-]?of[ _-](?:\w+[ _])?memory|OutOfMemory|memory exhausted", "memory", "", _MEMORY),
    _failure(r"(?:failed|unable) to allocate|(?:could not|cannot) allocate|BFCArena|AllocateRawInternal", "memory", "", _MEMORY),
    _failure(r"memory of \d+ is smaller than requested bytes", "memory", "", _MEMORY),
    _failure(r"cudaErrorMemoryAllocation|hipErrorMemoryAllocation|(?:CUDA|HIP) failure 2\b", "memory", "", _MEMORY),
    _failure(r"_STATUS_\w*ALLOC(?:ATION)?_FAILED|rocblas_status_memory_error", "memory", "", _MEMORY),
    _failure(r"CL_MEM_OBJECT_ALLOCATION_FAILURE|CL_OUT_OF_(?:RESOURCES|HOST)|out of GPU resources", "memory", "", _MEMORY),
    _failure(r"Exceeded max size of memory object allocation|not enough memory resources|8007000E", "memory", "", _MEMORY),
    # Libraries that are not there.
    _failure(
        r"cuDNN (?:is not available|library was not found)|libcudnn\w*\.so|cudnn\w*\.dll|CUDNN_STATUS_SUBLIBRARY",
        "provider", "cuDNN is missing or cannot be loaded", f"Install it beside this ONNX Runtime: {_CUDA_PACKAGES}",
    ),
    _failure(
        r"libcuda\.so|nvcuda\.dll", "provider", "NVIDIA's driver is not installed, or not visible in this container",
        "Install the driver (containers: run with --gpus all).",
    ),
    _failure(
        r"lib(?:cudart|cublas|cublasLt|cufft|curand|nvrtc|cusparse|nvJitLink)\w*\.so|(?:cudart|cublas|cufft|curand|nvrtc)\w*\.dll",
        "provider", "a library of CUDA is missing", f"Install CUDA's libraries: {_CUDA_PACKAGES}",
    ),
    _failure(
        r"libnvinfer\w*\.so|libnvonnxparser\w*\.so|nvinfer\w*\.dll", "provider", "TensorRT is missing",
        "Install the version that this ONNX Runtime was built for: pip install tensorrt, or use --provider cuda.",
    ),
    # No device, or a driver that does not fit.
    _failure(
        r"no CUDA-capable device|CUDA failure 100\b|cudaErrorNoDevice|CUDA_ERROR_NO_DEVICE", "provider",
        "CUDA sees no device", "See what nvidia-smi lists and what CUDA_VISIBLE_DEVICES is set to, or use --provider cpu.",
    ),
    _failure(
        r"driver version is insufficient|CUDA failure 35\b|cudaErrorInsufficientDriver", "provider",
        "the driver is too old for this build's CUDA", "Update NVIDIA's driver, or install an onnxruntime-gpu for an older CUDA.",
    ),
    _failure(
        r"CUDA failure (?:803|804)\b|system has unsupported display driver|forward compatibility was attempted", "provider",
        "the driver and its CUDA library do not belong together", "Restart after a driver update, or install the driver again.",
    ),
    _failure(
        r"no kernel image is available|CUDA failure 209\b", "provider", "this build holds no code for this device",
        "Use another onnxruntime-gpu, or --provider cpu.",
    ),
    _failure(
        r"invalid device ordinal|CUDA failure 101\b", "provider", "there is no device of that number",
        "See what nvidia-smi lists and what CUDA_VISIBLE_DEVICES is set to.",
    ),
    # What leaves the device's context unusable: every later call would fail too.
    _failure(
        r"illegal memory access|CUDA failure (?:700|715|716|717|718)\b|misaligned address|illegal (?:address|instruction)",
        "provider", "the device was made to read or write where it must not", _RESTART,
    ),
    _failure(
        r"unspecified launch failure|device-side assert|CUDA failure (?:710|719)\b",
        "provider", "a kernel broke on the device", _RESTART,
    ),
    _failure(
        r"\bXid[ :(]|device (?:is |was |has been )?(?:lost|removed|hung|reset)|fallen off the bus|887A000[567]"
        r"|uncorrectable (?:ECC|NVLink)|CUDA failure (?:46|79|214|999)\b",
        "provider", "the device was lost",
        "See the system's log (dmesg), restart the device or the machine, or use --provider cpu.",
    ),
    # A provider that fails in any other way.
    _failure(
        r"\bEP_FAIL\b|\b(?:CUDA|CUBLAS|CUBLASLT|CUDNN|CUDNN_FE|CURAND|CUFFT|NCCL|HIP|MIOPEN|ROCBLAS) failure -?\d+",
        "provider", "", "Use another provider (--provider cpu), or update ONNX Runtime and the driver.",
    ),
    # What no provider of the session has.
    _failure(
        r"is not a registered function/op|No Op registered", "operator",
        "ONNX Runtime does not know an operator of this model",
        "Name the library that brings it with --custom-op-library, or export it without custom operators.",
    ),
    _failure(
        r"Could not find an implementation|NOT_IMPLEMENTED|Failed to find kernel", "operator",
        "ONNX Runtime has no kernel for an operator of this model with these types",
        "Export it in float32 and without custom operators, or update ONNX Runtime.",
    ),
    _failure(
        r"(?=.*opset)(?=.*support)", "opset", "unsupported opset or IR version",
        "Export with an opset this ONNX Runtime knows, or update it.",
    ),
)  # fmt: skip


def failure(text: str) -> Failure | None:
    """The first entry of `FAILURES` that a text of the runtime fits."""
    return next((f for f in FAILURES if f.pattern.search(text)), None)


def explained(reason: str) -> str:
    """A provider's reason for not loading, with what it means and what mends it where that is known; no full stop at its end."""
    known = failure(reason)
    if known is None or not known.means:
        return reason
    mends = known.mends[0].lower() + known.mends[1:].rstrip(".")
    return f"{reason} ({known.means}; {mends})"


def run_error(error: BaseException, session: Any = None) -> OnnxFimError:
    """What a failed call of a session means: `OutOfMemory`, `ProviderFailed`, or `RowsFailed`, which is of these rows alone.

    Args:
        error: What ONNX Runtime raised.
        session: Where; its first provider is named.
    """
    text = _said(error)[:_LONGEST]
    known = failure(_whole(error))
    if isinstance(error, MemoryError) or (known is not None and known.kind == "memory"):
        return OutOfMemory(f"model: ONNX Runtime ran out of memory ({text or 'an allocation failed'}). {_MEMORY}")
    if known is not None and known.kind == "provider":
        return provider_failed(error, _provider(session))
    return RowsFailed(str(model_error(error, b"")), text)


def provider_failed(error: BaseException, provider: str) -> ProviderFailed:
    """The error of a provider that broke, in one line: who, what it means, what it said, what to do."""
    known = failure(_whole(error))
    means = f": {known.means}" if known is not None and known.means else ""
    mends = "Use another provider (--provider cpu)." if known is None else known.mends
    return ProviderFailed(f"{provider}: failed on this model{means} ({_said(error)[:_LONGEST]}). {mends}", provider)


def model_error(error: BaseException, model: Path | bytes) -> ModelError:
    """What it means that ONNX Runtime did not take a model, given as a file or as bytes."""
    where = str(model) if isinstance(model, Path) else "model"
    text = _said(error)
    if isinstance(model, Path):  # the path stands in front already, and may be long
        text = text.replace(where, "it")
    text = text[:_LONGEST]
    known = failure(_whole(error, model))
    if known is not None and known.kind == "memory":
        return OutOfMemory(f"{where}: ONNX Runtime ran out of memory ({text}). {known.mends}")
    if known is not None and known.means:
        return ModelError(f"{where}: {known.means} ({text}). {known.mends}")
    if isinstance(model, bytes):
        return ModelError(f"model: ONNX Runtime failed on it ({text}). Check the inputs' shape and the model with onnx.checker.")
    return ModelError(f"{where}: ONNX Runtime does not take this model ({text}). Check it with onnx.checker, or re-export it.")


def _whole(error: BaseException, model: Path | bytes = b"") -> str:
    """All that an error says in one line, without names of the model's; its class is among it where that is EP_FAIL."""
    told = " ".join(str(error).split())
    if isinstance(model, Path):
        told = told.replace(str(model), "it")
    told = re.sub(r"(name:? ?)'[^']*'", r"\1''", told, flags=re.IGNORECASE)
    return f"EP_FAIL {told}" if type(error).__name__ == "EPFail" else told


def _said(error: BaseException) -> str:
    return plain(str(error))


def plain(text: str) -> str:
    """What the runtime says, in one line, without its error's number and the places in its sources."""
    text = re.sub(r"^.*\[ONNXRuntimeError\] : \d+ : (?:FAIL : )?", "", " ".join(text.split()))
    return " ".join(_WHEREABOUTS.sub("", _LOCATION.sub("", text)).split())


def _provider(session: Any) -> str:
    return next(_providers(session), "the execution provider")


def _providers(session: Any) -> Iterator[str]:
    tell = getattr(session, "get_providers", None)
    if tell is not None:
        yield from tell()
