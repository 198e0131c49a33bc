"""Bounds kept on disk under the hash of the model's file."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

from onnxfim.bounds.result import Bound
from onnxfim.errors import OnnxFimError, SettingsError

#: Part of every entry: raise it when a rule changes, so that old figures are computed again.
VERSION = 2


def cached_bound(model_sha256: str, compute: Callable[[], Bound], cache_dir: str | os.PathLike[str], *, variant: str = "") -> Bound:
    """The bound from the cache, or computed and entered there.

    An entry that is damaged, of another version or of another model is computed again and replaced. A cache that cannot
    be written is
    no error: the bound is returned all the same.

    Args:
        model_sha256: Hash of the model's file, 64 hexadecimal digits.
        compute: Computes the bound.
        cache_dir: Folder of the cache; made when missing.
        variant: What else the bound depends on (input, output, range), part of the key.

    Raises:
        SettingsError: the hash is not one.
    """
    if not re.fullmatch(r"[0-9a-f]{64}", model_sha256):
        raise SettingsError(f"bound cache: {model_sha256!r} is not a SHA-256 hash; 64 lower-case hexadecimal digits were expected.")
    key = hashlib.sha256(f"{VERSION}\n{model_sha256}\n{variant}".encode()).hexdigest()
    path = Path(cache_dir) / f"bound-{key[:32]}.json"
    found = _read(path, key)
    if found is not None:
        return found
    bound = compute()
    body = json.dumps(bound.to_json(), allow_nan=False, sort_keys=True)
    _write(path, json.dumps({"key": key, "digest": hashlib.sha256(body.encode()).hexdigest(), "bound": body}))
    return bound


def _read(path: Path, key: str) -> Bound | None:
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))
        body = entry["bound"]
        if entry["key"] != key or entry["digest"] != hashlib.sha256(body.encode()).hexdigest():
            return None
        return Bound.from_json(json.loads(body))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OnnxFimError):
        return None


def _write(path: Path, text: str) -> None:
    """Written beside and moved into place, so that a reader never sees half an entry."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".bound-")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(name, path)
    except OSError:
        return
