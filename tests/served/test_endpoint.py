"""Opening a served model: what is told of it, and every reason not to, in one line without secrets."""

from __future__ import annotations

import dataclasses
import socket

import numpy as np
import pytest

from onnxfim import from_url
from onnxfim.errors import OnnxFimError
from onnxfim.served.terms import TOKEN
from tests.support import bad_proxy
from tests.support.places import DEV
from tests.support.serving import served

FP32 = "FP32"


def refused(url, **options):
    """The one line that an address is refused with."""
    with pytest.raises(OnnxFimError) as error:
        from_url(url, **{"retries": 0, "timeout": 5, **options})
    text = str(error.value)
    assert "\n" not in text
    return text


def tensor(name, shape, datatype=FP32):
    return {"name": name, "datatype": datatype, "shape": shape}


def test_metadata_tell_what_it_takes(mlp):
    with served({"digits": mlp}) as server:
        model = from_url(server.url)
    assert model.input_shape == (1, 8, 8)
    assert model.dtype == "float32"
    told = model.endpoint.served
    assert (told.address, told.name, told.version, told.platform) == (server.url, "digits", "1", "onnxruntime_onnx")
    assert (told.server, told.wire) == ("testing 1.0", "binary")
    assert len(told.metadata_sha256) == 64


def test_without_the_extension_numbers_travel_as_json(mlp):
    with served({"digits": mlp}, binary=False) as server:
        assert from_url(server.url).endpoint.served.wire == "JSON"


def test_a_limit_of_rows_is_read_from_the_configuration(mlp):
    with served({"digits": dataclasses.replace(mlp, most=12)}) as server:
        assert from_url(server.url).endpoint.most_rows == 12


def test_one_version_may_be_asked_for(mlp):
    with served({"digits": mlp}) as server:
        assert from_url(f"{server.url}/versions/1").endpoint.served.version == "1"
        assert "no model 'digits' in version '9' (it has digits)" in refused(f"{server.url}/versions/9")


def test_it_is_a_function_of_a_batch(mlp, digits):
    with served({"digits": mlp}) as server:
        assert np.array_equal(from_url(server.url).fn(digits[0][:5]), mlp.function(digits[0][:5]).astype(np.float64))


def test_a_model_that_is_not_there_is_told_with_those_that_are(mlp):
    with served({"digits": mlp, "other": mlp}) as server:
        text = refused(f"{server.base}/v2/models/absent")
    assert text.endswith("the server has no model 'absent' (it has digits, other). Check the name.")


def test_another_server_is_told_from_one_of_the_protocol(mlp):
    from http.server import SimpleHTTPRequestHandler

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_POST(self):
            self.send_error(501)

    import threading

    from tests.support.serving import Server

    with Server(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        text = refused(f"http://127.0.0.1:{server.server_port}/v2/models/m")
        server.shutdown()
    assert "HTTP 404, and no server of KServe v2 answers" in text


def test_a_page_in_place_of_metadata_is_told(mlp):
    with served({"digits": mlp}) as server, bad_proxy.between(server, {bad_proxy.page: 1.0}) as proxy:
        assert "answers with no metadata of KServe v2 (it begins with '<html><body>please log in" in refused(proxy.url)


def test_a_closed_port_is_told():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    text = refused(f"http://127.0.0.1:{port}/v2/models/m")
    assert "the connection is refused. Is the server running" in text


def test_silence_is_told():
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(5)
        text = refused(f"http://127.0.0.1:{deaf.getsockname()[1]}/v2/models/m", timeout=0.3)
    assert "no answer within 0.3 s" in text


@pytest.mark.parametrize("given", [None, "a-wrong-secret-token"])
def test_a_token_that_is_not_taken_is_told_and_not_shown(mlp, monkeypatch, given):
    if given:
        monkeypatch.setenv(TOKEN, given)
    with served({"digits": mlp}, token="the-right-one") as server:
        text = refused(server.url)
    assert "access is refused (HTTP 401" in text
    assert (f"{TOKEN} is not taken" if given else f"{TOKEN} is not set") in text
    assert "secret" not in text  # the server repeats it in its answer


def test_a_token_goes_with_every_request(mlp, monkeypatch):
    monkeypatch.setenv(TOKEN, "the-right-one")
    with served({"digits": mlp}, token="the-right-one") as server:
        model = from_url(server.url)
        assert "the-right-one" not in repr(model)
    assert {h.get("Authorization") for h in server.log.headers} == {"Bearer the-right-one"}


def test_a_token_that_no_header_takes_is_refused_unshown(mlp, monkeypatch):
    monkeypatch.setenv(TOKEN, "a\nX-Other: b")
    with served({"digits": mlp}) as server:
        text = refused(server.url)
    assert text.startswith(f"{TOKEN}: holds a space or a character that no header takes")
    assert "X-Other" not in text


def test_a_redirect_is_not_followed_with_the_token(mlp, monkeypatch):
    monkeypatch.setenv(TOKEN, "the-right-one")

    def elsewhere(handler, answer):
        bad_proxy.head(handler, 302, [("Location", "http://elsewhere/v2?key=secret")], 0)

    with served({"digits": mlp}) as server, bad_proxy.between(server, {elsewhere: 1.0}) as proxy:
        text = refused(proxy.url)
    assert "it answers from elsewhere (HTTP 302, http://elsewhere/v2?key=[redacted])" in text


INPUTS = {
    "whole numbers": ([tensor("x", [-1, 4], "INT64")], "input 'x' takes INT64, expected floats"),
    "bytes": ([tensor("x", [-1, 4], "UINT8")], "takes UINT8, expected floats"),
    "text": ([tensor("x", [-1], "BYTES")], "has shape \\[N\\], expected a batch and the sizes"),
    "two": ([tensor("x", [-1, 4]), tensor("mask", [-1, 4])], "takes 2 inputs \\('x', 'mask'\\), expected one"),
    "none": ([], "its metadata name no input, expected one. Say which by --input NAME --shape"),
}


@pytest.mark.parametrize(("inputs", "why"), INPUTS.values(), ids=list(INPUTS))
def test_inputs_that_cannot_be_audited_are_told(mlp, inputs, why):
    import re

    with served({"digits": dataclasses.replace(mlp, inputs=inputs)}) as server:
        assert re.search(why, refused(server.url))


def test_what_metadata_leave_open_can_be_said(mlp):
    with served({"digits": dataclasses.replace(mlp, inputs=[])}) as server:
        assert from_url(server.url, input="x", shape=["x:[N,1,8,8]"]).input_shape == (1, 8, 8)
    with served({"digits": dataclasses.replace(mlp, inputs=[tensor("x", [-1, 1, -1, -1])])}) as server:
        assert from_url(server.url).input_shape == (1, None, None)
        assert from_url(server.url, shape=["x:[N,1,8,8]"]).input_shape == (1, 8, 8)
        assert "--shape x: [N,2,8,8], but it is served with [N,1,?,?]" in refused(server.url, shape=["x:[N,2,8,8]"])
        assert "no input 'y' (it has 'x')" in refused(server.url, input="y")


def test_outputs_are_chosen_among_those_of_floats(mlp):
    several = [tensor("label", [-1], "INT64"), tensor("z", [-1, 10])]
    with served({"digits": dataclasses.replace(mlp, told_outputs=several)}) as server:
        assert from_url(server.url).endpoint.output == "z"
    several.append(tensor("embedding", [-1, 32]))
    with served({"digits": dataclasses.replace(mlp, told_outputs=several)}) as server:
        assert "has 2 outputs of floats" in refused(server.url)
        assert from_url(server.url, output="z").endpoint.output == "z"
        assert "has no output 'y'" in refused(server.url, output="y")


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """A folder with certificates for two hosts, and that of the authority that signed them."""
    trustme = DEV.load("trustme")
    folder, authority = tmp_path_factory.mktemp("tls"), trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    for name in ("localhost", "elsewhere.test"):
        authority.issue_cert(name).private_key_and_cert_chain_pem.write_to_path(folder / f"{name}.pem")
    return folder


class TestTls:
    def test_a_certificate_of_ones_own_authority_is_taken(self, mlp, digits, authority):
        with served({"digits": mlp}, certificate=authority / "localhost.pem") as server:
            model = from_url(server.url, ca_file=str(authority / "ca.pem"))
            assert model.fn(digits[0][:2]).shape == (2, 10)

    def test_one_that_nobody_signed_for_is_refused(self, mlp, authority):
        with served({"digits": mlp}, certificate=authority / "localhost.pem") as server:
            text = refused(server.url)
        assert "the server's certificate is not trusted (unable to get local issuer certificate" in text
        assert text.endswith("Give the authority that signed it by --ca-file, and the host's name that it is for.")

    def test_one_for_another_host_is_refused(self, mlp, authority):
        with served({"digits": mlp}, certificate=authority / "elsewhere.test.pem") as server:
            text = refused(server.url, ca_file=str(authority / "ca.pem"))
        assert "the server's certificate is not trusted (Hostname mismatch" in text

    def test_a_port_that_speaks_no_tls_is_told(self, mlp):
        with served({"digits": mlp}) as server:
            assert "TLS" in refused(server.url.replace("http://", "https://"))

    @pytest.mark.parametrize("content", [None, "no certificate"])
    def test_a_file_without_certificates_is_refused(self, tmp_path, content):
        file = tmp_path / "ca.pem"
        if content is not None:
            file.write_text(content)
        assert f"--ca-file {file}: gives no certificates" in refused("https://localhost:1/v2/models/m", ca_file=str(file))
