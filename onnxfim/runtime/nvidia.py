"""Whether there is an NVIDIA GPU that this process may use, and the newest CUDA that its driver runs."""

from __future__ import annotations

import ctypes
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

#: ``none``: no driver. ``hidden``: a driver, and no device for this process. ``failing``: the driver answers with an error.
State = Literal["none", "hidden", "failing", "found"]

_DRIVER = {"win32": "nvcuda.dll"}.get(sys.platform, "libcuda.so.1")
#: CUDA_ERROR_NO_DEVICE, and the answer of the library that toolkits bring to link against, which is no driver.
_NO_DEVICE, _STUB = 100, 34
#: What the driver's other errors mean, and what helps; cuda.h has their numbers.
_ERRORS = {
    802: "the system is not ready: the fabric manager does not run",
    803: "the driver's library and its kernel module are of two versions: restart the machine",
    804: "the compatibility library of the container is not for this GPU",
}
_CONTAINER = "docker run --gpus all … (the container anew, with its GPUs)"
_IN_CONTAINER = (Path("/.dockerenv"), Path("/run/.containerenv"))
_WSL = Path("/usr/lib/wsl/lib")
_KERNEL = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True)
class NvidiaGpu:
    """What the driver says.

    Attributes:
        state: Whether a GPU can be used.
        cuda: Newest CUDA that the driver runs, (major, minor); None where it does not say.
        driver: The driver's own version, where the system tells it.
        why: In words, why no GPU can be used; None where one can be.
        command: What shows a hidden GPU to this process, where a command does.
    """

    state: State
    cuda: tuple[int, int] | None = None
    driver: str | None = None
    why: str | None = None
    command: str | None = None

    @property
    def here(self) -> bool:
        """A GPU is there for this process, whether or not it works."""
        return self.state in ("found", "failing")


def look_for_gpu(load: Callable[[str], Any] = ctypes.CDLL, kernel: Path = _KERNEL) -> NvidiaGpu:
    """Ask the driver's library; nothing is opened or written where there is none.

    Args:
        load: Loads a shared library by its name.
        kernel: The file in which the driver's kernel module tells its version (Linux). Containers see the host's.
    """
    version = _kernel_version(kernel)
    try:
        library = load(_DRIVER)
    except OSError as error:
        if version is None:
            return NvidiaGpu("none", why=f"no NVIDIA driver is installed ({error})")
        why = "the host has an NVIDIA driver, and this container was not given it"
        return NvidiaGpu("hidden", driver=version, why=why, command=_CONTAINER)
    code = int(library.cuInit(0))
    if code == _STUB:
        return NvidiaGpu("none", why=f"{_DRIVER} is a stub to link against, no driver")
    told = ctypes.c_int()
    cuda = (told.value // 1000, told.value % 1000 // 10) if library.cuDriverGetVersion(ctypes.byref(told)) == 0 else None
    count = ctypes.c_int()
    if code == 0:
        code = int(library.cuDeviceGetCount(ctypes.byref(count)))
        if code == 0 and count.value == 0:
            code = _NO_DEVICE
    if code == _NO_DEVICE:
        return NvidiaGpu("hidden", cuda, version, *_why_hidden())
    if code != 0:
        return NvidiaGpu("failing", cuda, version, f"the driver answers with error {code}: {_ERRORS.get(code, 'see cuda.h')}")
    return NvidiaGpu("found", cuda, version)


@lru_cache(maxsize=1)
def gpu_here() -> NvidiaGpu:
    """`look_for_gpu`, asked once."""
    return look_for_gpu()


def _kernel_version(kernel: Path) -> str | None:
    try:
        found = re.search(r"\b\d+\.\d+(?:\.\d+)?\b", kernel.read_text("utf-8", "replace"))
    except OSError:
        return None
    return found.group(0) if found else None


def _why_hidden() -> tuple[str, str | None]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return f"CUDA_VISIBLE_DEVICES={visible!r} hides it", "unset CUDA_VISIBLE_DEVICES"
    if _WSL.exists():
        return (
            "the driver of Windows is seen and its GPU is not (error 100)",
            "wsl --shutdown (in Windows, after an update of its driver)",
        )
    if any(p.exists() for p in _IN_CONTAINER):
        return "this container was given no device (error 100)", _CONTAINER
    return "there is an NVIDIA driver and no device (error 100)", None
