"""Where a command keeps what models answered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from onnxfim.auditing.cache import default_folder


def cache_folder(options: dict[str, Any]) -> Path | None:
    """The folder that the options name; None where nothing is kept, as of commands without such options."""
    if options.get("no_cache", True):
        return None
    return Path(options["cache_dir"]) if options["cache_dir"] else default_folder()
