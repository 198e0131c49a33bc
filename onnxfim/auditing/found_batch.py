"""Keeps the batch that was found for a model on this machine, and whether threads spin there, so that it is found once."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from onnxfim.auditing.context import Context
from onnxfim.errors import InputError
from onnxfim.record.plain import to_plain
from onnxfim.runtime.forgiving import rows_that_run
from onnxfim.runtime.forward import OnnxForward
from onnxfim.runtime.shared_cores import usable_cores
from onnxfim.runtime.watching import current_watch

_KEY = "batch"


@dataclass(frozen=True)
class FoundBatch:
    """Rows of a call, whether threads of the runtime spin, and whether the model was opened again without."""

    batch: int
    spinning: bool
    reopened: bool

    @staticmethod
    def read(record: Mapping[str, Any]) -> FoundBatch:
        """The record that was kept.

        Raises:
            InputError: it is none.
        """
        found = FoundBatch(record["batch"], record["spinning"], record["reopened"])
        kinds = type(found.batch) is int and type(found.spinning) is bool and type(found.reopened) is bool
        if not kinds or found.batch < 1:
            raise InputError(f"cache: {record} is no batch that was found, expected rows of a call. It is found again.")
        return found


def find_batch(context: Context) -> None:
    """Find the model's batch, or take the one that was found on this machine, by the same runtime and on the same cores."""
    forward = context.subject.forward
    watch = current_watch()
    free = isinstance(forward, OnnxForward) and forward.finder.searching and watch.most_rows is None and not watch.tries
    store = context.store(found=_machine()) if free else None
    before = None if store is None else store.record(_KEY, FoundBatch.read)
    if before is not None and isinstance(forward, OnnxForward) and forward.finder.remember(before.batch):
        if not before.spinning:
            forward.stop_spinning(reopen=before.reopened)
        return
    at = rows_that_run(forward.outputs, context.X, 1)
    forward.find_batch(context.X[at], at)
    if store is not None and isinstance(forward, OnnxForward):
        store.put_record(_KEY, to_plain(FoundBatch(forward.batch, forward.hardware.spinning, forward.reopened)))


def _machine() -> tuple[str, str, int]:
    """What a batch depends on beside the model, its runtime and its provider."""
    return platform.node(), platform.machine(), usable_cores()
