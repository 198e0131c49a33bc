"""Parquet and Arrow files, and folders of them, as one table; with `columnar.py`, the only home of pyarrow."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from onnxfim.data.samples import one_line
from onnxfim.errors import InputError

#: An Arrow column, batch or schema: pyarrow has no types of its own for a type checker.
Arrow: TypeAlias = Any

_BATCH = 1024  # rows that are read at a time
_STATE, _INFO, _SPLITS = "state.json", "dataset_info.json", "dataset_dict.json"
_MOST_BYTES = 16 * 2**20  # of the JSON beside the data


@dataclass(frozen=True)
class Shards:
    """Files that hold one table after another, with one schema.

    Attributes:
        where: What they are, for messages.
        schema: Of all.
        total: Rows.
        batches: Goes through the given columns, batch by batch.
        described: What Hugging Face tells of each column; empty where it tells nothing.
    """

    where: str
    schema: Arrow
    total: int
    batches: Callable[[Sequence[str]], Iterator[Arrow]]
    described: Mapping[str, Any]


def is_saved_dataset(folder: Path) -> bool:
    """Whether a folder is what ``datasets.save_to_disk`` writes, or holds Parquet files."""
    return (folder / _STATE).is_file() or (folder / _SPLITS).is_file() or any(folder.glob("*.parquet"))


@contextmanager
def readable(path: Path, pa: Any) -> Iterator[None]:
    """Turn what a damaged file raises into one line."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: cannot be read ({one_line(error)[:200] or type(error).__name__}), expected Arrow's or Parquet's format. "
            "Copy it again, or save it again."
        ) from error


def shards_of(path: Path, files: ExitStack) -> Shards:
    """What a file or a folder holds; it can be read until ``files`` are closed.

    Raises:
        InputError: several splits, files that are missing, or that have different columns.
    """
    if not path.is_dir():
        return _parquet([path], str(path)) if path.suffix.lower() == ".parquet" else _arrow([path], str(path), files, {})
    if (path / _SPLITS).is_file():
        splits = [s for s in _listed(_json(path / _SPLITS), "splits") if isinstance(s, str) and (path / s / _STATE).is_file()]
        if len(splits) != 1:
            example = f"{path}/{next((s for s in splits if 'test' in s or 'val' in s), (splits or ['test'])[0])}"
            raise InputError(
                f"{path}: holds the splits {', '.join(splits) or '(none)'}, expected one. Pass its folder, such as {example}."
            )
        path = path / splits[0]
    if (path / _STATE).is_file():
        listed = _listed(_json(path / _STATE), "_data_files")
        names = [Path(str(f.get("filename", ""))).name for f in listed if isinstance(f, dict)]  # nothing outside the folder
        info = _json(path / _INFO) if (path / _INFO).is_file() else {}
        if not names or not all((path / name).is_file() for name in names):
            raise InputError(
                f"{path}: lacks files that its {_STATE} names ({', '.join(names[:3]) or 'none'}). Copy the folder again."
            )
        return _arrow([path / name for name in names], str(path), files, info.get("features") or {})
    found = sorted(path.glob("*.parquet"))
    if len(splits := sorted({f.stem.split("-")[0] for f in found})) > 1:
        raise InputError(f"{path}: holds Parquet files of {', '.join(splits[:6])}, expected those of one split. Pass one file.")
    return _parquet(found, str(path))


def _json(path: Path) -> Mapping[str, Any]:
    if path.stat().st_size > _MOST_BYTES:
        raise InputError(f"{path}: has over {_MOST_BYTES:,} bytes, expected a description of a data set. Check the path.")
    try:
        found = json.loads(path.read_bytes().decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path}: is not JSON ({one_line(error)[:100]}), expected what `save_to_disk` wrote. Save the data set again."
        ) from error
    return found if isinstance(found, dict) else {}


def _listed(record: Mapping[str, Any], key: str) -> list[Any]:
    """The list under a key; an empty one where there is something else."""
    found = record.get(key)
    return found if isinstance(found, list) else []


def _parquet(paths: Sequence[Path], where: str) -> Shards:
    import pyarrow.parquet as pq

    opened = [pq.ParquetFile(path, memory_map=True) for path in paths]
    schema = opened[0].schema_arrow
    _one_schema(where, [file.schema_arrow for file in opened])

    def batches(columns: Sequence[str]) -> Iterator[Arrow]:
        for file in opened:
            yield from map(_sound, file.iter_batches(_BATCH, columns=list(columns), use_threads=False))

    described: Mapping[str, Any] = {}
    try:
        told = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        described = told.get("info", {}).get("features") or {}
    except (ValueError, AttributeError, RecursionError):
        pass  # another program's use of the key
    return Shards(where, schema, sum(f.metadata.num_rows for f in opened), batches, described)


def _one_schema(where: str, schemas: Sequence[Arrow]) -> None:
    """Refuse files whose columns are not the same."""
    for schema in schemas[1:]:
        if not schema.equals(schemas[0]):
            raise InputError(
                f"{where}: its files have different columns ({', '.join(schemas[0].names[:6])} and {', '.join(schema.names[:6])}), "
                "expected the same. Pass one file."
            )


def _sound(batch: Arrow) -> Arrow:
    """The batch, once all that its buffers point to is known to lie in them; Arrow does not look when it reads."""
    batch.validate(full=True)
    return batch


def _arrow(paths: Sequence[Path], where: str, files: ExitStack, described: Mapping[str, Any]) -> Shards:
    import pyarrow as pa

    def opened(path: Path) -> Iterator[Arrow]:
        source = files.enter_context(pa.memory_map(str(path)))
        try:
            yield from pa.ipc.open_stream(source)
        except pa.ArrowInvalid:  # the file format, which has another beginning
            source.seek(0)
            reader = pa.ipc.open_file(source)
            yield from (reader.get_batch(i) for i in range(reader.num_record_batches))

    def batches(columns: Sequence[str]) -> Iterator[Arrow]:
        for path in paths:
            yield from (_sound(batch.select(list(columns))) for batch in opened(path))

    sizes = [(batch.schema, batch.num_rows) for path in paths for batch in opened(path)]
    if not sizes:
        raise InputError(f"{where}: has no rows, expected a row for each sample. Check how it was saved.")
    _one_schema(where, [schema for schema, _ in sizes])
    return Shards(where, sizes[0][0], sum(n for _, n in sizes), batches, described if isinstance(described, dict) else {})
