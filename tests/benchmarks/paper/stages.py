"""Stages that go on where they stopped: one JSON file for each model and stage, in a folder of your choice.

A model that fails is a record too, with its reason: the page lists it.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Record = dict[str, Any]


@dataclass(frozen=True)
class Folder:
    """Where a run keeps what it has: ``models/NAME.onnx``, ``models/NAME.npz`` and ``STAGE/NAME.json``."""

    path: Path

    def onnx(self, name: str) -> Path:
        return self.path / "models" / f"{name}.onnx"

    def weights(self, name: str) -> Path:
        """Arrays of the net by name, without pickled code."""
        return self.path / "models" / f"{name}.npz"

    def record(self, stage: str, name: str) -> Path:
        return self.path / stage / f"{name}.json"

    def read(self, stage: str, name: str) -> Record | None:
        """What a stage found of a model, None where it has not run."""
        path = self.record(stage, name)
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def write(self, stage: str, name: str, record: Record) -> None:
        """Write whole or not at all."""
        path = self.record(stage, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(f".{os.getpid()}.draft")
        draft.write_text(json.dumps(record) + "\n", encoding="utf-8")
        draft.replace(path)


Work = Callable[[Folder, Any], Record]


def one(task: tuple[Folder, str, Work, Any]) -> tuple[str, Record]:
    """Run one stage on one model in a worker."""
    folder, stage, work, cell = task
    start = time.perf_counter()
    try:
        record = work(folder, cell)
    except Exception as error:
        record = {"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    record["seconds"] = round(time.perf_counter() - start, 2)
    folder.write(stage, cell.name, record)
    return cell.name, record


def limit_threads() -> None:
    """One thread a worker: the workers share the cores."""
    import torch

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)


def run(folder: Folder, stage: str, work: Work, cells: Sequence[Any], *, jobs: int, again: bool = False) -> None:
    """Run a stage on all models that it has not run on; with ``again`` also on those that failed."""
    (folder.path / "models").mkdir(parents=True, exist_ok=True)

    def due(cell: Any) -> bool:
        known = folder.read(stage, cell.name)
        return known is None or (again and "failed" in known)

    waiting = [cell for cell in cells if due(cell)]
    start, done = time.perf_counter(), 0
    print(f"{stage}: {len(waiting)} of {len(cells)} models to do", flush=True)
    if not waiting:
        return
    tasks = [(folder, stage, work, cell) for cell in waiting]
    with multiprocessing.get_context("spawn").Pool(jobs, limit_threads) as pool:
        for name, record in pool.imap_unordered(one, tasks):
            done += 1
            said = record.get("failed") or record.get("said", "")
            print(
                f"{stage} {done}/{len(waiting)} {time.perf_counter() - start:.0f} s  {name}: {said} ({record['seconds']} s)",
                flush=True,
            )
