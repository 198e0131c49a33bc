"""Audits of a served model: the numbers of its file, whatever happens on the way; what is lost is listed."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time

import numpy as np
import pytest

from onnxfim import Settings, audit, from_url
from onnxfim.errors import OnnxFimError
from onnxfim.record.running import QUERY_LIMIT
from onnxfim.runtime.stopping import Stop
from onnxfim.served.terms import TOKEN
from tests.served.conftest import MLP
from tests.support import bad_proxy
from tests.support.serving import served

QUICK = {"method": "sketch", "replay": 0, "bounds": False, "samples": 12, "budget": 60, "providers": ("cpu",)}


@pytest.fixture(scope="module")
def of_file(digits):
    return audit(MLP, *digits, Settings(**QUICK))


def same(found, expected):
    """Whether all samples have the same values to the last bit."""
    assert [s.index for s in found.samples] == [s.index for s in expected.samples]
    for one, other in zip(found.samples, expected.samples, strict=True):
        assert one.lambda_max == other.lambda_max
        assert one.prediction == other.prediction
    assert found.calibration == expected.calibration
    assert found.aggregates["lambda_max"] == expected.aggregates["lambda_max"]


@pytest.mark.parametrize("options", [{}, {"concurrency": 1}, {"concurrency": 16}])
@pytest.mark.parametrize("binary", [True, False])
def test_the_numbers_are_those_of_the_file(mlp, digits, of_file, binary, options):
    with served({"digits": mlp}, binary=binary) as server:
        found = audit(from_url(server.url, **options), *digits, Settings(**QUICK))
        assert server.log.most_under_way <= options.get("concurrency", 4)
    same(found, of_file)
    assert found.model.served.address == server.url
    assert found.run.provider == "served"
    assert found.run.times["requests"] == len(server.log.rows)
    assert found.run.times["rows_answered"] == sum(server.log.rows)
    assert "served-model" in {f.id for f in found.findings}


def test_an_address_alone_is_a_model(mlp, digits, of_file):
    with served({"digits": mlp}) as server:
        same(audit(server.url, *digits, Settings(**QUICK)), of_file)


def test_rows_of_a_request_keep_to_the_server_s_limit(mlp, digits, of_file):
    with served({"digits": dataclasses.replace(mlp, most=5)}) as server:
        found = audit(from_url(server.url), *digits, Settings(**QUICK))
        assert max(server.log.rows) == 5
        same(found, of_file)
        with pytest.raises(OnnxFimError, match="--batch 9: digits takes 5 rows a request at most"):
            audit(from_url(server.url), *digits, Settings(**QUICK, batch=9))


def test_a_limit_that_is_not_told_is_found(mlp, digits, of_file):
    limit = 20

    def limited(rows):
        if len(rows) > limit:
            raise ValueError(f"no more than {limit} rows")
        return mlp.function(rows)

    with served({"digits": dataclasses.replace(mlp, function=limited)}) as server:
        found = audit(from_url(server.url, retries=0), *digits, Settings(**QUICK))
        assert max(server.log.rows[-20:]) <= limit
    same(found, of_file)
    assert found.run.times["requests_given_up"] == 0


def test_a_fixed_number_of_rows_is_kept_to(mlp, digits, of_file):
    with served({"digits": dataclasses.replace(mlp, batch=7)}) as server:
        found = audit(from_url(server.url), *digits, Settings(**QUICK))
        assert set(server.log.rows) == {7}
    same(found, of_file)


@pytest.mark.parametrize("binary", [True, False])
def test_through_a_bad_network_the_numbers_are_those_of_the_file(mlp, digits, of_file, binary):
    faults = {**dict.fromkeys(bad_proxy.LOSSES, 0.02), bad_proxy.dropped: 0.1, bad_proxy.delayed: 0.05}
    with served({"digits": mlp}, binary=binary) as server, bad_proxy.between(server, faults, seed=3) as proxy:
        found = audit(from_url(proxy.url, retries=8), *digits, Settings(**QUICK, batch=16))
        counts = proxy.counts
    assert counts["dropped"] >= 5
    assert len([f for f in bad_proxy.LOSSES if counts[f.__name__]]) >= 8
    same(found, of_file)
    assert found.run.times["requests_repeated"] >= 20
    assert not found.skipped


@pytest.mark.parametrize("fault", bad_proxy.LOSSES, ids=lambda f: f.__name__)
def test_each_fault_alone_is_overcome(mlp, digits, of_file, fault):
    with served({"digits": mlp}) as server, bad_proxy.between(server, {fault: 0.2}, seed=1) as proxy:
        found = audit(from_url(proxy.url, retries=12), *digits, Settings(**QUICK))
        assert proxy.counts[fault.__name__] >= 3
    same(found, of_file)


def test_requests_that_hang_are_given_up_and_made_again(mlp, digits, of_file):
    with served({"digits": mlp}) as server, bad_proxy.between(server, {bad_proxy.hung: 0.08}, seed=2, longest=1.5) as proxy:
        found = audit(from_url(proxy.url, timeout=0.6), *digits, Settings(**QUICK))
        assert proxy.counts["hung"] >= 1
    same(found, of_file)


def test_a_row_that_the_model_fails_on_is_skipped_with_the_reason(mlp, digits):
    X, y = digits
    bad = X[4].copy()

    def fails(rows):
        if any(np.array_equal(r, bad) for r in rows):
            raise RuntimeError("cannot divide this one")
        return mlp.function(rows)

    with served({"digits": dataclasses.replace(mlp, function=fails)}) as server:
        found = audit(from_url(server.url, retries=1), X, y, Settings(**QUICK))
    assert [s.index for s in found.skipped] == [4]
    assert "HTTP 500, cannot divide this one" in found.skipped[0].reason
    assert len(found.samples) == 12


def test_what_stays_without_an_answer_is_listed(mlp, digits):
    """A gateway that refuses every request of some samples' rows."""
    X, y = digits

    def refuses(rows):
        if len(rows) == 1 and rows[0].sum() == X[7].sum():
            return np.full((1, 10), np.nan, np.float32)
        return np.where((rows.reshape(len(rows), -1) == X[7].ravel()).all(axis=1)[:, None], np.nan, mlp.function(rows))

    with served({"digits": dataclasses.replace(mlp, function=refuses)}) as server:
        found = audit(from_url(server.url), X, y, Settings(**QUICK))
    assert [(s.index, s.reason) for s in found.skipped] == [(7, "the model's output is not finite at this sample")]


def test_a_server_that_goes_away_ends_the_audit_with_what_is_measured(mlp, digits):
    with served({"digits": mlp}) as server, bad_proxy.between(server, {bad_proxy.dropped: 1.0}, after=45) as proxy:
        found = audit(from_url(proxy.url, retries=1), *digits, Settings(**{**QUICK, "batch": 16, "budget": 101}))
    assert found.run.partial
    assert found.run.stopped.startswith("digits: a connection that broke off")
    assert "2 tries each of 3 requests one after the other" in found.run.stopped
    assert len(found.samples) + len(found.skipped) == 12


def test_a_token_that_expires_ends_the_audit_in_one_line(mlp, digits, monkeypatch):
    monkeypatch.setenv(TOKEN, "first-token")
    with served({"digits": mlp}, token="first-token") as server:
        asked = mlp.function

        def expiring(rows):
            if len(server.log.rows) > 70:
                server.token = "next-token"
            return asked(rows)

        server.models["digits"] = dataclasses.replace(mlp, function=expiring)
        found = audit(from_url(server.url), *digits, Settings(**QUICK, batch=16))
    assert found.run.partial
    assert f"access is refused (HTTP 401, unauthorized, got Bearer [redacted]; {TOKEN} is not taken)" in found.run.stopped
    assert "first-token" not in found.to_json()


def test_requests_are_counted_and_capped(mlp, digits):
    with served({"digits": mlp}) as server, bad_proxy.between(server, {bad_proxy.overloaded: 0.1}, after=4) as proxy:
        found = audit(from_url(proxy.url, max_queries=40), *digits, Settings(**QUICK, batch=16))
        asked = sum(1 for p in server.log.paths if p.endswith("/infer"))
    assert asked == 40  # those that were made again among them
    assert found.run.partial
    assert found.run.interrupted_by == QUERY_LIMIT
    assert found.run.times["requests"] == 40
    assert len(found.samples) + len(found.skipped) == 12


def test_a_rate_is_kept(mlp, digits):
    times, lock = [], threading.Lock()

    def timed(rows):
        with lock:
            times.append(time.monotonic())
        return mlp.function(rows)

    with served({"digits": dataclasses.replace(mlp, function=timed)}) as server:
        audit(from_url(server.url, max_qps=40), *digits, Settings(**{**QUICK, "samples": 4, "flip": False}))
    assert len(times) >= 10
    assert times[-1] - times[0] >= (len(times) - 1) / 40 * 0.9


class TestKept:
    def test_an_audit_that_was_ended_asks_nothing_twice(self, mlp, digits, of_file, tmp_path):
        settings = Settings(**QUICK, batch=16)
        with served({"digits": mlp}) as server:
            audit(from_url(server.url), *digits, settings)
            whole = len(server.log.rows)
            server.log.rows.clear()
            first = audit(from_url(server.url, max_queries=30), *digits, settings, cache_dir=tmp_path)
            assert first.run.partial
            server.log.rows.clear()
            found = audit(from_url(server.url), *digits, settings, cache_dir=tmp_path)
            again = len(server.log.rows)
            same(found, of_file)
            server.log.rows.clear()
            same(audit(from_url(server.url), *digits, settings, cache_dir=tmp_path), of_file)
            last = len(server.log.rows)
        # Opening (3 with 16 rows), two that are compared with what is kept, and one at the end are always asked.
        assert last <= 8
        assert again <= whole - 30 + 2 * last
        assert found.run.times["cached_rows"] > 300

    def test_other_weights_under_the_same_name_use_nothing_of_it(self, mlp, digits, tmp_path, caplog):
        with served({"digits": mlp}) as server:
            first = audit(from_url(server.url), *digits, Settings(**QUICK), cache_dir=tmp_path)
            server.models["digits"] = dataclasses.replace(mlp, function=lambda rows: 0.5 * mlp.function(rows))
            caplog.clear()
            with caplog.at_level(logging.WARNING):
                other = audit(from_url(server.url), *digits, Settings(**QUICK), cache_dir=tmp_path)
            assert "digits: answers otherwise than when it was asked before" in caplog.text
            assert other.run.times["cached_rows"] == 0
            # Halved logits have a quarter of the curvature, but for what that moves the probabilities.
            assert other.aggregates["lambda_max"].median.value != first.aggregates["lambda_max"].median.value
            server.models["digits"] = mlp
            again = audit(from_url(server.url), *digits, Settings(**QUICK), cache_dir=tmp_path)
            assert again.run.times["cached_rows"] > 300
        same(again, first)

    def test_no_token_is_in_it(self, mlp, digits, tmp_path, monkeypatch):
        monkeypatch.setenv(TOKEN, "a-token-of-mine")
        with served({"digits": mlp}, token="a-token-of-mine") as server:
            audit(from_url(server.url), *digits, Settings(**QUICK), cache_dir=tmp_path)
        files = [p for p in tmp_path.rglob("*") if p.is_file()]
        assert files
        assert not any(b"a-token-of-mine" in p.read_bytes() or "a-token" in p.name for p in files)


def test_weights_that_change_meanwhile_are_told(mlp, digits):
    with served({"digits": mlp}) as server:

        def changing(rows):
            return mlp.function(rows) * (1.0 if len(server.log.rows) < 30 else 1.1)

        server.models["digits"] = dataclasses.replace(mlp, function=changing)
        found = audit(from_url(server.url), *digits, Settings(**QUICK, batch=16, step=1e-3))
    assert found.run.model_changed
    (told,) = [f for f in found.findings if f.id == "model-changed"]
    assert "answered otherwise at the end of the audit than at its beginning" in told.message


def test_noise_of_answers_is_found_by_rows_that_are_asked_again(mlp, digits):
    rng, lock = np.random.default_rng(0), threading.Lock()

    def noisy(rows):
        with lock:
            return mlp.function(rows) + 1e-3 * rng.standard_normal((len(rows), 10))

    with served({"digits": dataclasses.replace(mlp, function=noisy)}) as server:
        found = audit(from_url(server.url), *digits, Settings(**{**QUICK, "samples": 20, "budget": 201}))
    quiet = audit(MLP, *digits, Settings(**{**QUICK, "samples": 20, "budget": 201}))
    # Of the difference of two answers; the rms of 60 numbers has a standard error of 9 %.
    assert found.step.repeat_noise == pytest.approx(1e-3 * 2**0.5, rel=0.4)
    assert found.step.step > 10 * quiet.step.step
    assert "not-deterministic" in {f.id for f in found.findings}
    assert not found.run.model_changed
    by_index = {s.index: s for s in quiet.samples}
    held = [
        s.lambda_max.low <= by_index[s.index].lambda_max.high and by_index[s.index].lambda_max.low <= s.lambda_max.high
        for s in found.samples
        if s.lambda_max.low is not None and by_index[s.index].lambda_max.low is not None
    ]
    assert np.mean(held) >= 0.9


def test_it_ends_when_it_is_asked_to(mlp, digits):
    stop = Stop()

    def slow(rows):
        time.sleep(0.05)
        return mlp.function(rows)

    with served({"digits": dataclasses.replace(mlp, function=slow)}) as server:
        threading.Timer(1.0, stop.ask, ("SIGTERM",)).start()
        began = time.monotonic()
        found = audit(from_url(server.url), *digits, Settings(**{**QUICK, "budget": 2000, "batch": 16}), stop=stop)
    assert time.monotonic() - began < 15
    assert found.run.partial
    assert found.run.interrupted_by == "SIGTERM"


def test_rows_that_are_not_finite_are_no_lost_requests(mlp, digits):
    """Without another try an answer with a row that is no number is an answer all the same."""
    bad = digits[0][3]

    def partly(rows):
        lost = (rows.reshape(len(rows), -1) == bad.ravel()).all(axis=1)
        return np.where(lost[:, None], np.nan, mlp.function(rows))

    with served({"digits": dataclasses.replace(mlp, function=partly)}) as server:
        found = audit(from_url(server.url, retries=0), *digits, Settings(**QUICK))
    assert [s.index for s in found.skipped] == [3]
    assert found.run.times["requests_given_up"] == 0


class TestWaits:
    def test_the_server_s_own_wait_is_heeded(self, mlp, digits):
        def busy(handler, answer):
            bad_proxy.whole(handler, (429, [("Retry-After", "1")], b"slow down"))

        with served({"digits": mlp}) as server, bad_proxy.between(server, {busy: 1.0}) as proxy:
            began = time.monotonic()
            proxy.fault = lambda: busy if proxy.asked == 1 else bad_proxy.whole
            from_url(proxy.url)
            assert time.monotonic() - began >= 1.0

    def test_one_that_is_too_long_is_told(self, mlp):
        def busy(handler, answer):
            bad_proxy.whole(handler, (503, [("Retry-After", "7200")], b"down for maintenance"))

        with served({"digits": mlp}) as server, bad_proxy.between(server, {busy: 1.0}) as proxy:
            began = time.monotonic()
            with pytest.raises(OnnxFimError, match="HTTP 503"):
                from_url(proxy.url)
        assert time.monotonic() - began < 5

    def test_an_answer_that_trickles_is_given_up_in_time(self, mlp):
        def trickles(handler, answer):
            status, headers, body = answer
            bad_proxy.head(handler, status, headers, len(body))
            for k in range(len(body)):
                handler.wfile.write(body[k : k + 1])
                handler.wfile.flush()
                time.sleep(0.05)

        with served({"digits": mlp}) as server, bad_proxy.between(server, {trickles: 1.0}) as proxy:
            began = time.monotonic()
            with pytest.raises(OnnxFimError, match=r"no whole answer within 0\.5 s"):
                from_url(proxy.url, timeout=0.5, retries=0)
        assert time.monotonic() - began < 5

    def test_a_server_that_falls_silent_ends_the_audit_soon(self, mlp, digits):
        with served({"digits": mlp}) as server, bad_proxy.between(server, {bad_proxy.hung: 1.0}, after=45, longest=0.5) as proxy:
            began = time.monotonic()
            settings = Settings(**{**QUICK, "batch": 16, "budget": 101})
            found = audit(from_url(proxy.url, timeout=0.2, concurrency=2), *digits, settings)
        assert time.monotonic() - began < 30
        assert found.run.partial
        assert "no answer within 0.2 s, " in found.run.stopped
        assert "requests one after the other" in found.run.stopped


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(mlp, monkeypatch):
    from onnxfim.served.address import address_of
    from onnxfim.served.transport import _proxy

    for name in ("HTTP_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "near.test")
    with served({"digits": mlp}) as server:
        assert from_url(server.url, retries=0).input_shape == (1, 8, 8)
    assert _proxy(address_of("http://far.test/v2/models/m")) == "http://127.0.0.1:9"
    assert _proxy(address_of("https://near.test/v2/models/m")) is None


def test_a_token_that_a_broken_answer_repeats_is_not_shown(mlp, digits, monkeypatch):
    monkeypatch.setenv(TOKEN, "my-own-token-1")

    def repeats(handler, answer):
        told = f'{{"error": "{"x" * 295}{handler.headers["Authorization"]}"}}'
        bad_proxy.whole(handler, (200, [], told.encode()))

    with (
        served({"digits": mlp}) as server,
        bad_proxy.between(server, {repeats: 1.0}, after=3) as proxy,
        pytest.raises(OnnxFimError) as error,
    ):
        audit(from_url(proxy.url, retries=0), *digits, Settings(**QUICK))
    assert "my-own" not in str(error.value)


def test_certificates_are_those_of_the_file(mlp, digits):
    settings = Settings(**{**QUICK, "certify": ("smoothing:0.1",), "certify_budget": 100})
    with served({"digits": mlp}) as server:
        found = audit(from_url(server.url), *digits, settings)
    expected = audit(MLP, *digits, settings)
    assert [s.smoothed for s in found.samples] == [s.smoothed for s in expected.samples]
    assert "The rows go to the served model as it takes them" in found.smoothing[0].caveat
