"""Lots of work that several processes of one machine take from a folder, each by one of them; the files are all that they share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_FREE, _DONE, _TAKEN = "free", "done", "taken-"


class Claims:
    """A folder of numbered lots: free, taken by somebody, or done.

    A lot is a file that moves from folder to folder, and moving is one act of the file system: of two who reach for one one has it.
    Who is started again finds what it took before.

    Args:
        folder: The folder.
        taker: Who takes, by a name that no other has; empty for one that only looks on.
    """

    def __init__(self, folder: Path, taker: str = "") -> None:
        self._folder, self._mine = folder, folder / f"{_TAKEN}{taker}"
        if taker:
            self._mine.mkdir(exist_ok=True)

    @classmethod
    def make(cls, folder: Path, lots: int) -> Claims:
        """So many free lots in an empty folder, numbered from 1."""
        for name in (_FREE, _DONE):
            (folder / name).mkdir(parents=True)
        for number in range(1, lots + 1):
            (folder / _FREE / f"{number:08}").touch()
        return cls(folder)

    def __iter__(self) -> Iterator[int]:
        """Take one lot after another, as long as there are any; first those that were taken under this name and are not done."""
        for path in sorted(self._mine.iterdir()):
            yield int(path.name)
        while (number := self._take()) is not None:
            yield number

    def _take(self) -> int | None:
        while names := sorted(os.listdir(self._folder / _FREE)):
            for name in names:
                with suppress(FileNotFoundError):  # somebody else has it
                    os.rename(self._folder / _FREE / name, self._mine / name)
                    return int(name)
        return None

    def finish(self, number: int, text: str) -> None:
        """A lot that was taken is done; what came of it. It is there as a whole or not at all."""
        path = self._mine / f"{number:08}"
        path.write_text(text, "utf-8")
        os.rename(path, self._folder / _DONE / f"{number:08}")

    def release(self, taker: str) -> int:
        """Free what somebody took and did not finish; how many lots that were."""
        taken = self._folder / f"{_TAKEN}{taker}"
        paths = sorted(taken.iterdir()) if taken.is_dir() else []
        for path in paths:
            path.write_text("", "utf-8")
            os.rename(path, self._folder / _FREE / path.name)
        return len(paths)

    def results(self) -> dict[int, str]:
        """What came of the lots that are done, by their numbers."""
        return {int(p.name): p.read_text("utf-8") for p in sorted((self._folder / _DONE).iterdir())}

    @property
    def done(self) -> int:
        """How many lots are done."""
        return len(os.listdir(self._folder / _DONE))

    @property
    def left(self) -> int:
        """How many lots are free."""
        return len(os.listdir(self._folder / _FREE))


__all__ = ["Claims"]
