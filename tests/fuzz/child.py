"""The child process of one case: own folders, limits, a watch on what it opens; then the program, as from a shell."""

from __future__ import annotations

import faulthandler
import importlib
import io
import os
import pkgutil
import resource
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

#: The folder within a case's folder that belongs to the harness and to what the program keeps for itself.
OWN = ".own"
HOME, TEMPORARY, CACHE = f"{OWN}/home", f"{OWN}/tmp", f"{OWN}/cache"
#: What the child's watch saw of files that are nobody's business, one a line.
SEEN = f"{OWN}/seen"
_MEMORY = 4 << 30  # bytes of address space beyond what the parent has
_FILE = 256 << 20  # bytes of one file

_ROOT = Path(__file__).resolve().parents[2]
_READABLE = (
    sys.prefix,
    sys.base_prefix,
    sys.exec_prefix,
    str(_ROOT),
    "/proc",
    "/sys",
    "/etc",
    "/usr",
    "/lib",
    "/lib64",
    "/opt",
    "/run/",
    "/dev/",
)
_WRITABLE = ("/dev/null", "/dev/shm/")
_CHANGES = {"os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "os.chmod", "shutil.rmtree"}


def warm() -> None:
    """Import the product whole, so that a child need not; nothing is opened and no thread started.

    Raises:
        RuntimeError: there are threads, which a fork would lose.
    """
    sys.dont_write_bytecode = True
    import onnxfim

    for module in pkgutil.walk_packages(onnxfim.__path__, "onnxfim."):
        if not module.name.endswith(("__main__", "pytest_plugin")):
            importlib.import_module(module.name)
    for name in ("PIL.Image", "rich.table", "rich.progress", "scipy.linalg", "scipy.special", "jsonschema", "onnx.shape_inference"):
        importlib.import_module(name)
    threads = len(os.listdir("/proc/self/task"))
    if threads != 1:
        raise RuntimeError(f"the warm process has {threads} threads, expected one: set OMP_NUM_THREADS=1 before it starts.")


def product() -> None:
    """The console script."""
    from onnxfim import cli

    sys.exit(cli.main())


def be_child(argv: Sequence[str], folder: Path, program: Callable[[], object] | None, *, limit: float) -> NoReturn:
    """Become the program's process and end as it ends; never returns."""
    code = 70
    try:
        _settle(argv, folder, limit)
        code = _ended_as(program or product)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    finally:
        os._exit(code)


def _settle(argv: Sequence[str], folder: Path, limit: float) -> None:
    os.setsid()
    own = folder / OWN
    for name in (HOME, TEMPORARY, CACHE):
        (folder / name).mkdir()
    for fd, name in ((1, "stdout"), (2, "stderr")):
        file = os.open(own / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, fd)
        os.close(file)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), "utf-8")
    sys.stdout, sys.stderr = (_text(1, "strict"), _text(2, "backslashreplace"))
    sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr
    os.chdir(folder)
    for name in [n for n in os.environ if n.startswith(("ONNXFIM", "XDG", "LC_", "COLUMNS"))]:
        del os.environ[name]
    os.environ |= {
        "HOME": str(folder / HOME), "XDG_CACHE_HOME": str(folder / CACHE), "TMPDIR": str(folder / TEMPORARY),
        "COLUMNS": "120", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(_ROOT),
        "ONNXFIM_ISOLATE": "off",  # a crash of the runtime is to be seen here
    }  # fmt: skip
    tempfile.tempdir = None
    sys.argv = ["onnxfim", *argv]
    faulthandler.enable(sys.stderr)
    faulthandler.register(signal.SIGUSR1, sys.stderr)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_FILE, _FILE))
    seconds = int(limit) + 30
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    with open("/proc/self/statm") as file:
        mine = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mine + _MEMORY, mine + _MEMORY))
    _watch(folder)


def _text(fd: int, errors: str) -> io.TextIOWrapper:
    """A standard stream over a descriptor, as Python makes it."""
    return io.TextIOWrapper(io.BufferedWriter(io.FileIO(fd, "w", closefd=False)), "utf-8", errors, line_buffering=True)


def _watch(folder: Path) -> None:
    """Note whatever Python opens or changes outside the case's folder, and every connection; libraries below it are watched by inotify."""
    seen = os.open(folder / SEEN, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    here = (str(folder), str(folder.resolve()))

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = args
            if isinstance(path, int) or path is None:
                return
            writes = bool((flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
            note("wrote" if writes else "read", path, _WRITABLE if writes else _READABLE)
        elif event in _CHANGES:
            for path in args[:2]:
                if isinstance(path, (str, bytes)):
                    note(event, path, _WRITABLE)
        elif event in ("socket.connect", "socket.bind"):
            os.write(seen, f"{event} {args[1:]!r}\n".encode())

    def note(what: str, path: Any, allowed: tuple[str, ...]) -> None:
        try:
            whole = os.path.realpath(os.path.join(here[0], os.fsdecode(path)))
        except ValueError:  # a zero byte: nothing is opened by it
            return
        if whole.startswith("/proc/") and whole.endswith("/oom_score_adj"):  # of a process of the program's own, alone
            return
        if not any(whole == p or whole.startswith(p.rstrip("/") + "/") for p in (*here, *allowed)):
            os.write(seen, f"{what} {whole!r}\n".encode())

    sys.addaudithook(hook)


def _ended_as(program: Callable[[], object]) -> int:
    """The exit code that Python would end with."""
    try:
        program()
    except SystemExit as end:
        if end.code is None:
            return 0
        if isinstance(end.code, int):
            return end.code & 0xFF
        print(end.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0
