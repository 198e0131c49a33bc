"""The control groups of this process: where Linux, a container or a batch system tells what it may take."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")
PROCESS = Path("/proc/self")


def groups(kind: str) -> Iterator[tuple[Path, Path, bool]]:
    """The groups that count one kind of thing (``"memory"``, ``"cpu"``): the root, the process's folder, and if it is version 2."""
    for line in lines(PROCESS / "cgroup"):
        number_of, kinds, path = [*line.split(":", 2), "", ""][:3]
        if number_of == "0" and not kinds:
            yield GROUPS, GROUPS / path.strip("/"), True
        elif kind in kinds.split(","):
            yield GROUPS / kind, GROUPS / kind / path.strip("/"), False


def around(kind: str) -> Iterator[tuple[Path, bool]]:
    """The folders of all groups around this process, and whether they are of version 2; the limits of each hold."""
    for root, inside, unified in groups(kind):
        # In a container the path may be one of the host's: its own group is then the root of what is mounted.
        for folder in (inside, *inside.parents):
            if folder == root or root in folder.parents:
                yield folder, unified


def lines(path: Path) -> list[str]:
    """The lines of a file of the system's; none where it cannot be read."""
    try:
        return path.read_text().splitlines()
    except (OSError, ValueError):
        return []


def number(path: Path) -> int | None:
    """The whole number that a file of the system's begins with, or None."""
    found = lines(path)
    return int(found[0]) if found and found[0].strip().isdecimal() else None
