"""Requests and answers as bytes; what a broken answer is taken for."""

from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from onnxfim.errors import ModelError
from onnxfim.served.protocol import HEADER, Expected, answer_of, read_metadata, request_of
from onnxfim.served.trouble import Trouble

ROWS = np.random.default_rng(0).standard_normal((3, 2, 2)).astype(np.float32)
Z = np.random.default_rng(1).standard_normal((3, 4)).astype(np.float32)


def answer(z=Z, *, binary=False, number="7", name="z", datatype="FP32", shape=None, **others):
    told = {"name": name, "datatype": datatype, "shape": list(z.shape) if shape is None else shape}
    record = {"model_name": "m", "id": number, "outputs": [told], **others}
    if not binary:
        told["data"] = z.ravel().tolist()
        return json.dumps(record).encode(), None
    content = z.tobytes()
    told["parameters"] = {"binary_data_size": len(content)}
    text = json.dumps(record).encode()
    return text + content, str(len(text))


EXPECTED = Expected("7", 3, "z", (None, 4))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_binary_rows_travel_bit_for_bit(dtype):
    rows = ROWS.astype(dtype)
    request = request_of(rows, "x", "z", "7", "binary")
    length = int(request.headers[HEADER])
    head = json.loads(request.body[:length])
    (told,) = head["inputs"]
    assert told["shape"] == [3, 2, 2]
    assert told["datatype"] == {2: "FP16", 4: "FP32", 8: "FP64"}[rows.itemsize]
    assert told["parameters"]["binary_data_size"] == len(request.body) - length
    assert_array_equal(np.frombuffer(request.body[length:], dtype).reshape(rows.shape), rows)
    assert head["outputs"] == [{"name": "z", "parameters": {"binary_data": True}}]


def test_json_rows_travel_bit_for_bit():
    head = json.loads(request_of(ROWS, "x", None, "7", "JSON").body)
    assert "outputs" not in head
    assert_array_equal(np.array(head["inputs"][0]["data"]).astype(np.float32).reshape(ROWS.shape), ROWS)


@pytest.mark.parametrize("binary", [False, True])
def test_answers_are_read_bit_for_bit(binary):
    assert_array_equal(answer_of(*answer(binary=binary), EXPECTED), Z.astype(np.float64))


def test_nested_lists_are_numbers_too():
    content = json.dumps({"outputs": [{"name": "z", "datatype": "FP64", "shape": [3, 4], "data": Z.tolist()}]}).encode()
    assert_array_equal(answer_of(content, None, EXPECTED), Z)


def test_json_that_prints_more_digits_than_a_float_has_is_that_float():
    content, _ = answer()
    assert_array_equal(answer_of(content.replace(b'"FP32"', b'"FP32"'), None, EXPECTED).astype(np.float32), Z)


def test_binary_data_of_others_lie_before_it():
    other = np.ones(5, np.float32).tobytes()
    record = {
        "outputs": [
            {"name": "a", "datatype": "FP32", "shape": [5], "parameters": {"binary_data_size": len(other)}},
            {"name": "z", "datatype": "FP32", "shape": [3, 4], "parameters": {"binary_data_size": Z.nbytes}},
        ]
    }
    text = json.dumps(record).encode()
    assert_array_equal(answer_of(text + other + Z.tobytes(), str(len(text)), EXPECTED), Z)


BROKEN = {
    "cut off": (answer()[0][:-5], None),
    "nothing": (b"", None),
    "html": (b"<html>please log in</html>", None),
    "a list": (b"[1, 2]", None),
    "no outputs": (b'{"id": "7"}', None),
    "another's id": answer(number="8"),
    "too few numbers": answer(Z[:2], shape=[3, 4]),
    "no numbers": (json.dumps({"outputs": [{"name": "z", "datatype": "FP32", "shape": [1], "data": ["a"]}]}).encode(), None),
    "other rows": answer(Z[:2]),
    "other classes": answer(Z[:, :3]),
    "other rank": answer(Z[..., None]),
    "no shape": answer(shape=[3, -4]),
    "deep": (b'{"a":' * 100_000, None),
    "binary cut off": (answer(binary=True)[0][:-4], answer(binary=True)[1]),
    "binary and more": (answer(binary=True)[0] + b"more", answer(binary=True)[1]),
    "binary of another type": answer(binary=True, datatype="FP64"),
    "length too large": (answer(binary=True)[0], "999999"),
    "length no number": (answer(binary=True)[0], "-3"),
    "length of many digits": (answer(binary=True)[0], "9" * 10_000),
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=list(BROKEN))
def test_a_broken_answer_is_asked_for_again(content):
    with pytest.raises(Trouble) as trouble:
        answer_of(*content, EXPECTED)
    assert trouble.value.remedy == "again"
    assert "\n" not in trouble.value.said
    assert len(trouble.value.said) < 500


def test_an_output_that_is_not_there_is_not_asked_for_again():
    with pytest.raises(Trouble, match="no output 'z' \\(it has y\\)") as trouble:
        answer_of(*answer(name="y"), EXPECTED)
    assert trouble.value.remedy == "none"
    with pytest.raises(Trouble, match="of INT64, expected floats"):
        answer_of(*answer(datatype="INT64"), EXPECTED)


def test_one_of_several_outputs_must_be_named():
    record = {"outputs": [{"name": n, "datatype": "FP32", "shape": [1], "data": [1]} for n in "ab"]}
    with pytest.raises(Trouble, match=r"several outputs \(a, b\)"):
        answer_of(json.dumps(record).encode(), None, Expected("", 1, None, None))


def test_metadata_are_read():
    told = {
        "name": "m", "versions": ["1", "2"], "platform": "p", "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [{"name": "z", "datatype": "FP32", "shape": [-1, 2]}],
    }  # fmt: skip
    found = read_metadata(json.dumps(told).encode(), "here")
    assert found.inputs[0].shape == (None, 4)
    assert found.versions == ("1", "2")
    assert found.sha256 == read_metadata(json.dumps(dict(reversed(told.items()))).encode(), "here").sha256
    assert found.sha256 != read_metadata(json.dumps({**told, "platform": "q"}).encode(), "here").sha256


@pytest.mark.parametrize("content", [b"", b"<html>", b"[]", b'{"inputs": 3, "name": "m"}', b'{"outputs": []}', b'{"name": NaN}'])
def test_other_answers_are_no_metadata(content):
    with pytest.raises(ModelError, match=r"here: answers with no metadata of KServe v2 .* Check the address"):
        read_metadata(content, "here")


def test_triton_s_own_client_makes_the_same_request():
    """The bytes that NVIDIA's client makes of the same rows, where it is installed."""
    client = pytest.importorskip("tritonclient.http", reason="needs tritonclient (pip install 'tritonclient[http]')")
    given = client.InferInput("x", ROWS.shape, "FP32")
    given.set_data_from_numpy(ROWS)
    wanted = client.InferRequestedOutput("z")
    theirs, length = client.InferenceServerClient.generate_request_body([given], outputs=[wanted], request_id="7")
    ours = request_of(ROWS, "x", "z", "7", "binary")
    assert ours.body[int(ours.headers[HEADER]) :] == theirs[length:]
    assert json.loads(ours.body[: int(ours.headers[HEADER])]) == json.loads(theirs[:length])
