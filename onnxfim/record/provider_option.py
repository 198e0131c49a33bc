"""One option of an execution provider: what it was set to, by whom, and what became of it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from onnxfim.record.limits import closed

_CODE = re.compile(r"plugin|_lib|lib_|library|libraries|backend_path|external_(?:alloc|free|empty)|user_compute_stream|custom_op")


def loads_code(key: str) -> bool:
    """Whether an option makes its provider load a library or use an address in memory."""
    return _CODE.search(key.lower()) is not None


@closed
@dataclass(frozen=True)
class ProviderOption:
    """An option that a session was opened with.

    Attributes:
        provider: The provider's full name.
        key, value: The option as it was set.
        running: What the session says it runs with, or None where it does not say.
        taken: Whether that is what was set: False also where the provider did not run, None where no session tells.
        ours: Whether nobody asked for it: a default of this package.
    """

    provider: str
    key: str
    value: str
    running: str | None
    taken: bool | None
    ours: bool
