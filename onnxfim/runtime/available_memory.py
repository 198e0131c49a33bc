"""How much memory this process may still take, and how much it has: what the system, a container or a limit says."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from onnxfim.runtime import control_groups
from onnxfim.runtime.control_groups import groups, lines, number

#: Names a limit of the process's resident memory in bytes, beside those that the system sets.
LIMIT = "ONNXFIM_MEMORY_LIMIT"
_NONE = 2**60  # a control group without a limit tells a number above this, or a word


def available_memory() -> int | None:
    """Bytes that this process may still take before one of its limits is reached; None where the system tells nothing.

    The least of: what the system has left, what every control group around the process has left (their limits hold for all
    processes in them together), what ``ulimit -v`` and ``ulimit -d`` leave, and what the environment's ``ONNXFIM_MEMORY_LIMIT``
    leaves of the resident memory.
    """
    return max(0, least) if (least := min(_remains(), default=None)) is not None else None


def total_memory() -> int | None:
    """Bytes of the machine, or of the container where that is less; None where the system does not say."""
    try:
        machine = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    except (AttributeError, ValueError, OSError):
        machine = []
    return min([*machine, *(limit for limit, _ in _group_limits())], default=None)


def resident_memory(pid: int | None = None) -> int | None:
    """Bytes of this process, or of another one, that are in memory now; None where the system does not say."""
    return _status("VmRSS", control_groups.PROCESS if pid is None else Path(f"/proc/{pid}"))


def memory_kills() -> int | None:
    """How many processes the system has ended for want of memory: of this control group, else of the machine; None where untold."""
    told = [folder / ("memory.events" if unified else "memory.oom_control") for _, folder, unified in groups("memory")]
    found = [int(s.split()[1]) for path in (*told, Path("/proc/vmstat")) for s in lines(path) if s.startswith("oom_kill ")]
    return sum(found) if found else None


def highest_memory() -> int | None:
    """The most bytes of this process that were in memory at once so far; None where the system does not say."""
    if (found := _status("VmHWM")) is not None:
        return found
    try:
        import resource
    except ImportError:  # Windows
        return None
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size if sys.platform == "darwin" else size * 1024


def _remains() -> Iterator[int]:
    if (free := _free()) is not None:
        yield free
    for limit, used in _group_limits():
        yield limit - used
    yield from _rlimits()
    given, resident = os.environ.get(LIMIT, ""), resident_memory()
    if given.isdecimal() and resident is not None:
        yield int(given) - resident


def _free() -> int | None:
    """What the system can give without swapping."""
    for line in lines(Path("/proc/meminfo")):
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        return _free_on_windows()
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # macOS tells what there is, not what is free
        total = total_memory()
        return None if total is None else total // 2


def _free_on_windows() -> int | None:
    import ctypes

    class Status(ctypes.Structure):
        _fields_ = [("length", ctypes.c_uint32), ("load", ctypes.c_uint32), *((name, ctypes.c_uint64) for name in "abcdefg")]

    status = Status(length=ctypes.sizeof(Status))
    windll = getattr(ctypes, "windll", None)
    if windll is None or not windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
        return None
    return int(status.b)


def _group_limits() -> Iterator[tuple[int, int]]:
    """Limit and use of every control group around this process that has a limit; files that can be dropped are no use."""
    for folder, unified in control_groups.around("memory"):
        if unified:
            limit, use, cached = "memory.max", "memory.current", "inactive_file "
        else:
            limit, use, cached = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file "
        most, used = number(folder / limit), number(folder / use)
        if most is not None and used is not None and most < _NONE:
            dropped = next((int(s.split()[1]) for s in lines(folder / "memory.stat") if s.startswith(cached)), 0)
            yield most, max(0, used - dropped)


def _rlimits() -> Iterator[int]:
    try:
        import resource
    except ImportError:  # Windows
        return
    for kind, used in (("RLIMIT_AS", "VmSize"), ("RLIMIT_DATA", "VmData")):
        soft = resource.getrlimit(getattr(resource, kind))[0] if hasattr(resource, kind) else resource.RLIM_INFINITY
        if soft != resource.RLIM_INFINITY and soft < _NONE and (taken := _status(used)) is not None:
            yield soft - taken


def _status(name: str, process: Path | None = None) -> int | None:
    """A size that the system tells of a process, this one where none is named, in bytes."""
    told = lines((process or control_groups.PROCESS) / "status")
    return next((int(s.split()[1]) * 1024 for s in told if s.startswith(f"{name}:")), None)
