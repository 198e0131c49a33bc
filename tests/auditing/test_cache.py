from __future__ import annotations

import itertools
import json
import shutil
import sys
from dataclasses import replace
from functools import cache as once
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.testing import assert_array_equal

from onnxfim.auditing import cache as cache_module
from onnxfim.auditing import store as stores
from onnxfim.auditing.cache import RememberedJacobian, SampleKeys, default_folder, remembered_bound, rows_of
from onnxfim.auditing.meter import Meter
from onnxfim.auditing.run import audit
from onnxfim.auditing.store import FileStore
from onnxfim.auditing.subject import from_callable
from onnxfim.cli import main
from onnxfim.gradients.differentiable import DifferentiableModel
from onnxfim.record.audit import Audit
from onnxfim.record.settings import Settings
from onnxfim.runtime.rows import Rademacher
from onnxfim.slopes.differences import DifferenceJacobian, Request, Sample
from onnxfim.spectral import reading
from tests.support.places import SAMPLES as MODELS

pytestmark = pytest.mark.slow

DIGITS = np.load(MODELS / "digits.npz")
X, Y = DIGITS["inputs"][:40], DIGITS["labels"][:40]


def settled(found):
    """The audit without what depends on the clock."""
    return replace(found, run=replace(found.run, seconds=0.0, times={}))


def without(found, finding):
    """The audit without the findings of an id."""
    return replace(found, findings=tuple(f for f in found.findings if f.id != finding))


def stop_at(passes):
    """A progress callback that interrupts, once, when so many passes, or samples, of measuring are done."""
    waiting, before = [KeyboardInterrupt], []

    def report(progress):
        if progress.stage not in ("measuring", "refining"):
            return
        before.append(progress.done)  # the ladder's passes are done by then
        if progress.done - before[0] >= passes and waiting:
            raise waiting.pop()

    return report


def run(tmp_path, *, model="digits_mlp.onnx", passes=None, cache=True, **settings):
    chosen = Settings(**{"method": "sketch", "budget": 60, "batch": 64, **settings})
    where = tmp_path / "cache" if cache else None
    return audit(MODELS / model, X, Y, chosen, cache_dir=where, progress=None if passes is None else stop_at(passes))


@once
def uninterrupted(model="digits_mlp.onnx", method="sketch"):
    """An audit without a cache, made once for all tests that compare with it."""
    return run(None, model=model, cache=False, method=method)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """An audit and the folder with its cache; tests take copies of it."""
    folder = tmp_path_factory.mktemp("first")
    return run(folder), folder


@pytest.fixture
def filled(first, tmp_path):
    """The audit whose cache lies in the test's folder."""
    found, folder = first
    shutil.copytree(folder / "cache", tmp_path / "cache")
    return found


def cached(found):
    return found.run.times["cached_rows"]


def of_samples(found):
    """Passes for the samples' values and their flips, the clean pass apart."""
    flips = [s.flip_radius.evaluations for s in found.samples if s.flip_radius is not None]
    return sum(s.evaluations - 1 for s in found.samples) + sum(flips)


# Interrupted and resumed is the same as never interrupted.


@pytest.mark.slow
@pytest.mark.parametrize("passes", [100, 700, 2_150], ids=["at the second sample", "in the first round", "while refining"])
@pytest.mark.parametrize("model", ["digits_mlp.onnx", "digits_resnet.onnx", "digits_vit.onnx", "digits_resnet_int8.onnx"])
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, model, passes):
    whole = uninterrupted(model)
    part = run(tmp_path, model=model, passes=passes)
    assert part.run.partial
    resumed = run(tmp_path, model=model)
    assert 0 < cached(resumed) < resumed.run.evaluations
    assert settled(resumed) == settled(whole)


@pytest.mark.parametrize("settings", [{"method": "exact"}, {"precision": 0.1, "max_budget": 200}], ids=["exact", "precision"])
def test_other_ways_of_measuring_resume_too(tmp_path, settings):
    whole = run(tmp_path, cache=False, **settings)
    run(tmp_path, passes=900, **settings)
    assert settled(run(tmp_path, **settings)) == settled(whole)


@pytest.mark.slow
@pytest.mark.parametrize("passes", [2, 17, 40], ids=["at the second sample", "between", "after the last"])
@pytest.mark.parametrize("model", ["digits_mlp.onnx", "digits_vit.onnx"])
def test_gradients_resume_too(tmp_path, model, passes):
    whole = uninterrupted(model, "gradient")
    run(tmp_path, model=model, method="gradient", passes=passes)
    resumed = run(tmp_path, model=model, method="gradient")
    assert (resumed.run.method, whole.run.method) == ("gradient", "gradient")
    assert cached(resumed) > 0
    assert settled(resumed) == settled(whole)
    again = run(tmp_path, model=model, method="gradient", temperature=2.0)
    assert again.samples[0].lambda_max_calibrated != resumed.samples[0].lambda_max_calibrated


def test_results_of_gradients_are_written_once_a_call(tmp_path, monkeypatch):
    """And on disk before the model runs again: one kept between two calls is there whatever ends the process."""
    writes, calls = [], []
    put, run_model = FileStore.put_contents, DifferentiableModel.jacobian
    monkeypatch.setattr(FileStore, "put_contents", lambda self, found: writes.append(len(found)) or put(self, found))
    monkeypatch.setattr(DifferentiableModel, "jacobian", lambda self, *rows: calls.append(len(writes)) or run_model(self, *rows))
    monkeypatch.setattr(cache_module, "_OFTEN", 1e9)
    run(tmp_path, method="gradient", batch=16, flip=False, replay=0)
    assert [n for n in writes if n > 1] == [2 * 16, 2 * 16, 2 * 8]  # each result with its directions
    assert [b - a for a, b in itertools.pairwise(calls[-3:])] == [1, 1]


def test_a_slow_call_is_written_piece_by_piece(tmp_path, monkeypatch):
    writes, put = [], FileStore.put_contents
    monkeypatch.setattr(FileStore, "put_contents", lambda self, found: writes.append(len(found)) or put(self, found))
    monkeypatch.setattr(cache_module, "_OFTEN", -1.0)
    run(tmp_path, method="gradient", flip=False, replay=0)
    assert writes.count(2) >= len(X)  # a result and its directions


def test_results_take_the_names_and_labels_of_their_run(tmp_path):
    run(tmp_path, method="gradient", temperature=1.0)
    settings = Settings(method="gradient", budget=60, batch=64, temperature=1.0)
    other = audit(MODELS / "digits_mlp.onnx", X, (Y + 1) % 10, settings, cache_dir=tmp_path / "cache")
    assert cached(other) > 0
    assert [s.label for s in other.samples] == list((Y + 1) % 10)


def test_a_second_run_measures_no_row_again(tmp_path, filled, monkeypatch, reused):
    rows = []
    original = DifferenceJacobian._batch
    monkeypatch.setattr(DifferenceJacobian, "_batch", lambda self, *a: rows.append(self.step) or original(self, *a))
    second = run(tmp_path)
    assert filled.run.step not in rows[16:]  # the ladder's own steps may hold the chosen one; nothing follows them
    assert cached(second) == of_samples(second) - sum(reused.values())
    assert settled(second) == settled(filled)


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"step": 0.01}, {"model": "digits_resnet.onnx"}, {"method": "exact"}, {"method": "gradient"}],
    ids=["seed", "step", "model", "directions", "gradients"],
)
@pytest.mark.usefixtures("filled")
def test_what_changes_the_outputs_is_measured_anew(tmp_path, change):
    assert cached(run(tmp_path, **change)) == 0


@pytest.mark.parametrize("change", [{"batch": 32}, {"temperature": 2.0}])
@pytest.mark.usefixtures("filled")
def test_what_does_not_change_them_is_not(tmp_path, change):
    assert cached(run(tmp_path, **change)) > 0


def test_more_samples_use_those_measured(tmp_path):
    run(tmp_path, samples=10, step=0.01)
    assert cached(run(tmp_path, samples=20, step=0.01)) >= 10 * 50


def test_other_values_of_a_sample_are_measured_anew(tmp_path):
    settings = Settings(method="sketch", budget=60, step=0.01)
    for values, expected in ((X, 0), (X + 0.125, 0), (X, 40)):
        found = audit(MODELS / "digits_mlp.onnx", values, Y, settings, cache_dir=tmp_path)
        assert bool(cached(found)) == bool(expected)


def test_a_function_is_not_cached(tmp_path):
    model = from_callable(lambda x: x.reshape(len(x), -1)[:, :10], X.shape[1:], 10)
    found = audit(model, X, Y, Settings(budget=20), cache_dir=tmp_path)
    assert "cached_rows" not in found.run.times
    assert not list(tmp_path.iterdir())


# Damage.


def blocks(tmp_path):
    """Files of measured rows; the graph's bound lies by itself in a store of its own."""
    found = sorted((tmp_path / "cache").rglob("*.bin"))
    return [p for p in found if len(p.with_suffix(".jsonl").read_bytes().splitlines()) > 1]


def spoil_block(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def spoil_line(path):
    index = path.with_suffix(".jsonl")
    lines = index.read_text().splitlines()
    lines[3] = lines[3].replace('"offset": ', '"offset": 1')
    index.write_text("\n".join(lines) + "\n")


def cut_line(path):
    index = path.with_suffix(".jsonl")
    index.write_bytes(index.read_bytes()[:-20])


def cut_block(path):
    path.write_bytes(path.read_bytes()[:-8])


def nonsense(path):
    index = path.with_suffix(".jsonl")
    index.write_bytes(b'[]\n{"key": 1}\n\xff\n' + b"[" * 5000 + b"\n" + index.read_bytes())


@pytest.mark.parametrize("damage", [spoil_block, spoil_line, cut_line, cut_block, nonsense])
def test_damage_is_noticed_and_measured_again(tmp_path, filled, damage):
    whole = filled
    damage(blocks(tmp_path)[0])
    again = run(tmp_path)
    assert again.run.times["cache_damaged"] >= 1
    assert 0 < cached(again) <= of_samples(again)
    assert settled(again) == settled(whole)
    assert settled(run(tmp_path)) == settled(whole)


def test_lost_blocks_are_measured_again(tmp_path, filled):
    whole = filled
    for path in blocks(tmp_path):
        path.unlink()
    again = run(tmp_path)
    assert cached(again) == 0
    assert settled(again) == settled(whole)


# Bounds.


@pytest.fixture
def computed(monkeypatch):
    """Calls of the computation of a bound."""
    calls, plain = [], reading.spectral_bound
    monkeypatch.setattr(reading, "spectral_bound", lambda *a, **k: calls.append(1) or plain(*a, **k))
    return calls


def bound_file(tmp_path):
    (path,) = set((tmp_path / "cache").rglob("*.bin")) - set(blocks(tmp_path))
    return path


def test_a_bound_is_computed_once(tmp_path, computed):
    first = run(tmp_path)
    assert len(computed) == 1
    second = run(tmp_path)
    assert len(computed) == 1
    assert first.bound.available
    assert settled(second) == settled(first)
    run(tmp_path, model="digits_resnet.onnx")
    assert len(computed) == 2, "another model's is another bound"


@pytest.mark.parametrize("damage", [spoil_block, cut_line, cut_block, nonsense])
def test_a_damaged_bound_is_computed_again(tmp_path, computed, damage):
    whole = run(tmp_path)
    damage(bound_file(tmp_path))
    again = run(tmp_path)
    assert again.run.times["cache_damaged"] >= 1
    assert settled(again) == settled(whole)
    assert len(computed) == (2 if damage is not nonsense else 1), "nonsense beside an entry leaves the entry whole"
    run(tmp_path)
    assert len(computed) == (2 if damage is not nonsense else 1), "and kept again"


def test_a_bound_of_other_rules_is_computed_again(tmp_path, computed, monkeypatch):
    run(tmp_path)
    monkeypatch.setattr(reading, "VERSION", reading.VERSION + 1)
    run(tmp_path)
    assert len(computed) == 2


def test_bounds_of_other_outputs_or_layouts_do_not_mix(tmp_path):
    found = run(tmp_path, cache=False).bound
    store = FileStore(tmp_path / "store")
    calls = []

    def compute():
        calls.append(1)
        return found

    assert remembered_bound(store, "a", compute) == found == remembered_bound(store, "a", compute)
    assert len(calls) == 1
    remembered_bound(store, "b", compute)
    assert len(calls) == 2
    store.put_record("c", {"available": True})
    assert remembered_bound(store, "c", compute) == found
    assert store.damaged == 1
    full = FileStore(tmp_path / "full", room=lambda size: "the disk is full")
    assert remembered_bound(full, "a", compute) == found
    assert full.trouble == "the disk is full"


def test_no_bound_is_kept_where_none_is_asked_for(tmp_path, computed):
    run(tmp_path, bounds=False)
    assert not computed
    assert len(list((tmp_path / "cache").iterdir())) == 3  # outputs, results, flips


# Stores.


@pytest.mark.parametrize("values", [[0.5, -2.0], [np.nan, np.inf], [1 / 3, 1e300]], ids=["float32", "not finite", "float64"])
def test_blocks_come_back_as_they_were(tmp_path, values):
    rows = np.array(values).reshape(2, 1, 1)
    store = FileStore(tmp_path)
    store.put("a", rows)
    store.close()
    again = FileStore(tmp_path)
    assert again.holds("a")
    assert not again.holds("b")
    assert_array_equal(again.get("a"), rows)
    assert again.damaged == 0


@pytest.mark.parametrize("first", ["a", "z"])
def test_a_damaged_block_hides_no_other_of_its_key(tmp_path, monkeypatch, first):
    """Measured again, it lies in another file, whichever of the two is read first."""
    names = iter([first, "m"])
    monkeypatch.setattr(stores.secrets, "token_hex", lambda _: next(names))
    for value in (1.0, 2.0):
        store = FileStore(tmp_path)
        store.put("k", np.full((9, 1, 1), value))
        store.close()
        if value == 1.0:
            spoil_block(tmp_path / f"{first}.bin")
            assert not FileStore(tmp_path).holds("k")
    assert_array_equal(FileStore(tmp_path).get("k"), np.full((9, 1, 1), 2.0))


def test_two_writers_do_not_mix(tmp_path):
    one, two = FileStore(tmp_path), FileStore(tmp_path)
    for i in range(5):
        one.put(f"one{i}", np.full((3, 2, 1), i))
        two.put(f"two{i}", np.full((3, 2, 1), -i))
        one.flush()
        two.flush()
    both = FileStore(tmp_path)
    assert all((both.get(f"one{i}") == i).all() and (both.get(f"two{i}") == -i).all() for i in range(5))


def test_what_a_run_does_without_is_bounded(tmp_path):
    store = FileStore(tmp_path, luxuries=100)
    for i in range(10):
        store.put(str(i), np.zeros((10, 1, 1)), luxury=True)
    store.close()
    assert sum(f.stat().st_size for f in tmp_path.glob("*.bin")) == 80
    assert store.trouble is None


def test_what_a_run_needs_is_not(tmp_path):
    store = FileStore(tmp_path, luxuries=100)
    for i in range(10):
        store.put(str(i), np.zeros((10, 1, 1)))
    assert all(store.holds(str(i)) for i in range(10))
    assert store.trouble is None


def test_a_folder_that_cannot_be_made_ends_the_keeping_only(tmp_path):
    (tmp_path / "cache").write_text("a file")
    found = run(tmp_path)
    assert found.run.times["cache_trouble"] == "Not a directory"
    told = [f for f in found.findings if f.id == "cache-off"]
    assert [(f.level, "Not a directory" in f.message) for f in told] == [("note", True)]
    assert settled(without(found, "cache-off")) == settled(uninterrupted())


@pytest.mark.parametrize("scheme", ["forward", "central", "dithered"])
def test_rows_and_ends_are_each_others_inverse(scheme):
    class Identity:
        batch = stretch = 7

        def stream(self, X, batches):
            for b in batches:
                yield (X[b.sample].reshape(len(b.scale), -1) + b.scale[:, None] * b.v)[:, :, None]

    jacobian = DifferenceJacobian(Identity(), Rademacher(0), scheme=scheme, step=0.5)
    x = np.arange(8.0).reshape(2, 4)
    for ends in jacobian.ends(x, x[:, :, None], [Request(Sample(0, 0), 0, 5), Request(Sample(1, 1), 2, 3)]):
        at = ends.request.sample.position
        again = jacobian.pair(ends.request, rows_of(ends, scheme), x[at][:, None], x[at])
        for part in ("plus", "minus"):
            assert_array_equal(getattr(again, part), getattr(ends, part))
            if ends.twin is not None:
                assert_array_equal(getattr(again.twin, part), getattr(ends.twin, part))
        assert again.h == ends.h


def test_a_block_that_goes_meanwhile_is_measured():
    class Forgetful:
        def holds(self, key):
            return True

        def get(self, key):
            return None

        def put(self, key, rows, *, luxury=False):
            self.kept = key, rows

        def flush(self):
            pass

    class Constant:
        batch = stretch = 4

        def stream(self, X, batches):
            for b in batches:
                yield np.full((len(b.scale), 2, 1), 3.0)

    store, X = Forgetful(), np.zeros((1, 3))
    jacobian = RememberedJacobian(
        DifferenceJacobian(Constant(), Rademacher(0), scheme="forward", step=1.0), store, meter := Meter(), SampleKeys(X, {})
    )
    (ends,) = jacobian.ends(X, np.zeros((1, 2, 1)), [Request(Sample(0, 0), 0, 5)])
    assert_array_equal(ends.plus, np.full((5, 2, 1), 3.0))
    assert_array_equal(store.kept[1], ends.plus)
    assert meter.cached == 0


# The command line.


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    shutil.copy(MODELS / "digits_mlp.onnx", "m.onnx")
    shutil.copy(MODELS / "digits.npz", "d.npz")
    return tmp_path


def call(*arguments):
    words = ["audit", "m.onnx", "--data", "d.npz", "--samples", "12", "-o", "json=a.json", *arguments]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    return result.output, Audit.from_json(Path("a.json").read_text("utf-8"))


def test_the_command_line_keeps_and_says_so(here):
    call()
    output, found = call()
    assert cached(found) > 0
    assert f"cost: {found.run.evaluations:,} forward passes ({cached(found):,} from the cache)" in output
    told = call("-v")[0]
    assert f"{cached(found):,} of {found.run.evaluations:,} forward passes came from the cache (--no-cache runs all)" in told
    assert [p.name for p in (here / "xdg").iterdir()] == ["onnxfim"]


def test_no_cache_keeps_nothing(here):
    assert "cached_rows" not in call("--no-cache")[1].run.times
    assert not (here / "xdg").exists()


def test_the_cache_may_be_elsewhere(here):
    call("--cache-dir", "mine")
    assert not (here / "xdg").exists()
    assert cached(call("--cache-dir", "mine")[1]) > 0


def test_damage_is_said(here):
    call("--cache-dir", "mine")
    spoil_block(next(Path("mine").rglob("*.bin")))
    assert "cache entries were damaged; they were measured again" in call("--cache-dir", "mine")[0]


def test_default_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "onnxfim"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert default_folder() == Path.home() / ".cache" / "onnxfim", "the specification passes over what is not absolute"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    monkeypatch.setattr(sys, "platform", "win32")
    assert default_folder() == tmp_path / "local" / "onnxfim"
    monkeypatch.setattr(sys, "platform", "linux")
    assert default_folder() == Path.home() / ".cache" / "onnxfim"


@pytest.mark.usefixtures("filled")
def test_index_lines_are_json(tmp_path):
    for index in (tmp_path / "cache").rglob("*.jsonl"):
        assert all({"key", "check"} < set(json.loads(line)) for line in index.read_text().splitlines())
