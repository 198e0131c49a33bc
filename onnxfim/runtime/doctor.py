"""What this machine has for an audit: the runtime, the providers that really load, CUDA, cores, memory, extras."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import platform
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from onnxfim import __version__
from onnxfim.errors import OnnxFimError
from onnxfim.runtime.hardware import Hardware
from onnxfim.runtime.providers import available_providers, build_info, runtime_version
from onnxfim.runtime.session import open_session

# One Identity node on one float, opset 13: enough to make a provider load. Written out, so that no ONNX library has to.
_TINY = (
    b'\x08\x08:7\n\x10\n\x01x\x12\x01y"\x08Identity\x12\x01g'
    b"Z\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\r"
)
_PACKAGES = ("onnx", "onnxruntime", "onnxruntime-gpu", "numpy", "scipy", "click", "jinja2", "rich")
#: Optional packages, and what each is for.
_EXTRAS = {"pillow": "folders of images: pip install 'onnxfim[images]'"}
_RUNTIMES = ("libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0", "cudart64_13.dll", "cudart64_12.dll")
_CUDNNS = ("libcudnn.so.9", "libcudnn.so.8", "cudnn64_9.dll", "cudnn64_8.dll")
_CUDA = (
    ("driver", ("libcuda.so.1", "nvcuda.dll"), "cuDriverGetVersion"),
    ("CUDA runtime", _RUNTIMES, "cudaRuntimeGetVersion"),
    ("cuDNN", _CUDNNS, "cudnnGetVersion"),
)


@dataclass(frozen=True)
class Provider:
    """An execution provider of this build: whether it loads, and the loader's reason where it does not."""

    name: str
    loads: bool
    reason: str | None


@dataclass(frozen=True)
class Library:
    """A shared library: the version it reports, and the file found; or why none was."""

    name: str
    version: str | None
    file: str | None
    reason: str | None


@dataclass(frozen=True)
class Extra:
    """An optional package: its version, or None and what it would be good for."""

    name: str
    version: str | None
    purpose: str


@dataclass(frozen=True)
class Machine:
    """The machine as an audit finds it; ``memory`` is in bytes, the container's limit where that is less."""

    python: str
    platform: str
    packages: tuple[tuple[str, str], ...]
    runtime: str
    build: str | None
    providers: tuple[Provider, ...]
    libraries: tuple[Library, ...]
    tf32: str
    cores: int
    memory: int | None
    extras: tuple[Extra, ...]


def examine() -> Machine:
    """Everything that `doctor` shows; opens one tiny session per provider."""
    providers = tuple(_provider(name) for name in available_providers())
    return Machine(
        python=f"{platform.python_version()} ({sys.executable})",
        platform=f"{platform.system()} {platform.release()} {platform.machine()}",
        packages=(("onnxfim", __version__), *((name, v) for name in _PACKAGES if (v := _version(name)) is not None)),
        runtime=runtime_version(),
        build=build_info(),
        providers=providers,
        libraries=tuple(_library(name, files, symbol) for name, files, symbol in _CUDA),
        tf32="off unless --tf32 is given (ONNX Runtime's own default is on)",
        cores=cores(),
        memory=memory(),
        extras=tuple(Extra(name, _version(name), purpose) for name, purpose in _EXTRAS.items()),
    )


def _provider(name: str) -> Provider:
    """Whether a session on this provider runs on it."""
    try:
        report = open_session(_TINY, Hardware((name,)))[1]
    except OnnxFimError as error:
        return Provider(name, False, str(error))
    # A provider loads whether or not it takes this one node.
    return Provider(name, name in report.registered, None if name in report.registered else report.reason)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _library(name: str, files: Sequence[str], symbol: str) -> Library:
    """The first of the files that the loader takes, and the version that its function tells."""
    reasons: list[str] = []
    for file in (f for f in files if f.endswith(".dll") == (sys.platform == "win32")):
        for path in (file, *_in_packages(file)):
            try:
                library = ctypes.CDLL(path)
            except OSError as error:
                reasons.append(str(error))
                continue
            return Library(name, _library_version(library, symbol), path, None)
    return Library(name, None, None, reasons[0] if reasons else "not made for this platform")


def _in_packages(file: str) -> Iterable[str]:
    """Where NVIDIA's pip packages would hold a library."""
    for folder in sys.path:
        root = Path(folder) / "nvidia"
        if root.is_dir():
            yield from (str(p) for p in root.glob(f"*/*/{file}"))


def _library_version(library: ctypes.CDLL, symbol: str) -> str | None:
    try:
        function: Callable[..., int] = getattr(library, symbol)
    except AttributeError:
        return None
    if symbol == "cudnnGetVersion":
        number = function() & 0xFFFFFFFF
        return (
            f"{number // 10000}.{number // 100 % 100}.{number % 100}"
            if number >= 90000
            else f"{number // 1000}.{number // 100 % 10}"
        )
    told = ctypes.c_int()
    return f"{told.value // 1000}.{told.value % 1000 // 10}" if function(ctypes.byref(told)) == 0 else None


def cores() -> int:
    """Cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def memory() -> int | None:
    """Bytes of memory that this process may use, or None where the system does not say."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            total = min(total, int(Path(limit).read_text("ascii")))
        except (OSError, ValueError):  # no such limit, or the word `max`
            continue
    return total
