"""Files that protobuf can parse and ONNX does not allow: each kind that the fuzzer found, told in one line."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from onnxfim.errors import ModelError
from onnxfim.graph.load import load_model
from tests.support import models


def net():
    weights = {"W": np.eye(4, 3, dtype=np.float32), "b": np.zeros(3, np.float32)}
    return models.model(
        [("Relu", ["x"], ["h"], {}), ("Gemm", ["h", "W", "b"], ["z"], {"alpha": 1.0})], weights, shape=(4,), out=(3,)
    )


def constant(**value):
    def change(m):
        node = helper.make_node("Constant", [], ["c"])
        node.attribute.extend([AttributeProto(name=k, **v) for k, v in value.items()])
        m.graph.node.insert(0, node)

    return change


def changed(edit):
    def change(m):
        edit(m.graph.node[1], m.graph.initializer[0], m)

    return change


def calls(functions):
    """Functions by name, each a list of what it calls; the graph calls the last."""

    def change(m):
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
        for name, called in functions.items():
            body = [
                helper.make_node(op, [f"v{k}" if k else "a"], [f"v{k + 1}"], domain="own" if op in functions else "")
                for k, op in enumerate(called)
            ]
            m.functions.append(helper.make_function("own", name, ["a"], [f"v{len(called)}"], body, opsets))
        m.graph.node[0].op_type, m.graph.node[0].domain = list(functions)[-1], "own"
        m.opset_import.append(helper.make_opsetid("own", 1))

    return change


_A = AttributeProto
BROKEN = {
    "a Constant without a value": (constant(), ("node 'c'", "has as value none", "expected one of")),
    "a Constant with an unknown value": (constant(nothing={"type": _A.INT, "i": 1}), ("has as value 'nothing'", "expected one of")),
    "a Constant with two values": (
        constant(value_int={"type": _A.INT, "i": 1}, value_float={"type": _A.FLOAT, "f": 1}), ("has as value 'value_int', 'value_float'",),
    ),
    "a Constant without its tensor": (constant(value={"type": _A.TENSOR}), ("attribute 'value'", "of type TENSOR and holds nothing", "expected t")),
    "a Constant of another type": (constant(value_int={"type": _A.FLOAT, "f": 1}), ("attribute 'value_int' is of type FLOAT", "expected INT")),
    "a value of another type": (constant(value_ints={"type": _A.INTS, "f": 1}), ("holds f", "expected ints")),
    "a tensor of no type": (constant(value={"type": _A.TENSOR, "t": TensorProto(dims=[1])}), ("element type 0", "does not know")),
    "a reference outside functions": (constant(value={"type": _A.TENSOR, "ref_attr_name": "alpha"}), ("refers to one of a function",)),
    "an attribute of no type": (changed(lambda n, t, m: n.attribute[0].ClearField("type")), ("attribute 'alpha' is of no type",)),
    "an attribute twice": (changed(lambda n, t, m: n.attribute.append(n.attribute[0])), ("attribute 'alpha' is there twice",)),
    "no inputs": (lambda m: m.graph.node[0].ClearField("input"), ("op 'Relu'", "has 0 inputs", "expected 1")),
    "too many inputs": (changed(lambda n, t, m: n.input.extend(["x", "x"])), ("op 'Gemm'", "has 5 inputs", "expected 3 at most")),
    "no outputs": (lambda m: m.graph.node[0].ClearField("output"), ("has no output",)),
    "no operator": (lambda m: m.graph.node[0].ClearField("op_type"), ("names no operator",)),
    "an attribute that must be there": (lambda m: m.graph.node.append(helper.make_node("Cast", ["x"], ["y"])), ("lacks attribute 'to'",)),
    "a negative length": (changed(lambda n, t, m: t.dims.append(-1)), ("tensor 'W'", "has shape (4, 3, -1)", "no negative length")),
    "an empty tensor too large for an array": (
        changed(lambda n, t, m: (t.ClearField("raw_data"), t.dims.__setitem__(slice(None), [2**63 - 1, 0, 3]))),
        ("tensor 'W'", "has shape (9223372036854775807, 0, 3)", "expected at most 64 axes and 5.8e+17 numbers"),
    ),
    "more axes than an array has": (changed(lambda n, t, m: t.dims.extend([1] * 63)), ("tensor 'W'", "expected at most 64 axes")),
    "too few bytes": (changed(lambda n, t, m: setattr(t, "raw_data", t.raw_data[:7])), ("holds 7 bytes", "expected 48 for shape (4, 3)")),
    "too many numbers": (
        changed(lambda n, t, m: (t.ClearField("raw_data"), t.float_data.extend([1.0] * 13))), ("holds 13 numbers in float_data", "expected 12"),
    ),
    "packed numbers that are too few": (
        constant(value={"type": _A.TENSOR, "t": TensorProto(data_type=TensorProto.INT4, dims=[5], int32_data=[1])}),
        ("its tensor cannot be read", "of type INT4 for shape (5)"),
    ),
    "raw text": (changed(lambda n, t, m: setattr(t, "data_type", TensorProto.STRING)), ("holds text as raw bytes",)),
    "an output that nobody writes": (lambda m: setattr(m.graph.output[0], "name", "nobody"), ("no node writes the output 'nobody'",)),
    "a function that calls itself": (calls({"F": ["F"]}), ("function 'own.F'", "calls itself")),
    "functions that call twice": (
        calls({"F0": ["Relu"], **{f"F{k}": [f"F{k - 1}"] * 2 for k in range(1, 40)}}), ("stand for 549,755,813,889 nodes", "15,000 at most"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_told_in_one_line(saved, told, name):
    change, words = BROKEN[name]
    made = net()
    change(made)
    with pytest.raises(ModelError, match=told("model.onnx: ", *words)):
        load_model(saved(made))


@pytest.mark.parametrize("name", [b"h", b"W", b"Relu_0", b"Gemm"])
def test_names_that_are_no_text(tmp_path, told, name):
    content = net().SerializeToString().replace(name, b"\xff" * len(name))
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=told("m.onnx: ", "no UTF-8 text", "expected UTF-8")):
        load_model(tmp_path / "m.onnx")


def test_remarks_that_are_no_text_are_read_as_far_as_they_can_be(tmp_path):
    made = net()
    made.producer_name, made.graph.node[0].doc_string = "Pytorch", "a remark"
    content = made.SerializeToString().replace(b"Pytorch", b"Pyt\xf6rch").replace(b"a remark", b"\xff remark")
    (tmp_path / "m.onnx").write_bytes(content)
    file = load_model(tmp_path / "m.onnx")
    assert file.producer == "Pyt�rch"
    assert file.proto.graph.node[0].doc_string == "� remark"


@pytest.mark.parametrize(
    "dtype", ["float16", "float64", "int8", "uint8", "int32", "int64", "uint32", "bool", "complex64", "object"]
)
@pytest.mark.parametrize("raw", [True, False])
def test_every_way_to_store_a_tensor_is_taken(saved, dtype, raw):
    made = net()
    value = np.array([[b"a", b"b"]], object) if dtype == "object" else np.ones((2, 3), dtype)
    kind = helper.np_dtype_to_tensor_dtype(value.dtype) if dtype != "object" else TensorProto.STRING
    tensor = numpy_helper.from_array(value, "t") if raw else helper.make_tensor("t", kind, value.shape, value.ravel())
    made.graph.initializer.append(tensor)
    load_model(saved(made))


@pytest.mark.parametrize("kind", ["INT4", "UINT4", "FLOAT8E4M3FN", "BFLOAT16"])
@pytest.mark.parametrize("raw", [True, False])
def test_packed_and_short_types_are_taken(saved, kind, raw):
    made = net()
    data_type = TensorProto.DataType.Value(kind)
    values = [1] * 3
    if raw:
        size = 2 if kind != "BFLOAT16" and "8" not in kind else 3 if "8" in kind else 6
        tensor = TensorProto(name="t", data_type=data_type, dims=[3], raw_data=bytes(size))
    else:
        tensor = helper.make_tensor("t", data_type, [3], values)
    made.graph.initializer.append(tensor)
    load_model(saved(made))


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
OTHERS = {
    "a pointer": (POINTER, "Git LFS pointer", "git lfs pull"),
    "a zip": (b"PK\x03\x04\x14\0", "zip archive", "Export"),
    "a web page": (b"\n<!DOCTYPE html>\n<html>", "web page", "Download"),
    "a pickle": (b"\x80\x04\x95\x10\0\0\0\0\0\0\0}\x94.", "pickle", "Export"),
    "safetensors": (b"\x20\0\0\0\0\0\0\0" + b'{"__metadata__":{"format":"pt"}}', "safetensors", "Export"),
    "TFLite": (b"\x1c\0\0\0TFL3\x14\0", "TensorFlow Lite", "tf2onnx"),
    "HDF5": (b"\x89HDF\r\n\x1a\n", "HDF5", "tf2onnx"),
    "NumPy": (b"\x93NUMPY\x01\0", "NumPy array", "--data"),
    "gzip": (b"\x1f\x8b\x08\0", "gzip", "gunzip"),
    "JSON": (b'{"schema_version": "2.0"}', "JSON", "convert"),
    "text": (b"404: Not Found", "text", "Export"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_files_are_called_what_they_are(tmp_path, told, name):
    content, kind, todo = OTHERS[name]
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=told("m.onnx: is ", kind, todo)):
        load_model(tmp_path / "m.onnx")


def outside(tmp_path, **entries):
    """The net with its first weight in ``w.bin``, which the entries may contradict."""
    made = net()
    tensor = made.graph.initializer[0]
    (tmp_path / "w.bin").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in ({"location": "w.bin"} | entries).items():
        if value is not None:
            tensor.external_data.append(onnx.StringStringEntryProto(key=key, value=value))
    (tmp_path / "m.onnx").write_bytes(made.SerializeToString())
    return tensor, made


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"location": None}, ("weight 'W'", "does not say where")),
        ({"offset": "x"}, ("the offset of its external data is 'x'", "expected a number of bytes")),
        ({"length": "-4"}, ("the length of its external data is '-4'", "expected a number of bytes")),
        ({"offset": "1" + "0" * 30}, ("expected a number of bytes",)),
        ({"length": "20"}, ("said to be 20 bytes long", "expected 48 for its shape")),
        ({"offset": "4"}, ("'w.bin', which has 48 bytes", "expected 52 at least", "copy it again")),
        ({"location": "folder"}, ("'folder', which is no file",)),
        ({"location": "pointer"}, ("'pointer', which is a Git LFS pointer", "git lfs pull")),
    ],
)
def test_weights_in_other_files(tmp_path, told, entries, words):
    (tmp_path / "folder").mkdir()
    (tmp_path / "pointer").write_bytes(POINTER)
    outside(tmp_path, **entries)
    with pytest.raises(ModelError, match=told("m.onnx: ", *words)):
        load_model(tmp_path / "m.onnx")


def test_weights_in_another_file_whose_length_is_not_told(tmp_path):
    outside(tmp_path)
    assert load_model(tmp_path / "m.onnx").graph.constant("W").shape == (4, 3)


@pytest.mark.parametrize("name", ["m" * 5000, "m\0.onnx"])
def test_a_path_that_cannot_be(tmp_path, name):
    with pytest.raises(ModelError, match=r"cannot be read|no path of this system|no such file"):
        load_model(tmp_path / name)
