"""Calls in batches: the batch found, halved when memory ends, and never seen in the values."""

from __future__ import annotations

import sys
import time

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from onnxfim.errors import InputError, ModelError
from onnxfim.runtime import batch_finder as finder_module
from onnxfim.runtime import forward as forward_module
from onnxfim.runtime import shared_cores as shared_module
from onnxfim.runtime.batch_finder import BatchFinder
from onnxfim.runtime.callable_forward import CallableForward
from onnxfim.runtime.failures import OutOfMemory
from onnxfim.runtime.forward import OnnxForward
from onnxfim.runtime.hardware import Hardware
from onnxfim.runtime.output_layout import as_classes
from onnxfim.runtime.rows import Rademacher
from onnxfim.runtime.session import SPIN_MICROSECONDS, open_session
from onnxfim.runtime.shared_cores import SharedCores
from onnxfim.slopes.differences import DifferenceJacobian, Request, Sample
from tests.support import models
from tests.support.models import Linear, Mlp

MLP = Mlp.draw(3, 6)


def opened(path, **options):
    options = {
        "input_name": "x",
        "output_name": "z",
        "shape": (6,),
        "dtype": np.dtype(np.float32),
        "hardware": Hardware(("cpu",)),
        **options,
    }
    return OnnxForward(path, **options)


@pytest.fixture
def file(saved):
    return saved(MLP.onnx())


@pytest.fixture
def short_of_memory(monkeypatch):
    """Let every call of more rows than ``most`` fail as the runtime does when an allocation fails."""

    def limit(most):
        seen = {"refused": 0, "largest": 0}
        plain, bound = OnnxForward._call, OnnxForward._bound

        def check(rows):
            if rows > most:
                seen["refused"] += 1
                raise OutOfMemory("model: ONNX Runtime ran out of memory (bad_alloc).")
            seen["largest"] = max(seen["largest"], rows)

        def call(self, X, of):
            check(len(X))
            return plain(self, X, of)

        def perturbed(self, X, rows, of):
            check(len(rows.sample))
            return bound(self, X, rows, of)

        monkeypatch.setattr(OnnxForward, "_call", call)
        monkeypatch.setattr(OnnxForward, "_bound", perturbed)
        return seen

    return limit


def differences(forward, X, scheme="central"):
    jacobian = DifferenceJacobian(forward, Rademacher(0), scheme=scheme, step=1e-2, dither=1e-3)
    requests = [Request(Sample(i, i), 0, 9) for i in range(len(X))]
    return np.concatenate([e.plus - e.minus for e in jacobian.ends(X, forward.outputs(X), requests)])


@pytest.mark.parametrize("scheme", ["forward", "central", "dithered"])
@pytest.mark.parametrize("batch", [1, 7, 64])
def test_file_and_function_agree(file, batch, scheme):  # atol: float32 outputs against float64 ones
    X = MLP.samples(5)
    theirs = CallableForward(MLP.logits, (6,), 3, dtype=np.float64, batch=batch)
    ours = opened(file, batch=batch)
    assert_allclose(ours.outputs(X), theirs.outputs(X), atol=2e-6)
    assert_allclose(differences(ours, X, scheme), differences(theirs, X.astype(np.float64), scheme), atol=4e-6)


class TestMemory:
    def test_the_batch_is_halved_and_the_run_goes_on(self, file, short_of_memory):
        X = MLP.samples(40)
        truth = opened(file, batch=64)
        base, moved = truth.outputs(X), differences(truth, X)
        seen = short_of_memory(10)
        tight = opened(file, batch=64)
        assert_allclose(tight.outputs(X), base, atol=1e-6)  # a matrix product in another blocking
        assert tight.batch == 8
        tight = opened(file, batch=64)
        assert_allclose(differences(tight, X), moved, atol=1e-6)
        assert tight.batch == 8
        assert seen["refused"] > 0
        assert seen["largest"] <= 10

    def test_one_row_too_many_is_an_error(self, file, short_of_memory):
        short_of_memory(0)
        with pytest.raises(OutOfMemory, match=r"out of memory.*bad_alloc"):
            opened(file, batch=4).outputs(MLP.samples(4))

    def test_the_search_stops_where_memory_does(self, file, short_of_memory):
        seen = short_of_memory(16)
        forward = opened(file)
        forward.find_batch(MLP.samples(1))
        assert forward.batch <= 16
        assert seen["largest"] <= 16


class TestSearch:
    def time_by(self, monkeypatch, seconds):
        asked = []
        monkeypatch.setattr(
            finder_module, "timed", lambda call, rows, clock: (call(rows), asked.append(rows), seconds(rows, len(asked)))[2]
        )
        return asked

    def test_no_size_that_memory_bears_leaves_one_row(self, monkeypatch):  # the first call of all may take most of what is left
        monkeypatch.setattr(finder_module, "took_much", lambda before: True)
        finder = BatchFinder(None, 24)
        finder.search(lambda rows: None)
        assert (finder.batch, finder.searching, finder.calls) == (1, False, 1)

    def test_a_batch_that_gains_is_taken(self, monkeypatch):  # 1 ms a call and nothing per row: the larger the better
        self.time_by(monkeypatch, lambda rows, turn: 1e-3)
        forward = CallableForward(MLP.logits, (6,), 3)
        forward.find_batch(MLP.samples(1))
        assert forward.batch == 1024

    def test_a_batch_that_does_not_is_not(self, monkeypatch):  # as long for two rows as for twice one
        self.time_by(monkeypatch, lambda rows, turn: 1e-2 * rows)
        forward = CallableForward(MLP.logits, (6,), 3)
        forward.find_batch(MLP.samples(1))
        assert forward.batch <= 16, "two sizes without a gain end the search"

    def test_equal_turns_are_of_equal_rows_or_a_millisecond(self, monkeypatch):
        asked = self.time_by(monkeypatch, lambda rows, turn: 1e-5 + 1e-6 * rows)
        CallableForward(MLP.logits, (6,), 3).find_batch(MLP.samples(1))
        first = asked.index(64)
        assert asked[first : first + 6] == [64, 16, 16, 16, 16, 64], "16 rows four times against 64 once"

    @pytest.mark.parametrize("seed", range(10))
    def test_calls_that_another_process_holds_up_do_not_decide(self, monkeypatch, seed):
        rng = np.random.default_rng(seed)  # 0.1 ms a call and 10 us a row; every fourth call takes three times as long
        cost = lambda rows: 1e-4 + 1e-5 * rows  # noqa: E731
        self.time_by(monkeypatch, lambda rows, turn: cost(rows) * (3 if rng.random() < 0.25 else rng.uniform(1, 1.1)))
        forward = CallableForward(MLP.logits, (6,), 3)
        forward.find_batch(MLP.samples(1))
        rate = lambda rows: rows / cost(rows)  # noqa: E731
        assert rate(forward.batch) >= 0.85 * rate(1024)  # 64 rows reach 0.87 of it

    def test_sizes_beside_the_best_are_tried_too(self, monkeypatch):  # 512 rows lie between two steps of the search
        self.time_by(monkeypatch, lambda rows, turn: (1e-4 + 1e-6 * rows) * (1 if rows <= 512 else 1.3))
        forward = CallableForward(MLP.logits, (6,), 3)
        forward.find_batch(MLP.samples(1))
        assert forward.batch == 512

    def test_a_long_call_is_not_made_longer(self, monkeypatch):
        asked = self.time_by(monkeypatch, lambda rows, turn: 0.2 * rows)
        CallableForward(MLP.logits, (6,), 3).find_batch(MLP.samples(1))
        assert set(asked) == {1}

    def test_what_was_found_before_is_taken_where_it_can_be(self):
        forward = CallableForward(MLP.logits, (6,), 3)
        forward.finder.remember(0)
        forward.finder.remember(2048)
        assert forward.finder.searching
        forward.finder.remember(48)
        forward.find_batch(MLP.samples(1))
        assert (forward.batch, forward.finder.calls) == (48, 0)
        given = CallableForward(MLP.logits, (6,), 3, batch=7)
        given.finder.remember(48)
        assert given.batch == 7


class TestSpinning:
    """Threads of the runtime that wait may spin, but where other work shares the cores."""

    @pytest.fixture
    def spinning(self, monkeypatch):
        """What sessions were opened with, and a machine whose cores are shared or not."""
        seen = []
        plain = forward_module.open_session

        def noted(source, hardware, **options):
            seen.append(hardware.spinning)
            return plain(source, hardware, **options)

        monkeypatch.setattr(forward_module, "open_session", noted)

        def machine(*, cores, shared):
            monkeypatch.setattr(forward_module, "usable_cores", lambda: cores)
            monkeypatch.setattr(SharedCores, "seen", lambda self: self.enough and shared)
            return seen

        return machine

    @pytest.mark.parametrize(("cores", "shared", "off"), [(2, True, True), (2, False, False), (1, True, False)])
    def test_it_ends_where_cores_are_shared(self, file, spinning, cores, shared, off):
        spinning(cores=cores, shared=shared)
        forward = opened(file)
        forward.find_batch(MLP.samples(1))
        assert forward.hardware.spinning is not off

    def test_the_model_is_opened_again_where_that_is_worth_it(self, file, spinning, monkeypatch):
        seen = spinning(cores=2, shared=True)
        X = MLP.samples(3)
        for worth, sessions in ((0.0, [True]), (np.inf, [True, False])):
            monkeypatch.setattr(forward_module, "_WORTH", worth)
            seen.clear()
            forward = opened(file)
            before = forward.outputs(X)
            forward.find_batch(X)
            assert (seen, forward.reopened) == (sessions, len(sessions) == 2)
            assert_array_equal(forward.outputs(X), before)

    def test_the_option_reaches_the_runtime(self, file):
        for spinning, key, value in (
            (False, "session.intra_op.allow_spinning", "0"),
            (True, "session.intra_op.spin_duration_us", str(SPIN_MICROSECONDS)),
        ):
            session, _ = open_session(file, Hardware(("cpu",), spinning=spinning))
            assert session.get_session_options().get_session_config_entry(key) == value

    @pytest.mark.parametrize(
        ("cores", "shared", "clocks"),
        [
            (2, [False, False], ["passed"]),  # what spins on another core is told a tick late
            (2, [True], ["processor"]),
            (2, [False, True], ["passed", "processor"]),
            (1, [], ["processor"]),
        ],
    )
    def test_the_clock_that_finds_the_batch(self, file, monkeypatch, cores, shared, clocks):
        """The batch is found again where cores turn out to be shared while it is found."""
        seen, told = iter(shared), []

        def search(finder, call, clock=time.perf_counter, at_once=1):
            assert finder.searching
            finder.searching = False
            told.append("passed" if clock is time.perf_counter else "processor")
            assert at_once == (1 if clock is time.perf_counter else cores)

        monkeypatch.setattr(forward_module, "usable_cores", lambda: cores)
        monkeypatch.setattr(forward_module, "own_clock", lambda: time.process_time)
        monkeypatch.setattr(SharedCores, "seen", lambda self: next(seen))
        monkeypatch.setattr(BatchFinder, "search", search)
        opened(file).find_batch(MLP.samples(1))
        assert told == clocks
        assert next(seen, None) is None

    @pytest.mark.skipif(not hasattr(time, "thread_time"), reason="no clock of threads")
    def test_what_the_thread_ran_of_the_time_that_passed_tells_it(self, monkeypatch):
        for ran, shared in ((0.5, True), (0.95, False)):
            now = [0.0]
            monkeypatch.setattr(shared_module.time, "perf_counter", lambda now=now: now[0])
            monkeypatch.setattr(shared_module.time, "thread_time", lambda now=now, ran=ran: ran * now[0])
            cores = SharedCores()

            def call(now=now):
                now[0] += 0.01

            cores.during(call, 1)
            assert not cores.seen(), "too little to tell"
            for _ in range(3):
                cores.during(call, 1)
            assert cores.seen() is (shared and sys.platform != "win32")


class TestGivenBatch:
    def test_a_given_batch_is_kept(self, file):
        forward = opened(file, batch=13)
        forward.find_batch(MLP.samples(1))
        assert forward.batch == 13

    def test_rows_of_large_inputs_stay_within_memory(self):
        calls = []
        forward = CallableForward(lambda X: (calls.append(len(X)), np.zeros((len(X), 2)))[1], (3, 1024, 1024), 2)
        assert forward.finder.most == 2**26 // (3 * 2**20 * 4)


class TestFixedBatch:
    @pytest.mark.parametrize("scheme", ["forward", "central", "dithered"])
    @pytest.mark.parametrize("insisted", [1, 5, 7])  # 6 samples of 9 directions: 5 and 7 leave a rest in rows of all schemes
    def test_rows_are_filled_up(self, saved, insisted, scheme, monkeypatch):
        calls = []
        plain, pair = OnnxForward._call, OnnxForward._bound
        monkeypatch.setattr(OnnxForward, "_call", lambda self, X, of: (calls.append(len(X)), plain(self, X, of))[1])
        forward = opened(saved(MLP.onnx(batch=insisted)), fixed=insisted)
        X = MLP.samples(6)
        assert_allclose(forward.outputs(X), MLP.logits(X)[:, :, None], atol=2e-6)  # float32
        assert set(calls) == {insisted}
        short = []
        monkeypatch.setattr(
            OnnxForward, "_bound", lambda self, X, rows, of: (short.append(len(rows.sample)), pair(self, X, rows, of))[1]
        )
        loose = opened(saved(MLP.onnx(), "loose.onnx"), batch=8)
        assert_allclose(differences(forward, X, scheme), differences(loose, X, scheme), atol=1e-6)
        assert insisted == 1 or any(rows % insisted for rows in short)

    def test_memory_that_ends_is_an_error(self, saved, short_of_memory):  # there is no smaller batch to go on with
        forward = opened(saved(MLP.onnx(batch=4)), fixed=4)
        short_of_memory(2)
        with pytest.raises(OutOfMemory, match="out of memory"):
            forward.outputs(MLP.samples(4))
        with pytest.raises(OutOfMemory, match="out of memory"):
            list(differences(forward, MLP.samples(4)))


class TestOutputs:
    def test_shapes(self):
        z = np.arange(24.0)
        assert as_classes(z.reshape(4, 6)).shape == (4, 6, 1)
        assert as_classes(z.reshape(4, 6, 1, 1)).shape == (4, 6, 1)
        assert as_classes(z.reshape(2, 3, 2, 2)).shape == (2, 3, 4)
        channels_last = as_classes(z.reshape(2, 2, 2, 3), class_axis=-1)
        assert_array_equal(channels_last, np.moveaxis(z.reshape(2, 2, 2, 3), -1, 1).reshape(2, 3, 4))
        assert as_classes(np.zeros((2, 3), np.float16)).dtype == np.float64
        with pytest.raises(ModelError, match="expected a batch axis and a class axis"):
            as_classes(np.zeros(3))

    def test_a_function_that_returns_something_else(self):
        forward = CallableForward(lambda X: np.zeros((len(X), 4)), (6,), 3, batch=2)
        with pytest.raises(InputError, match=r"returned shape \(2, 4\), expected \(2, 3\)"):
            forward.outputs(MLP.samples(2))

    def test_a_file_that_swallows_the_batch(self, saved):
        made = models.model([("ReduceSum", ["x"], ["z"], {"keepdims": 0})], {}, shape=(6,), out=())
        with pytest.raises(ModelError, match="expected one row per sample"):
            opened(saved(made), batch=4).outputs(MLP.samples(4))

    def test_a_large_number_of_classes(self, saved):  # float32 outputs
        many = Linear.draw(1000, 6)
        forward = opened(saved(many.onnx()), batch=16)
        X = many.samples(3)
        assert_allclose(forward.outputs(X)[:, :, 0], many.logits(X), atol=1e-5)
