"""All records of a run as one file, results.json: what the answers are computed from, and nothing else."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .cells import Cell
from .stages import Folder

STAGES = ("train", "audit", "attack")
PACKAGES = ("onnxfim", "onnxruntime", "torch", "numpy", "scipy", "foolbox", "torchattacks", "scikit-learn")
DIGITS, ARRAY_DIGITS, PUBLISHED_DIGITS = 4, 3, 2  # significant ones: of one number, of an array's, of the published estimators
LARGEST = 2_000_000  # bytes
NEEDLESS = ("said", "log_error", "logit_difference", "skipped", "own_refused", "verdict", "method", "family_read")  # of no answer
CORE = ("right", "lambda_raw", "lambda_calibrated", "boundary", "flip")
ARRAYS = {  # over samples, that are kept of a block's models
    "grid": (*CORE, "jacobian", "confidence", "black", "white"),
    "strength": CORE,
    "twin": CORE,
    "again": CORE,
    "others": (*CORE, "jacobian", "confidence", "black", "white"),
}


class TooLarge(Exception):
    """The file would be larger than what we commit."""


def rounded(value: Any, digits: int = DIGITS) -> Any:
    """Numbers at some significant digits, without what no answer reads; infinite ones and NaN as None."""
    if isinstance(value, float):
        short = float(f"{value:.{digits}g}")
        return None if short != short or abs(short) == float("inf") else short
    if isinstance(value, dict):
        return {k: rounded(v, digits) for k, v in value.items() if k not in NEEDLESS}
    if isinstance(value, (list, tuple)):
        return [rounded(v, digits) for v in value]
    return value


def thinned(model: dict[str, Any]) -> dict[str, Any]:
    """An entry with the arrays that answers read; of the others their mean and median, and of both L2 attacks their medians."""
    model = rounded(model)
    keep = ARRAYS.get(model.get("block") or "", CORE)
    if model.get("seed"):  # a number, and not the first: of the published estimators the means alone
        keep = tuple(k for k in keep if k not in ("black", "white"))
    audit, attack = model.get("audit") or {}, model.get("attack") or {}
    for group, digits in (("samples", ARRAY_DIGITS), ("published", PUBLISHED_DIGITS)):
        arrays = audit.get(group) or {}
        for key, values in arrays.items():
            known = [v for v in values if v is not None]
            if key not in keep and known:
                audit[f"{key}_mean"], audit[f"{key}_median"] = (rounded(f(known)) for f in (statistics.fmean, statistics.median))
        if arrays:
            audit[group] = {k: rounded(v, digits) for k, v in arrays.items() if k in keep}
    if "l2" in attack:
        attack["l2"] = rounded(attack["l2"], ARRAY_DIGITS)
    for key in ("l2_ddn", "l2_own"):
        if isinstance(values := attack.pop(key, None), list):
            right = [v for v in values if v]
            attack[f"{key}_median"] = rounded(statistics.median(right)) if right else None
    return model


def short(value: float) -> str:
    """The shortest JSON of a number: 0.000123 as 123e-6."""
    plain = str(int(value)) if value == int(value) and abs(value) < 1e6 else repr(value)
    mantissa, _, exponent = f"{value:.{DIGITS - 1}e}".partition("e")
    whole, _, part = mantissa.partition(".")
    part = part.rstrip("0")
    scaled = f"{int(whole + part)}e{int(exponent) - len(part)}"
    return min(plain, scaled, key=len) if float(scaled) == value else plain


def dumped(value: Any) -> str:
    """Compact JSON."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(str(k))}:{dumped(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(dumped(v) for v in value) + "]"
    return short(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False)


def entry(folder: Folder, cell: Cell) -> dict[str, Any]:
    """One model with what its stages found; the first that failed, or has not run, is named."""
    found = {stage: folder.read(stage, cell.name) for stage in STAGES}
    failed = next((f"{s}: {r['failed']}" for s, r in found.items() if r is not None and "failed" in r), None)
    missing = next((f"{s}: not run" for s, r in found.items() if r is None), None)
    return {"name": cell.name, **asdict(cell), "parent": cell.parent, "failed": failed or missing, **found}


def others(folder: Folder) -> list[dict[str, Any]]:
    """Models of others: complete entries, one file each; a failed one keeps its name and its reason."""
    paths = sorted((folder.path / "others").glob("*.json"))
    entries = []
    for path in paths:
        record = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(record.get("failed"), str):
            record = {"name": path.stem, "data": None, "block": "others"} | record | {"failed": f"others: {record['failed']}"}
        entries.append(record)
    return entries


def described(names: Sequence[str]) -> dict[str, Any]:
    """What the data sets are."""
    from .data_sets import EPSILON, load

    found = {}
    for name in names:
        data = load(name)
        found[name] = {
            "note": data.note, "train": len(data.train_labels), "test": len(data.test_labels), "side": data.side, "classes": data.classes,
            "epsilon": EPSILON[name], "deviation": float(data.train_images.std()),
        }  # fmt: skip
    return found


def versions() -> dict[str, str]:
    """Of what the run was made with."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def results(folder: Folder, cells: Sequence[Cell], data: dict[str, Any]) -> dict[str, Any]:
    """Everything, rounded; models in the order of the grid, then those of others."""
    models = [entry(folder, cell) for cell in cells] + others(folder)
    thin = [thinned(m) for m in models]
    hows = {
        (m.get("data"), m.get("block"), (m.get("attack") or {}).get("how"), ", ".join((m.get("attack") or {}).get("attacks") or ()))
        for m in thin
    }
    for model in thin:
        for key in ("how", "attacks"):
            (model.get("attack") or {}).pop(key, None)
    attacks = [dict(zip(("data", "block", "how", "attacks"), h, strict=True)) for h in sorted(hows, key=str) if h[2] or h[3]]
    return {"schema": 1, "versions": versions(), "data": rounded(data), "attacks": attacks, "models": thin}


def write(path: Path, found: dict[str, Any]) -> int:
    """Write it, one model a line, and tell its size in bytes.

    Raises:
        TooLarge: It is larger than 2 MB; nothing is written.
    """
    head = {k: v for k, v in found.items() if k != "models"}
    lines = ",\n".join(dumped(m) for m in found["models"])
    text = json.dumps(head, ensure_ascii=False)[:-1] + ', "models": [\n' + lines + "\n]}\n"
    size = len(text.encode())
    if size > LARGEST:
        raise TooLarge(f"{path}: {size:,} bytes, at most {LARGEST:,}; leave out arrays that no answer reads, by ARRAYS")
    path.write_text(text, encoding="utf-8")
    return size


def collect(folder: Folder, cells: Sequence[Cell], path: Path) -> int:
    """Gather the records of a run into ``path``; returns its size."""
    return write(path, results(folder, cells, described(list(dict.fromkeys(c.data for c in cells)))))
