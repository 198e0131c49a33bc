"""Which execution providers there are, which was asked for, which was obtained, and why not."""

from __future__ import annotations

import ctypes
import io
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from onnxfim.errors import ProviderError
from onnxfim.runtime import plugins
from onnxfim.runtime.failures import plain
from onnxfim.runtime.installation import import_runtime
from onnxfim.runtime.placement import Placement

Array: TypeAlias = np.ndarray[Any, Any]

_SHORT = {
    "acl": "ACL", "armnn": "ArmNN", "azure": "Azure", "cann": "CANN", "coreml": "CoreML", "cpu": "CPU", "cuda": "CUDA",
    "directml": "Dml", "dml": "Dml", "dnnl": "Dnnl", "js": "JS", "migraphx": "MIGraphX", "nnapi": "Nnapi", "nvtensorrtrtx":
    "NvTensorRTRTX", "openvino": "OpenVINO", "qnn": "QNN", "rknpu": "Rknpu", "rocm": "ROCM", "snpe": "SNPE", "tensorrt":
    "Tensorrt", "tvm": "Tvm", "vitisai": "VitisAI", "vsinpu": "VSINPU", "webgpu": "WebGpu", "webnn": "WEBNN", "xnnpack": "Xnnpack",
}  # fmt: skip
#: The provider that is always there.
CPU = "CPUExecutionProvider"
_CUDA = "CUDAExecutionProvider"
_TENSORRT = "TensorrtExecutionProvider"


@dataclass(frozen=True)
class OptionSet:
    """An option that a session was opened with; `record.provider_option.ProviderOption` tells what the fields are."""

    provider: str
    key: str
    value: str
    running: str | None
    taken: bool | None
    ours: bool


@dataclass(frozen=True)
class ProviderReport:
    """Which providers were asked for, which run, and the reason where they differ.

    ``obtained`` is the first that computes: one that is registered and was given no compute node is not obtained. ``explicit`` is
    True when a person named a provider that was not obtained: that is then said in red. ``options`` are those that the session was
    opened with, ``plugin`` is what brought the provider where the build lacks it, ``tf32_doubt`` why TF32 may be on though it was
    not allowed. ``remedy`` says what is amiss on this machine and what mends it, where that is known. ``placement`` is where the
    nodes are, None where this ONNX Runtime does not tell.
    """

    requested: tuple[str, ...]
    obtained: str
    registered: tuple[str, ...]
    reason: str | None
    explicit: bool
    options: tuple[OptionSet, ...] = ()
    plugin: str | None = None
    tf32_doubt: str | None = None
    remedy: str | None = None
    placement: Placement | None = None


def runtime_version() -> str:
    """Version of ONNX Runtime, with its build's name where that tells more."""
    onnxruntime = import_runtime()
    return str(onnxruntime.__version__)


def build_info() -> str | None:
    """What ONNX Runtime says of its own build (commit, type, options), where it does (1.16 on)."""
    onnxruntime = import_runtime()
    tell = getattr(onnxruntime, "get_build_info", None)
    return None if tell is None else str(tell()).removeprefix("ORT Build Info: ")


def available_providers() -> tuple[str, ...]:
    """Providers this build of ONNX Runtime contains; whether one loads is known when a session opens."""
    onnxruntime = import_runtime()
    return tuple(onnxruntime.get_available_providers())


def device_asked(spelled: str) -> tuple[str, str | None]:
    """Name and device of a provider as a person writes it: ``cuda:1`` is the second card, ``openvino:GPU`` a kind of device."""
    name, _, device = spelled.partition(":")
    return name, device or None


def provider_names(requested: Sequence[str], libraries: Sequence[tuple[str, str]] = ()) -> tuple[str, ...]:
    """Full ONNX Runtime names of providers given short (``cuda``, or ``cuda:1`` with its device) or full.

    ``auto`` is CUDA where the build has it, then the CPU. Plug-ins are known by the name of their library, of their package
    (``onnxruntime-ep-NAME``) or by the provider's own.

    Args:
        requested: Names, in order of preference.
        libraries: Plug-in libraries that a person named, name and path.

    Raises:
        ProviderError: a name that neither ONNX Runtime nor a plug-in knows, or a library that is none.
    """
    onnxruntime = import_runtime()
    named = plugins.named(libraries)
    known = (*onnxruntime.get_all_providers(), *available_providers())
    names: list[str] = []
    for spelled in requested:
        name, _ = device_asked(spelled)
        if name.lower() == "auto":
            names += [p for p in (_CUDA,) if p in onnxruntime.get_available_providers()] + [CPU]
            continue
        full = name if name.lower().endswith("executionprovider") else f"{_SHORT.get(name.lower(), name)}ExecutionProvider"
        match = plugins.provider_of(name, named) or next((k for k in known if k.lower() in (full.lower(), name.lower())), None)
        match = match or plugins.installed_provider(name)
        if match is None:
            there = ", ".join(dict.fromkeys(known))
            packages = ", ".join(plugins.packages()) or "none"
            raise ProviderError(
                f"provider {name!r} is unknown. ONNX Runtime {runtime_version()} knows: {there}; plug-ins installed: {packages}. "
                "Install its package, or name its library with --provider-library NAME=PATH."
            )
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
    with ExitStack() as opened:
        try:
            descriptor = sys.__stderr__.fileno() if sys.__stderr__ is not None else 2
            sink = opened.enter_context(tempfile.TemporaryFile())
            saved = os.dup(descriptor)
            opened.callback(os.close, saved)
            saved_out = os.dup(1)
            opened.callback(os.close, saved_out)
        except (OSError, ValueError):  # no real stderr (embedded interpreter), no folder for the file: nothing is captured
            yield lines
            return
        printed = io.StringIO()  # sys.stdout need not be descriptor 1: notebooks have one of their own
        # Python's fallback message goes to stdout: kept out of the caller's output too.
        if sys.stdout is not None:  # a closed one
            sys.stdout.flush()
        os.dup2(sink.fileno(), descriptor)
        os.dup2(sink.fileno(), 1)
        try:
            with redirect_stdout(printed):
                yield lines
        finally:
            os.dup2(saved, descriptor)
            os.dup2(saved_out, 1)
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
            return plain(match.group(1))[:300]
    library = Path(onnxruntime.__file__).parent / "capi" / f"libonnxruntime_providers_{short.lower()}.so"
    try:
        ctypes.CDLL(str(library))
    except OSError as error:
        return plain(str(error).splitlines()[0])[:300]
    return "ONNX Runtime gave no reason"
