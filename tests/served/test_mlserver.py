"""A real server of the protocol, MLServer, that serves a sample model through ONNX Runtime; behind a bad network too."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import textwrap
import time
import urllib.request
from types import SimpleNamespace

import pytest

from onnxfim import Settings, audit, from_url
from tests.served.conftest import MLP
from tests.support import bad_proxy
from tests.support.places import MLSERVER

pytestmark = [MLSERVER.unless(shutil.which("mlserver") is not None), pytest.mark.slow]

QUICK = {"method": "sketch", "replay": 0, "bounds": False, "samples": 12, "budget": 60, "providers": ("cpu",), "batch": 16}
_STARTS = 90  # seconds, of a machine that does other work too
RUNTIME = """
    import onnxruntime as ort
    from mlserver import MLModel
    from mlserver.codecs import NumpyCodec
    from mlserver.types import InferenceResponse

    class OnnxModel(MLModel):
        async def load(self):
            self.session = ort.InferenceSession(self.settings.parameters.uri, providers=["CPUExecutionProvider"])
            return True

        async def predict(self, payload):
            rows = self.decode(payload.inputs[0], default_codec=NumpyCodec)
            z = self.session.run(None, {self.session.get_inputs()[0].name: rows})[0]
            outputs = [NumpyCodec.encode_output("z", z)]
            return InferenceResponse(model_name=self.name, model_version=self.version, id=payload.id, outputs=outputs)
"""


def free_ports(count):
    held = [socket.socket() for _ in range(count)]
    for s in held:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in held]
    for s in held:
        s.close()
    return ports


@pytest.fixture(scope="module")
def server(tmp_path_factory, digits):
    folder = tmp_path_factory.mktemp("mlserver")
    (folder / "runtime_of_ours.py").write_text(textwrap.dedent(RUNTIME))
    http, grpc, metrics = free_ports(3)
    settings = {"http_port": http, "grpc_port": grpc, "metrics_port": metrics, "parallel_workers": 0, "host": "127.0.0.1"}
    (folder / "settings.json").write_text(json.dumps(settings))
    model = {
        "name": "digits", "implementation": "runtime_of_ours.OnnxModel", "platform": "onnxruntime",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, *digits[0].shape[1:]]}],
        "outputs": [{"name": "z", "datatype": "FP32", "shape": [-1, 10]}], "parameters": {"uri": str(MLP), "version": "v1"},
    }  # fmt: skip
    (folder / "model-settings.json").write_text(json.dumps(model))
    base = f"http://127.0.0.1:{http}"
    with (folder / "log").open("wb") as log:
        started = subprocess.Popen(
            ["mlserver", "start", str(folder)], cwd=folder, stdout=log, stderr=log, env={"PATH": _path(), "PYTHONPATH": str(folder)}
        )
        try:
            _wait(started, f"{base}/v2/models/digits/ready", folder / "log")
            yield SimpleNamespace(base=base, url=f"{base}/v2/models/digits", server_port=http)
        finally:
            started.terminate()
            try:
                started.wait(20)
            except subprocess.TimeoutExpired:
                started.kill()
                started.wait()


def _path():
    import os

    return os.environ["PATH"]


def _wait(started, url, log):
    deadline = time.monotonic() + _STARTS
    while time.monotonic() < deadline:
        assert started.poll() is None, log.read_text("utf-8")[-2000:]
        try:
            if urllib.request.urlopen(url, timeout=1).status == 200:
                return
        except OSError:
            time.sleep(0.2)
    pytest.fail(log.read_text("utf-8")[-2000:])


@pytest.fixture(scope="module")
def of_file(digits):
    return audit(MLP, *digits, Settings(**QUICK))


def test_the_numbers_are_those_of_the_file(server, digits, of_file):
    found = audit(from_url(server.url), *digits, Settings(**QUICK))
    assert found.model.served.server.startswith("mlserver ")
    assert [s.lambda_max for s in found.samples] == [s.lambda_max for s in of_file.samples]


def test_and_through_a_bad_network(server, digits, of_file):
    faults = {**dict.fromkeys(bad_proxy.LOSSES, 0.02), bad_proxy.dropped: 0.1, bad_proxy.delayed: 0.05}
    with bad_proxy.between(server, faults, seed=1) as proxy:
        found = audit(from_url(proxy.url, retries=8), *digits, Settings(**QUICK))
        assert proxy.counts["dropped"] >= 5
    assert [s.lambda_max for s in found.samples] == [s.lambda_max for s in of_file.samples]
    assert found.run.times["requests_repeated"] >= 10


def test_what_it_has_not_is_told(server):
    from onnxfim.errors import OnnxFimError

    with pytest.raises(OnnxFimError, match=r"the server has no model 'absent' \(it has digits\)"):
        from_url(f"{server.base}/v2/models/absent")
