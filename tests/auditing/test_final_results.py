"""An audit that is killed goes on where it was, whatever its outputs would take on disk: what is final is kept as it is."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxfim import fleet
from onnxfim.auditing import store
from onnxfim.auditing.cache import Cache, Memory
from onnxfim.auditing.final_results import fingerprint
from onnxfim.auditing.run import audit, samples_of
from onnxfim.auditing.stages import flipping
from onnxfim.graph.load import load_model
from onnxfim.record.settings import Settings
from onnxfim.slopes.kinds.softmax import SoftmaxLogits
from onnxfim.slopes.measurer import Measurer
from onnxfim.slopes.rescaling import Rescaling
from tests.support.places import ROOT, SAMPLES

pytestmark = pytest.mark.slow

DIGITS = np.load(SAMPLES / "digits.npz")
MLP = SAMPLES / "digits_mlp.onnx"

#: An audit that ends itself, as nothing can prevent, at a share of what the stage does.
KILLED = """
import json, os, signal, sys
import numpy as np
from onnxfim.auditing import store
from onnxfim.auditing.run import audit
from onnxfim.record.settings import Settings

model, data, cache, stage, share, often, *settings = sys.argv[1:]
store.OFTEN = float(often)

def report(at):
    done, total = (at.done, at.total) if stage == "measuring" else (at.stage_done, at.stage_total)
    if at.stage == stage and total and done >= float(share) * total:
        os.kill(os.getpid(), signal.SIGKILL)

with np.load(data) as given:
    X, Y = given["inputs"], given["labels"]
given = dict(word.split("=") for word in settings)
given = {name: json.loads(value) for name, value in given.items()}
audit(model, X, Y, Settings(**given), progress=report, cache_dir=cache)
"""


def kill(model, X, Y, folder, stage, share, *, often=store.OFTEN, **settings):
    """An audit that was killed there; what it kept, every so many seconds, lies in ``cache`` in the folder."""
    np.savez(folder / "data.npz", inputs=X, labels=Y)
    told = [f"{name}={json.dumps(value)}" for name, value in settings.items()]
    command = [sys.executable, "-c", KILLED, model, folder / "data.npz", folder / "cache", stage, str(share), str(often), *told]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=300, check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-2000:]


def settled(found):
    """The audit without what depends on the clock."""
    return replace(found, run=replace(found.run, seconds=0.0, times={}))


def cached(found):
    return found.run.times["cached_rows"]


def of_values(found):
    """Passes for the samples' values, the clean pass apart."""
    return sum(s.evaluations - 1 for s in found.samples)


def of_flips(found):
    return sum(s.flip_radius.evaluations for s in found.samples)


def more_digits(count):
    """So many digits, with a little noise each."""
    rng = np.random.default_rng(0)
    rows = rng.integers(0, len(DIGITS["labels"]), count)
    X = DIGITS["inputs"][rows]
    return X + rng.normal(0, 0.02, X.shape).astype(X.dtype), DIGITS["labels"][rows]


# Killed.


@pytest.mark.parametrize("method", ["sketch", "gradient"])
def test_killed_at_four_fifths_it_runs_the_last_fifth(tmp_path, method):
    X, Y = more_digits(1200)
    settings = {"method": method, "batch": 64, "replay": 8}
    kill(MLP, X, Y, tmp_path, "measuring", 0.8, **settings)
    resumed = audit(MLP, X, Y, Settings(**settings), cache_dir=tmp_path / "cache")
    assert 0.75 * of_values(resumed) < cached(resumed) < 0.9 * of_values(resumed)
    assert settled(resumed) == settled(audit(MLP, X, Y, Settings(**settings)))


@pytest.mark.parametrize("method", ["sketch", "gradient"])
def test_killed_among_its_flips_it_looks_for_the_rest(tmp_path, monkeypatch, method):
    X, Y = more_digits(1200)  # more than a block of flips
    settings = {"method": method, "batch": 64, "replay": 8}
    kill(MLP, X, Y, tmp_path, "looking for flips", 0.8, **settings)
    looked = []
    radii = flipping.FlipSearch.radii
    monkeypatch.setattr(flipping.FlipSearch, "radii", lambda self, at, *a: looked.extend(at) or radii(self, at, *a))
    resumed = audit(MLP, X, Y, Settings(**settings), cache_dir=tmp_path / "cache")
    assert 0 < len(looked) <= 1200 - flipping._MOST
    assert cached(resumed) > of_values(resumed) * 0.99
    monkeypatch.undo()
    assert settled(resumed) == settled(audit(MLP, X, Y, Settings(**settings)))


def test_killed_among_its_noise_it_tries_the_rest(tmp_path):
    X, Y = more_digits(300)
    settings = {"flip": False, "batch": 64, "replay": 0, "noise": ["gaussian:0.3", "uniform:0.2"]}
    kill(MLP, X, Y, tmp_path, "adding noise", 0.7, **settings)
    settings["noise"] = tuple(settings["noise"])
    resumed = audit(MLP, X, Y, Settings(**settings), cache_dir=tmp_path / "cache")
    whole = audit(MLP, X, Y, Settings(**settings))
    tries = [t.tries for k in range(2) for t in (s.noise[k] for s in whole.samples)]
    assert sum(tries[:400]) < cached(resumed) - of_values(resumed) < sum(tries)
    assert settled(resumed) == settled(whole)


def dense(path, classes, rng):
    """A net with a hidden layer, 12 inputs and so many classes."""
    W, V = (rng.normal(0, 0.5, shape).astype(np.float32) for shape in ((12, 16), (16, classes)))
    nodes = [
        helper.make_node("MatMul", ["x", "W"], ["h"]),
        helper.make_node("Tanh", ["h"], ["t"]),
        helper.make_node("MatMul", ["t", "V"], ["logits"]),
    ]
    values = [numpy_helper.from_array(W, "W"), numpy_helper.from_array(V, "V")]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", d]) for n, d in (("x", 12), ("logits", classes))]
    graph = helper.make_graph(nodes, "dense", ends[:1], ends[1:], values)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_a_thousand_classes_go_on_past_the_limit_of_outputs(tmp_path, monkeypatch):
    """Outputs of a sample take 340 kB: with the limit at 2 MB those of three samples are kept, and the results of all."""
    monkeypatch.setenv("ONNXFIM_CACHE_LIMIT", "2000000")
    rng = np.random.default_rng(3)
    model, X = dense(tmp_path / "m.onnx", 1000, rng), rng.normal(size=(100, 12)).astype(np.float32)
    Y = rng.integers(0, 1000, 100)
    settings = {"method": "sketch", "batch": 64, "temperature": 1}
    kill(model, X, Y, tmp_path, "measuring", 0.9, often=-1.0, **settings)
    outputs = sum(p.stat().st_size for p in tmp_path.glob("cache/*-outputs/*.bin"))
    resumed = audit(model, X, Y, Settings(**settings), cache_dir=tmp_path / "cache")
    assert cached(resumed) > 0.75 * of_values(resumed)  # an eighth of all is for refining
    assert resumed.run.times["cache_trouble"] is None
    assert settled(resumed) == settled(audit(model, X, Y, Settings(**settings)))
    # Those of samples that are refined are needed until they are.
    assert outputs < 0.5 * 340_000 * 100
    results = sum(p.stat().st_size for p in tmp_path.glob("cache/*/*") if not p.parent.name.endswith("-outputs"))
    assert results < 5_000 * 100


#: A shard of a plan.
SHARD = """
import sys
from pathlib import Path
import numpy as np
from onnxfim import fleet
from onnxfim.auditing.run import samples_of
from onnxfim.graph.load import load_model
from onnxfim.record.plan import Plan

model, data, plan, cache, part = sys.argv[1:]
plan = Plan.from_json(Path(plan).read_text("utf-8"))
with np.load(data) as given:
    samples = samples_of(load_model(model), given["inputs"], given["labels"], plan.audit.settings)
with fleet.opened(plan, model, samples, cache_dir=cache) as work:
    work.measure(plan.lot(int(part), 2))
"""


@pytest.mark.parametrize("method", ["sketch", "gradient"])
def test_shards_that_run_at_once_keep_what_the_whole_needs(tmp_path, method, reused):
    X, Y = more_digits(80)
    settings = Settings(method=method, batch=64, replay=4)
    plan = fleet.plan(MLP, samples_of(load_model(MLP), X, Y, settings), settings=settings)
    np.savez(tmp_path / "data.npz", inputs=X, labels=Y)
    (tmp_path / "plan.json").write_text(plan.to_json(), "utf-8")
    command = [sys.executable, "-c", SHARD, MLP, tmp_path / "data.npz", tmp_path / "plan.json", tmp_path / "cache"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    both = [subprocess.Popen([*map(str, command), part], env=env) for part in "12"]
    assert [shard.wait(200) for shard in both] == [0, 0]
    found = audit(MLP, X, Y, settings, cache_dir=tmp_path / "cache")
    assert cached(found) >= of_values(found) + of_flips(found) - sum(reused.values())
    assert found.run.times["cache_damaged"] == 0
    assert settled(found) == settled(audit(MLP, X, Y, settings))


# What a result depends on.


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """An audit, and the folder of its cache without any outputs: what is used of it are results."""
    folder = tmp_path_factory.mktemp("first") / "cache"
    found = small(folder)
    for outputs in folder.glob("*-outputs"):
        shutil.rmtree(outputs)
    return found, folder


@pytest.fixture
def results_alone(first, tmp_path):
    return first[0], shutil.copytree(first[1], tmp_path / "cache")


def small(cache, X=DIGITS["inputs"][:40], Y=DIGITS["labels"][:40], model=MLP, **settings):
    chosen = {"method": "sketch", "budget": 60, "batch": 64, "temperature": 1.5, "step": 0.01, **settings}
    return audit(model, X, Y, Settings(**chosen), cache_dir=cache)


def test_results_serve_without_the_outputs(results_alone, reused):
    found, cache = results_alone
    again = small(cache)
    assert cached(again) == of_values(again) + of_flips(again) - sum(reused.values())
    assert settled(again) == settled(found)


def test_they_take_the_names_and_labels_of_their_run(results_alone):
    other = small(results_alone[1], Y=(DIGITS["labels"][:40] + 1) % 10)
    assert cached(other) > 0
    assert [s.label for s in other.samples] == list((DIGITS["labels"][:40] + 1) % 10)


@pytest.mark.parametrize(
    "change",
    [{"temperature": 1.25}, {"input_scale": (2.0,)}, {"seed": 1}, {"step": 0.02}, {"budget": 80}, {"scheme": "central"}],
    ids=lambda change: next(iter(change)),
)
def test_other_settings_are_other_results(results_alone, change):
    again = small(results_alone[1], **change)
    assert cached(again) <= of_flips(again), "flips alone may be the same"
    assert settled(again) == settled(small(None, **change))


def test_another_range_of_inputs_has_other_flips(results_alone, reused):
    change = {"attack_range": (-0.5, 1.5)}
    again = small(results_alone[1], **change)
    assert cached(again) == of_values(again) - sum(reused.values())
    assert settled(again) == settled(small(None, **change))


def test_without_flips_the_same_values_are_found(results_alone):
    again = small(results_alone[1], flip=False)
    assert [s.lambda_max for s in again.samples] == [s.lambda_max for s in results_alone[0].samples]


@pytest.mark.parametrize("settings", [{"method": "exact"}, {"scheme": "central"}, {"scheme": "dithered", "budget": 100}])
def test_other_ways_of_measuring_keep_theirs_too(tmp_path, settings, reused):
    found = small(tmp_path, **settings)
    for outputs in tmp_path.glob("*-outputs"):
        shutil.rmtree(outputs)
    again = small(tmp_path, **settings)
    assert cached(again) == of_values(again) + of_flips(again) - sum(reused.values())
    assert settled(again) == settled(found)


def test_features_that_differ_in_scale_are_measured_twice_and_kept_twice(tmp_path):
    rng = np.random.default_rng(0)
    model = dense(tmp_path / "m.onnx", 4, rng)
    X = (rng.normal(size=(40, 12)) * np.geomspace(1, 1000, 12)).astype(np.float32)
    run = partial(small, X=X, Y=None, model=model, budget=100, step=None, temperature=None)
    found = run(tmp_path / "cache")
    assert found.samples[0].lambda_max_standardised is not None
    for outputs in (tmp_path / "cache").glob("*-outputs"):
        shutil.rmtree(outputs)
    again = run(tmp_path / "cache")
    assert cached(again) > 0.9 * of_values(again)
    assert settled(again) == settled(found)


def test_towards_a_precision_outputs_are_needed_and_kept(tmp_path, monkeypatch):
    """How many directions a sample gets is not known before: all outputs are kept, whatever the limit."""
    monkeypatch.setenv("ONNXFIM_CACHE_LIMIT", "0")
    settings = {"precision": 0.1, "max_budget": 200}
    X, Y = DIGITS["inputs"][:40], DIGITS["labels"][:40]
    kill(MLP, X, Y, tmp_path, "measuring", 0.8, often=-1.0, method="sketch", budget=60, batch=64, step=0.01, temperature=1.5, precision=0.1,
         max_budget=200)  # fmt: skip
    again = small(tmp_path / "cache", **settings)
    assert cached(again) > 0.3 * of_values(again)
    assert settled(again) == settled(small(None, **settings))
    assert not list((tmp_path / "cache").glob("*-outputs")), "they go once all is done"


# Damage, to each kind of store.


def spoil(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize("damage", [spoil, cut])
@pytest.mark.parametrize("part", ["bin", "jsonl"])
@pytest.mark.parametrize("kind", [0, 1], ids=["results", "flips"])
def test_damage_is_measured_again(results_alone, damage, part, kind):
    found, cache = results_alone
    stores = [f for f in cache.glob("*/*.jsonl") if f.read_bytes().count((b":result:", b":flip:")[kind]) > 1]
    assert len(stores) == 1
    damage(stores[0].with_suffix(f".{part}"))
    again = small(cache)
    assert again.run.times["cache_damaged"] >= 1
    assert 0 < cached(again) < of_values(again) + of_flips(again)
    assert settled(again) == settled(found)


# Fingerprints.


@dataclass(frozen=True)
class Pair:
    a: object
    b: object


def test_fingerprints_tell_values_apart():
    values = [
        None, "", "a", 0, 0.0, False, 1, np.float64(1), (), (1, 2), ((1,), 2), np.arange(3), np.arange(3.0), np.arange(3.0)[None],
        Pair(1, 2), Pair(2, 1), Pair((1,), None), SoftmaxLogits(),
    ]  # fmt: skip
    assert len({fingerprint(v) for v in values}) == len(values)
    assert all(fingerprint(v) == fingerprint(v) for v in values)
    assert fingerprint(np.arange(6.0)[::2]) == fingerprint(np.array([0.0, 2.0, 4.0]))


def test_every_part_of_a_measurer_counts():
    plain = Measurer(SoftmaxLogits(), "forward", False, False, 1.0, None, 0.0, standardised=Rescaling(np.arange(4.0)))
    others = [
        replace(plain, temperature=1.5), replace(plain, temperature_error=0.1), replace(plain, scheme="central"),
        replace(plain, standardised=Rescaling(np.arange(4.0) + 1e-12)), replace(plain, raw=Rescaling(np.ones(1))), replace(plain, parts=2),
    ]  # fmt: skip
    assert len({fingerprint(m) for m in (plain, *others)}) == 7


def test_what_has_none_is_refused():
    with pytest.raises(TypeError, match="no fingerprint of <class 'object'>"):
        fingerprint((1, object()))


def test_without_a_cache_nothing_is_kept():
    memory = Memory(None)
    assert memory.store({"model": 1}) is None
    assert not memory.keeps
    memory.close()
    assert Memory(Cache(ROOT)).keeps
