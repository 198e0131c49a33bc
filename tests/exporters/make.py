"""Writes the files of one module of recipes: ``python -m tests.exporters.make MODULE FOLDER [NAME …]``.

A module at a time, for frameworks do not always stand each other in one process. Beside each file lie its samples (``.npz``), what
float64 says of them (``.truth.npz``) and what else the table needs (``.json``); of one that fails, why (``.failed``).
"""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path

import numpy as np

from tests.exporters.recipe import Made, Truth, recipes_of


def write(folder: Path, name: str, made: Made, about: dict[str, object]) -> None:
    """Save what belongs to a file."""
    labels = {} if made.labels is None else {"labels": made.labels}
    np.savez(folder / f"{name}.npz", **made.inputs, **labels)
    truths: dict[str, Truth | None] = {"": made.truth, "own_": made.own, "parent_": made.parent}
    known = {f"{prefix}{key}": getattr(t, key) for prefix, t in truths.items() if t is not None for key in ("lam", "norm")}
    np.savez(folder / f"{name}.truth.npz", **known)
    (folder / f"{name}.json").write_text(json.dumps({**about, "options": list(made.options)}))


def main(module: str, folder: Path, names: list[str]) -> None:
    """Write the named files, or all."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, recipe in recipes_of(module).items():
        if names and name not in names:
            continue
        try:
            made = recipe.make(folder / f"{name}.onnx")
        except Exception as error:
            (folder / f"{name}.onnx").unlink(missing_ok=True)
            (folder / f"{name}.failed").write_text(f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
            print(f"{name}: {type(error).__name__}: {str(error)[:200]}", flush=True)
            continue
        write(folder, name, made, {"exporter": recipe.exporter, "family": recipe.family})
        print(name, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
