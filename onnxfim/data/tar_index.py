"""What lies where in shards of samples, as WebDataset writes them: tar archives whose members of one key are a sample.

Nothing is extracted and no name becomes a path: members are read at their places in the archive.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from onnxfim.data.file_ranges import FileRanges
from onnxfim.data.samples import one_line
from onnxfim.errors import InputError

SUFFIX = ".tar"
#: Members that hold a sample, by the end of their names.
PICTURES = frozenset({"png", "jpg", "jpeg", "bmp", "gif", "webp", "tif", "tiff", "ppm", "pgm"})
ARRAYS = frozenset({"npy"})
#: Members that hold a label: a number or a word.
LABELS = ("cls", "label", "labels", "class", "target")
MOST_BYTES = 2**30  # of a member that is read
_MOST_TEXT = 2**20  # of one that holds a label
_BLOCK = 512  # bytes that an archive is made of
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_MOST_SHARDS = 100_000
_DAMAGED = (tarfile.TarError, OSError, EOFError, ValueError, OverflowError, RecursionError, MemoryError)


@dataclass
class ShardSample:
    """A sample of the shards.

    Attributes:
        name: Its key, after the shard's name where there are several.
        shard: Which of them holds it.
        members: By the end of a name, where its bytes begin and how many they are.
        fault: Why it cannot be used, or None.
    """

    name: str
    shard: int
    members: dict[str, tuple[int, int]] = field(default_factory=dict)
    fault: str | None = None

    def one_of(self, kinds: frozenset[str]) -> str | None:
        """The member of one of these kinds: one whose name has no other part behind the key, else the only one that ends so."""
        plain = [e for e in self.members if e in kinds]
        ends = plain or [e for e in self.members if e.rpartition(".")[2] in kinds]
        if len(ends) > 1:
            self.fault = self.fault or f"holds {', '.join(sorted(ends)[:4])}, expected one of them"
        return ends[0] if ends else None


@dataclass(frozen=True)
class TarIndex:
    """The samples of shards, in their order."""

    where: str
    ranges: FileRanges
    entries: tuple[ShardSample, ...]

    def read(self, entry: ShardSample, member: str) -> bytearray:
        """The bytes of a member."""
        start, size = entry.members[member]
        return self.ranges.read(entry.shard, start, size)


def shards_named(data: str | Path) -> list[Path] | None:
    """The archives that data name: a ``.tar`` file, a folder of them, or ``name-{000..012}.tar``; None of other data.

    Raises:
        InputError: some of a pattern are not there, or archives are compressed.
    """
    text, path = str(data), Path(data)
    if path.is_dir():
        return _of_folder(path)
    if text.lower().endswith(_COMPRESSED):
        raise InputError(
            f"{text}: is a compressed archive, in which no sample can be read at its place; expected a plain .tar. Unpack it once, "
            "with gunzip or alike."
        )
    if path.suffix.lower() != SUFFIX:
        return None
    if path.exists() or not _RANGE.search(text):
        return [path]
    found = [Path(name) for name in _named(text)]
    missing = [p for p in found if not p.is_file()]
    if missing:
        raise InputError(
            f"{text}: {len(missing)} of {len(found)} shards are not there (the first, {missing[0]}), expected all. Check the range."
        )
    return found


def stands_for(data: str, path: str) -> bool:
    """Whether data are a pattern of shards that ``path`` is one of."""
    pattern = _RANGE.search(data) is not None and data.lower().endswith(SUFFIX) and not Path(data).exists()
    return pattern and Path(path).exists() and any(Path(name).exists() and Path(name).samefile(path) for name in _named(data))


def _of_folder(folder: Path) -> list[Path] | None:
    """The archives of a folder that holds no pictures and no other folders; None where there are none."""
    found: list[Path] = []
    with suppress(OSError):  # who reads the folder tells of it
        for entry in folder.iterdir():
            end = entry.suffix.lower()
            if entry.name.startswith("."):
                continue
            if end.removeprefix(".") in PICTURES or entry.is_dir():
                return None
            if end == SUFFIX and entry.is_file():
                found.append(entry)
    return sorted(found) or None


def _named(pattern: str) -> list[str]:
    """Names that a pattern with ranges in braces stands for, such as ``a-{000..012}.tar``."""
    names = [pattern]
    while (found := _RANGE.search(names[0])) is not None:
        first, last = found.groups()
        count = int(last) - int(first) + 1
        if count < 1 or count * len(names) > _MOST_SHARDS:
            raise InputError(
                f"{pattern}: stands for {max(count, 0) * len(names):,} shards, expected 1 to {_MOST_SHARDS:,}. Check the range."
            )
        numbers = [f"{k:0{len(first)}d}" for k in range(int(first), int(last) + 1)]
        names = [_RANGE.sub(number, name, count=1) for name in names for number in numbers]
    return names


def index_of(where: str, shards: Sequence[Path]) -> TarIndex:
    """Go through the archives once.

    Raises:
        InputError: one that cannot be read, is cut short or damaged, or that holds nothing.
    """
    try:
        ranges = FileRanges.of(shards)
    except OSError as error:
        raise InputError(
            f"{where}: cannot be opened ({error.strerror or error}), expected tar archives. Check the path."
        ) from error
    entries: list[ShardSample] = []
    for k, shard in enumerate(shards):
        found: dict[str, ShardSample] = {}
        before = f"{shard.name}/" if len(shards) > 1 else ""
        try:
            for name, start, size, odd in _members(shard):
                key, end = _split(name)
                if not end:
                    continue
                entry = found[key] if key in found else found.setdefault(key, ShardSample(before + _printable(key), k))
                if odd is not None:
                    entry.fault = entry.fault or f"{_printable(name)} is {odd}"
                elif end in entry.members:
                    entry.fault = entry.fault or f"{_printable(name)} comes twice"
                else:
                    entry.members[end] = (start, size)
        except _DAMAGED as error:
            raise InputError(
                f"{shard}: is no complete tar archive ({one_line(error)[:120] or type(error).__name__}), expected one without "
                "compression. Copy it again."
            ) from error
        entries += found.values()
    if not entries:
        raise InputError(
            f"{where}: holds no member KEY.ending, expected a picture or an array of each sample. Check how it was written."
        )
    return TarIndex(where, ranges, tuple(entries))


def _members(shard: Path) -> Iterator[tuple[str, int, int, str | None]]:
    """Name, place and size of each member that is no folder, and what is odd about it."""
    last, whole, end = -1, shard.stat().st_size, None
    with tarfile.open(shard, "r:") as archive:
        while (m := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]  # it would keep all of them
            if m.offset <= last or m.size < 0 or m.offset_data < m.offset:
                raise tarfile.ReadError("a member whose size leads backwards")
            last = m.offset
            if m.isdir():
                continue
            odd = None
            if m.issym() or m.islnk():
                odd = "a link, which is not followed"
            elif m.issparse():
                odd = "a sparse file, which is not read"
            elif not m.isreg():
                odd = "no regular file"
            elif m.size > MOST_BYTES:
                odd = f"of {m.size / 2**30:.1f} GiB, expected at most {MOST_BYTES / 2**30:.0f}"
            if m.isreg() and m.offset_data + m.size > whole:
                raise tarfile.ReadError(f"{one_line(_printable(m.name))[:60]} reaches beyond its end")
            end = None if m.issparse() else m.offset_data + (-(-m.size // _BLOCK) * _BLOCK if m.isreg() else 0)
            yield m.name, m.offset_data, m.size, odd
    if end is not None:
        with shard.open("rb") as file:
            file.seek(end)
            if file.read(_BLOCK) != bytes(_BLOCK):  # else what is cut off between two members would not be missed
                raise tarfile.ReadError("it lacks the mark of its end")


def _split(name: str) -> tuple[str, str]:
    """A member's key and ending: all before and behind the first dot of its last part; no ending of hidden files."""
    folder, slash, last = name.rpartition("/")
    key, _, end = last.partition(".")
    return (f"{folder}{slash}{key}", end.lower()) if key else (name, "")


def _printable(name: str) -> str:
    """A name in characters that can be encoded."""
    return one_line(name.encode("utf-8", "replace").decode("utf-8", "replace"))


def label_of_entry(index: TarIndex, entry: ShardSample, asked: str | None, names: Sequence[str]) -> str | None:
    """The label of a sample as text: of a member that is called so, or under such a key of its JSON; None where there is none.

    Args:
        index: The shards.
        entry: The sample.
        asked: What the user calls the label, or None.
        names: What a label is called in JSON where nobody says.
    """
    own = [asked.lower()] if asked is not None else list(LABELS)
    member = next((e for e in own if e in entry.members), None)
    if member is not None:
        return _text(index, entry, member).strip() or None
    if "json" not in entry.members:
        return None
    try:
        told = json.loads(_text(index, entry, "json"))
    except (ValueError, RecursionError):
        entry.fault = entry.fault or f"{entry.name}.json is no JSON"
        return None
    if isinstance(told, dict):
        lower = {str(key).lower(): value for key, value in told.items()}
        told = next((lower[name] for name in (own if asked is not None else names) if name in lower), None)
    if isinstance(told, bool) or not isinstance(told, (int, float, str)):
        return None
    return str(told).strip() or None


def _text(index: TarIndex, entry: ShardSample, member: str) -> str:
    """A small member's text; the sample is at fault where it is none."""
    if entry.members[member][1] > _MOST_TEXT:
        entry.fault = entry.fault or f"{entry.name}.{member} has over {_MOST_TEXT:,} bytes, expected a label"
        return ""
    try:
        return index.read(entry, member).decode("utf-8-sig")
    except UnicodeDecodeError:
        entry.fault = entry.fault or f"{entry.name}.{member} is not UTF-8 text"
        return ""
