"""A large model's weights stay in its file: what refers to them computes what the whole model does."""

from __future__ import annotations

import os
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from onnxfim import Settings, audit, load_samples
from onnxfim.errors import ModelError
from onnxfim.graph import referring
from onnxfim.graph.load import load_model
from onnxfim.runtime import session
from tests.support.places import SAMPLES

#: Rows of the model's samples, and what float32 kernels that take their weights otherwise may change.
ROWS, SAME = 6, 1e-4


@pytest.fixture
def model(tmp_path):
    return shutil.copy(SAMPLES / "digits_resnet.onnx", tmp_path / "model.onnx")


@pytest.fixture
def samples():
    return load_samples(SAMPLES / "digits.npz", SAMPLES / "digits_resnet.onnx", limit=ROWS)


@pytest.fixture
def small_is_large(monkeypatch):
    monkeypatch.setattr(referring, "LARGE_FILE", 1)
    monkeypatch.setattr(referring, "LARGE_WEIGHT", 256)


def referred(file):
    return [t for t in file.proto.graph.initializer if t.data_location == TensorProto.EXTERNAL]


def test_a_small_file_is_read_whole(model):
    assert not referred(load_model(model))


def test_weights_are_read_from_their_place_in_the_file_itself(model, request):
    whole = load_model(model)
    request.getfixturevalue("small_is_large")
    file = load_model(model)
    assert len(referred(file)) > 3
    assert file.proto.ByteSize() < whole.proto.ByteSize() / 4
    assert (file.sha256, file.bytes, file.files) == (whole.sha256, whole.bytes, whole.files)
    for tensor in whole.proto.graph.initializer:
        np.testing.assert_array_equal(file.graph.constant(tensor.name), whole.graph.constant(tensor.name))
    assert {e.value for t in referred(file) for e in t.external_data if e.key == "location"} == {"model.onnx"}


def test_the_runtime_computes_the_same_with_references(model, samples, small_is_large):
    file = load_model(model)
    found = []
    for source, mapped in ((file.path, False), (file.proto.SerializeToString(), False), (file.proto.SerializeToString(), True)):
        opened, _ = session.open_session(source, base_dir=file.path.parent, mapped=mapped)
        found.append(session.run(opened, [file.graph.outputs[0].name], {file.graph.inputs[0].name: samples.inputs})[0])
    np.testing.assert_array_equal(found[1], found[0])
    np.testing.assert_allclose(found[2], found[0], rtol=0, atol=SAME * np.abs(found[0]).max())


def test_a_copy_gets_its_weights_back(model, small_is_large):
    file = load_model(model)
    back = onnx.load_model_from_string(referring.whole(file.proto.SerializeToString(), file.path.parent))
    assert back.graph.initializer == onnx.load(model).graph.initializer
    assert referring.whole(onnx.load(model).SerializeToString(), file.path.parent) is None


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux's /proc")
def test_pages_of_a_mapped_weight_leave_memory_and_come_back(tmp_path):
    content = np.arange(2**20, dtype=np.float32)
    path = tmp_path / "weights.bin"
    path.write_bytes(content.tobytes())
    tensor = TensorProto(name="w", dims=content.shape, data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    for key, value in (("location", path.name), ("length", str(content.nbytes))):
        tensor.external_data.add(key=key, value=value)

    def kilobytes():
        _, _, mapping = Path("/proc/self/smaps").read_text().partition(str(path))
        return int(re.search(r"^Rss: +(\d+)", mapping, re.M)[1])

    array = referring.array_of(tensor, tmp_path)
    array.sum()
    assert kilobytes() == content.nbytes // 1024
    referring.let_go(array[: 2**19].reshape(2, -1))  # a part of it tells of the whole
    assert kilobytes() == 0
    np.testing.assert_array_equal(array, content)
    referring.let_go(content)  # is not mapped
    np.testing.assert_array_equal(array, content)


def test_a_runtime_that_takes_no_references_is_given_the_weights(model, samples, small_is_large, monkeypatch):
    file = load_model(model)
    opened = session._opened

    def refusing(source, *given):
        if isinstance(source, bytes) and b"location" in source:
            raise ModelError("model_path must not be empty")
        return opened(source, *given)

    monkeypatch.setattr(session, "_opened", refusing)
    copy, _ = session.open_session(file.proto.SerializeToString(), base_dir=file.path.parent, mapped=True)
    plain, _ = session.open_session(file.path)
    feeds, output = {file.graph.inputs[0].name: samples.inputs}, file.graph.outputs[0].name
    np.testing.assert_array_equal(session.run(copy, [output], feeds)[0], session.run(plain, [output], feeds)[0])
    with pytest.raises(ModelError, match="must not be empty"):
        session.open_session(file.proto.SerializeToString())  # without its folder there is nothing to give


@pytest.mark.parametrize("method", ["gradient", "sketch"])
def test_an_audit_has_the_same_values(model, samples, method, request):
    settings = Settings(providers=("cpu",), method=method, replay=2, batch=ROWS)
    whole = audit(model, samples, settings=settings)
    request.getfixturevalue("small_is_large")
    found = audit(model, samples, settings=settings)
    assert found.run.method == whole.run.method
    assert found.bound.log10_lipschitz == whole.bound.log10_lipschitz
    values = [[s.lambda_max.value for s in a.samples] for a in (found, whole)]
    if method == "sketch":  # the model itself is run as it is
        assert values[0] == values[1]
    np.testing.assert_allclose(*values, rtol=SAME)


def test_links_are_read_whole(model, tmp_path, small_is_large):
    (tmp_path / "soft.onnx").symlink_to(model)
    assert not referred(load_model(tmp_path / "soft.onnx"))
    os.link(model, tmp_path / "hard.onnx")
    assert not referred(load_model(model))


def varint(value):
    head = bytearray()
    while value > 127:
        head.append(value & 127 | 128)
        value >>= 7
    return bytes([*head, value])


def test_what_no_exporter_writes_is_read_whole(model, small_is_large):
    content = model.read_bytes()
    assert referring.referring(model, content) is not None
    graph = onnx.load(model).graph.SerializeToString()
    for unusual in (
        content + b"\x3a" + varint(len(graph)) + graph,  # a second graph, which is merged into the first
        content + b"\x0b\x0c",  # a group
        content[:-3],
        content + b"\xff" * 12,
        b"\x00" + content,
    ):
        assert referring.referring(model, unusual) is None


def test_a_weight_of_another_length_is_told_as_before(model, small_is_large):
    proto = onnx.load(model)
    largest = max(proto.graph.initializer, key=lambda t: len(t.raw_data))
    largest.raw_data = largest.raw_data[:-4]
    onnx.save(proto, model)
    with pytest.raises(ModelError, match="The file is damaged"):
        load_model(model)


def test_a_file_that_changed_is_told(model, samples, small_is_large):
    file = load_model(model)
    assert not file.changed
    settings = Settings(providers=("cpu",), method="sketch", replay=0, flip=False, bounds=False)
    changed = []

    def meanwhile(told):
        if not changed and told.stage != "opening the model":
            changed.append(model.write_bytes(model.read_bytes() + b"\x22\x00"))  # one field more, of no meaning

    found = audit(model, samples, settings=settings, progress=meanwhile)
    assert found.run.model_changed
    assert found.verdict == "inconclusive"
    assert [f.level for f in found.findings if f.id == "model-changed"] == ["error"]
    assert not replace(file, seen=()).changed


def test_two_weights_in_one_file_without_their_lengths(tmp_path):
    """The length is optional: what the shape takes is read, as the runtime does, and not all that follows."""
    first, second = np.arange(6, dtype=np.float32).reshape(2, 3), np.arange(6, 9, dtype=np.float32)
    (tmp_path / "w.bin").write_bytes(first.tobytes() + second.tobytes())
    for name, value, offset in (("W", first, 0), ("b", second, first.nbytes)):
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=value.shape, data_location=TensorProto.EXTERNAL)
        for key, told in (("location", "w.bin"), ("offset", str(offset))):
            tensor.external_data.add(key=key, value=told)
        np.testing.assert_array_equal(referring.array_of(tensor, tmp_path), value)
        assert tensor.data_location == TensorProto.EXTERNAL, "the file's own weight stays as it is"
