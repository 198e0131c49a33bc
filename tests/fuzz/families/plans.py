"""A plan or a shard with values of wrong types, without keys, or broken as a file; measured by, and merged."""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path

import numpy as np

from onnxfim.data import load
from onnxfim.fleet import opened, plan
from onnxfim.record.reading_data import DataReading
from onnxfim.record.settings import Settings
from tests.fuzz.families._bases import bases
from tests.fuzz.families._odd import one
from tests.fuzz.families.saved_json import broken_file, changed_record
from tests.fuzz.harness import Case

_PLAN, _SHARDS = "plan.json", ("shard-1-of-2.json", "shard-2-of-2.json")
_READING = DataReading(
    model="m.onnx", data="d.npz", labels_path=None, inputs_key="inputs", labels_key="labels", label_column=None, feature_columns=None,
    class_names=None, feature_names=None, mean=None, std=None, already_normalised=False, input_range=None, layout=None, resize=None,
    crop=None, input=None, output=None, shape=(), samples=None, seed=0,
)  # fmt: skip


def case(rng: np.random.Generator, folder: Path) -> Case:
    """Three quarters of the cases change values of a record, the others a file."""
    files = dict(one(rng, _subjects()))
    for name, content in files.items():
        (folder / name).write_bytes(content)
    name = one(rng, (_PLAN, _PLAN, _SHARDS[0]))
    text = files[name].decode()
    if rng.random() < 0.75:
        notes, record = [], json.loads(text)
        for _ in range(int(one(rng, (1, 1, 1, 2, 4)))):
            record, note = changed_record(rng, record)
            notes.append(note)
        (folder / name).write_bytes(json.dumps(record).encode("utf-8", "surrogatepass"))
        note = f"{name}: {'; '.join(notes)}"
    else:
        (folder / name).unlink()
        note = f"{name}: {broken_file(rng, folder, text, name)}"
    merged = ("merge", *_SHARDS, "--plan", _PLAN, "--isolate", "off", "-o", "json=out.json")
    measured = ("audit", "--plan", _PLAN, "--shard", one(rng, ("1/2", "2/2", "1/1")), "--no-cache", "-o", "measured.json")
    which = merged if name != _PLAN else one(rng, (merged, measured))
    return Case((*which, *(("--partial",) if which is merged and rng.random() < 0.3 else ())), note)


@functools.cache
def _subjects() -> tuple[tuple[tuple[str, bytes], ...], ...]:
    """Plans with their two shards, model and data: by gradients with what looks at all results again, and by differences."""
    return tuple(
        _made(Settings(providers=("cpu",), **how))
        for how in ({"replay": 2}, {"method": "sketch", "budget": 12, "flip": False}, {"method": "exact", "attack": None})
    )


def _made(settings: Settings) -> tuple[tuple[str, bytes], ...]:
    base, X = bases()[0], np.random.default_rng(11).standard_normal((8, 5)).astype(np.float32)
    with tempfile.TemporaryDirectory(prefix="onnxfim-fuzz-") as made:
        folder = Path(made)
        (folder / "m.onnx").write_bytes(base.content)
        np.savez(folder / "d.npz", inputs=X, labels=np.arange(8) % 3)
        samples = load(folder / "d.npz", shape=(5,))
        planned = plan(folder / "m.onnx", samples, settings=settings, reading=_READING)
        with opened(planned, folder / "m.onnx", samples) as work:
            shards = [work.measure(planned.lot(i, 2), part=(i, 2)).to_json().encode() for i in (1, 2)]
        files = {name: (folder / name).read_bytes() for name in ("m.onnx", "d.npz")}
    return (*files.items(), (_PLAN, planned.to_json().encode()), *zip(_SHARDS, shards, strict=True))
