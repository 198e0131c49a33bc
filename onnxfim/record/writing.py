"""Writes outputs: files whole or not at all, through links, and straight into what is no file."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import select
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Literal, TypeAlias

from onnxfim.errors import OutputError

#: Seconds that a named pipe waits for a reader, that a reader may take nothing, and either of them where the work was asked to end.
READER_COMES, READER_TAKES, HURRIED = 5.0, 30.0, 1.0
#: Where no file can be made beside the old one, or not be moved over it, that one is written in place: a file of a folder that is
#: closed, a file that is mounted by itself, a folder whose path leaves no room for a temporary name.
_NO_MOVE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY, errno.ENAMETOOLONG}
_PART = 2**20  # letters that are encoded at a time
#: What is written, part by part; asked for again where it is written in another way.
_Content: TypeAlias = Callable[[], Iterable[bytes]]
_DESCRIPTORS = re.compile(r"/proc/\d+(/task/\d+)?/fd")  # the folder of links that stand for open files
_CANNOT_BE = {
    stat.S_IFDIR: "is a folder, expected a file to write. Give a file name in it.",
    stat.S_IFSOCK: "is a socket, expected a file, a pipe or a character device. Write elsewhere.",
    stat.S_IFBLK: "is a block device, expected a file, a pipe or a character device. Write elsewhere.",
}


@dataclass(frozen=True)
class Destination:
    """Where an output goes.

    Attributes:
        path: What is written, behind all links.
        kind: ``file`` for one that is made or replaced, ``open`` for one behind a descriptor of a process, ``stream`` for a pipe
            or a device.
        identity: Equal for two paths of one file.
    """

    path: str
    kind: Literal["file", "open", "stream"]
    identity: tuple[int, int] | str


def destination(path: str | os.PathLike[str]) -> Destination:
    """Where ``path`` leads, and that it can be written as far as that can be told before.

    Raises:
        OutputError: a folder, a socket, a block device, a ring of links, a folder that is not there, or no permission.
    """
    try:
        found = _destination(os.fspath(path))
        _permitted(found)
    except (OSError, ValueError) as error:  # ValueError: a zero byte
        raise OutputError(f"{path}: cannot be written ({reason(error)}). Write elsewhere.") from error
    except OutputError as error:
        raise OutputError(f"{path}: {error}") from error
    return found


def _destination(path: str) -> Destination:
    if os.path.basename(path) in ("", os.curdir, os.pardir):
        raise OutputError(_CANNOT_BE[stat.S_IFDIR])
    try:
        there = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):  # a new file, a link to one, or a folder that is not there
        there = None
    if there is not None and (refused := _CANNOT_BE.get(stat.S_IFMT(there.st_mode))):
        raise OutputError(refused)
    if there is not None and not stat.S_ISREG(there.st_mode):
        return Destination(path, "stream", (there.st_dev, there.st_ino))
    try:
        of_descriptor, real = _is_descriptor(path), os.path.realpath(path)
    except FileNotFoundError as error:
        raise OutputError("the working folder is gone. Give a path from the root, or work elsewhere.") from error
    if of_descriptor:
        if there is None:
            raise OutputError("is no open descriptor. Write elsewhere.")
        return Destination(path, "open", (there.st_dev, there.st_ino))
    folder = os.path.dirname(real)
    shown = folder if os.path.islink(path) else os.path.dirname(path) or os.curdir
    try:
        parent = os.stat(folder)
    except (FileNotFoundError, NotADirectoryError) as error:
        if isinstance(error, FileNotFoundError):
            raise OutputError(f"the folder {shown!r} does not exist. Make it first, or write elsewhere.") from error
        raise OutputError(f"{shown!r} lies below a file, expected a folder. Write elsewhere.") from error
    if not stat.S_ISDIR(parent.st_mode):
        raise OutputError(f"{shown!r} is a file, expected a folder. Write elsewhere.")
    return Destination(real, "file", os.path.normcase(real) if there is None else (there.st_dev, there.st_ino))


def _is_descriptor(path: str) -> bool:
    """Whether ``path`` leads through a link that stands for an open file, such as ``/dev/stdout``."""
    for _ in range(40):
        folder = os.path.realpath(os.path.dirname(path)) if os.path.dirname(path) else ""
        if _DESCRIPTORS.fullmatch(folder):
            return True
        if not os.path.islink(path):
            return False
        path = os.path.join(folder, os.readlink(path))
    return False


def _permitted(found: Destination) -> None:
    """Raise where the system says beforehand that it may not be written; a file is, where it or else its folder may be changed."""
    asked = found.path if os.path.exists(found.path) else os.path.dirname(found.path)
    if os.access(asked, os.W_OK if asked == found.path else os.W_OK | os.X_OK):
        return
    if hasattr(os, "statvfs") and os.statvfs(asked).f_flag & os.ST_RDONLY:
        raise OSError(errno.EROFS, "the disk is read-only")
    raise PermissionError(errno.EACCES, "no permission")


def _never() -> bool:
    return False


def write_text(
    path: str | os.PathLike[str], text: str | Callable[[], Iterable[str]], *, hurried: Callable[[], bool] = _never
) -> None:
    """Write a text file in one move: readers see the old file or the whole new one (see `write_bytes`).

    A character that no encoding holds (half of a surrogate pair) is written as its JSON escape. A text may come in parts, from
    a function that gives them as often as it is called; they are then not all held at a time.

    Raises:
        OutputError: the file cannot be written.
    """

    def encoded() -> Iterator[bytes]:
        for part in _pieces(text) if isinstance(text, str) else text():
            yield part.encode("utf-8", "backslashreplace")

    _write(path, encoded, hurried)


def _pieces(text: str) -> Iterator[str]:
    return (text[start : start + _PART] for start in range(0, len(text), _PART))


def write_bytes(path: str | os.PathLike[str], content: bytes, *, hurried: Callable[[], bool] = _never) -> None:
    """Write a file in one move: readers see the old file or the whole new one, with the old one's permissions.

    Links are followed, a dangling one to the end. A pipe or a character device is written straight. A file beside which no other
    can be made is written in place, and put back where that fails. Other names (hard links) of an old file keep what it held.

    Args:
        path: Where to.
        content: What.
        hurried: Looked at while a pipe's reader is waited for: where it is true, that is not for long.

    Raises:
        OutputError: it cannot be written; no part of it, and no other file, is left then.
    """
    _write(path, lambda: iter((content,)), hurried)


def _write(path: str | os.PathLike[str], content: _Content, hurried: Callable[[], bool]) -> None:
    found = destination(path)
    try:
        if found.kind == "stream":
            _stream(found.path, content, hurried)
        elif found.kind == "open":
            _in_place(found.path, content)
        else:
            _move(found.path, content)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({reason(error)}). Write elsewhere.") from error


def _move(path: str, content: _Content) -> None:
    """Write a file beside the one at ``path`` and move it there."""
    old = os.stat(path) if os.path.exists(path) else None
    # Short, for a name that just fits; not open to others before it has the permissions of the old file.
    temporary = os.path.join(os.path.dirname(path), f".{secrets.token_hex(6)}.tmp")
    mode = 0o666 if old is None else 0o600
    try:
        with open(temporary, "xb", buffering=0, opener=lambda name, flags: os.open(name, flags, mode)) as file:
            for part in content():
                write_all(file, part)
            if old is not None:
                _make_like(file.fileno(), old)
            _to_disk(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:  # an interrupt leaves nothing behind either
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if not isinstance(error, OSError) or error.errno not in _NO_MOVE:
            raise
        _in_place(path, content)


def _in_place(path: str, content: _Content) -> None:
    """Write over what a file holds; that is put back where it fails. A new file is removed then."""
    new = not os.path.exists(path)
    with open(path, "xb" if new else "r+b", buffering=0) as file:
        old = b"" if new else file.read()
        try:
            _over(file, content())
            _to_disk(file.fileno())
        except BaseException:
            with contextlib.suppress(OSError):
                if new:
                    os.unlink(path)
                else:
                    file.truncate(len(old))  # gives back the room that the new content took
                    _over(file, (old,))
            raise


def _over(file: BinaryIO, content: Iterable[bytes]) -> None:
    """Let a file hold ``content`` and no more."""
    file.seek(0)
    for part in content:
        write_all(file, part)
    file.truncate(file.tell())


def write_all(file: BinaryIO, content: bytes) -> None:
    """Write all of it to a file without a buffer, which may take a part at a time."""
    left = memoryview(content)
    while left:
        left = left[file.write(left) :]


def _make_like(descriptor: int, old: os.stat_result) -> None:
    """Owner and permissions of the old file, as far as they may be given."""
    with contextlib.suppress(OSError, AttributeError):  # Windows has neither
        if (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
            os.fchown(descriptor, old.st_uid, old.st_gid)
    with contextlib.suppress(OSError, AttributeError):
        os.fchmod(descriptor, stat.S_IMODE(old.st_mode))


def _to_disk(descriptor: int) -> None:
    """Have the content on the disk before the name: a crash of the machine would else leave an empty file."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems know no such thing
            raise


def _stream(path: str, content: _Content, hurried: Callable[[], bool]) -> None:
    """Write into a pipe or a device; one that nobody reads does not wait for ever."""
    descriptor = _open_stream(path, hurried)
    try:
        for part in content():
            _given(descriptor, part, hurried)
    finally:
        os.close(descriptor)


def _given(descriptor: int, part: bytes, hurried: Callable[[], bool]) -> None:
    """Write a part into a pipe or a device, as its reader takes it."""
    left, since = memoryview(part), time.monotonic()
    while left:
        try:
            taken = os.write(descriptor, left[: 1 << 16])
        except BlockingIOError:
            taken = 0
        if taken:
            left, since = left[taken:], time.monotonic()
        elif (waited := time.monotonic() - since) > (min(HURRIED, READER_TAKES) if hurried() else READER_TAKES):
            raise TimeoutError(errno.ETIMEDOUT, f"its reader took nothing for {waited:.1f} s")
        else:
            waiting = select.poll()
            waiting.register(descriptor, select.POLLOUT)
            waiting.poll(200)


def _open_stream(path: str, hurried: Callable[[], bool]) -> int:
    flags = os.O_WRONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_CLOEXEC", 0)
    since = time.monotonic()
    while True:
        try:
            return os.open(path, flags)
        except OSError as error:
            if error.errno != errno.ENXIO or not stat.S_ISFIFO(os.stat(path).st_mode):
                raise
            if (waited := time.monotonic() - since) > (min(HURRIED, READER_COMES) if hurried() else READER_COMES):
                raise OSError(errno.ENXIO, f"a pipe that nothing read within {waited:.1f} s") from error
        time.sleep(0.05)


def reason(error: OSError | ValueError) -> str:
    """Why it failed, in the system's words."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)
