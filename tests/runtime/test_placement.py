"""Where nodes ran: as ONNX Runtime tells it, which of them compute, and what is said where it does not tell."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxfim.errors import ProviderError
from onnxfim.runtime.hardware import Hardware
from onnxfim.runtime.placement import AssignedNode, placement
from onnxfim.runtime.session import open_session
from tests.support.places import SAMPLES
from tests.support.pretended import CPU, OPENVINO, Node, Part, needs_record, pretend

CUDA = "CUDAExecutionProvider"


def flattening(names=True):
    """``x W`` after a flattening by computed shapes, as exporters write it: Shape, Gather, Unsqueeze, Concat, Reshape, MatMul."""
    nodes = [
        ("Shape", ["x"], "s"), ("Gather", ["s", "zero"], "n"), ("Unsqueeze", ["n", "axis"], "rows"),
        ("Concat", ["rows", "rest"], "to"), ("Reshape", ["x", "to"], "flat"), ("Gather", ["flat", "order"], "kept"),
        ("MatMul", ["kept", "W"], "z"),
    ]  # fmt: skip
    constants = {
        "zero": np.array(0), "axis": np.array([0]), "rest": np.array([-1]), "order": np.arange(4),
        "W": np.ones((4, 2), np.float32),
    }  # fmt: skip
    made = [
        helper.make_node(
            op, reads, [out], name=f"node_{out}" if names else "", **({"axis": 0} if op == "Concat" else {}),
            **({"axis": 1} if out == "kept" else {}),
        )
        for op, reads, out in nodes
    ]  # fmt: skip
    graph = helper.make_graph(
        made, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2, 2])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 2])],
        [numpy_helper.from_array(v, k) for k, v in constants.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


class Told:
    """A session that tells these nodes."""

    def __init__(self, providers, *nodes):
        self.providers, self.nodes = providers, nodes

    def get_providers(self):
        return self.providers

    def get_provider_graph_assignment_info(self):
        return [Part(provider, (Node(op, name),)) for provider, op, name in self.nodes]


def on_cuda_but(*on_cpu):
    """The flattening as CUDA takes it, but for these nodes."""
    kinds = {"s": "Shape", "n": "Gather", "rows": "Unsqueeze", "to": "Concat", "flat": "Reshape", "kept": "Gather", "z": "MatMul"}
    return Told([CUDA, CPU], *((CPU if out in on_cpu else CUDA, op, f"node_{out}") for out, op in kinds.items()))


@needs_record
class TestReal:
    def test_a_sample_model_on_the_cpu(self):
        _, report = open_session(SAMPLES / "digits_resnet.onnx", Hardware(("cpu",)))
        (on,) = report.placement.placed
        assert (on.provider, on.nodes, on.asked, on.compute) == (CPU, 21, True, None)
        assert on.operators == {"Conv": 9, "Relu": 7, "Add": 3, "ReduceMean": 1, "Gemm": 1}
        assert list(on.operators.values()) == sorted(on.operators.values(), reverse=True)

    def test_shape_arithmetic_does_not_compute(self):
        """The runtime folds the shapes of a flattening; those of a tensor that is made as large as the sample stay."""
        graph = helper.make_graph(
            [helper.make_node("Shape", ["x"], ["s"], name="s"), helper.make_node("ConstantOfShape", ["s"], ["zeros"], name="zeros"),
             helper.make_node("Add", ["x", "zeros"], ["z"], name="z")], "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2])],
            [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 2])],
        )  # fmt: skip
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
        session, _ = open_session(model, Hardware(("cpu",)))
        (on,) = placement(session, model, ("OtherExecutionProvider",)).placed
        assert on.operators == {"Shape": 1, "ConstantOfShape": 1, "Add": 1}
        assert (on.compute, on.computing) == ({"Add": 1}, 1)


class TestComputeNodes:
    @pytest.mark.parametrize("names", [True, False])
    def test_shape_arithmetic_on_the_cpu_is_on_purpose(self, names):
        found = placement(on_cuda_but("s", "n", "rows", "to"), flattening(names=names), (CUDA,))
        assert found.elsewhere == ()
        assert found.first == CUDA
        assert {p.provider: p.nodes for p in found.placed} == {CUDA: 3, CPU: 4}

    def test_the_same_operator_on_values_is_not(self):
        """Both are Gather: one picks from a shape, the other from the sample."""
        found = placement(on_cuda_but("n", "kept"), flattening(), (CUDA,))
        (other,) = found.elsewhere
        assert (other.provider, other.compute) == (CPU, {"Gather": 1})
        assert found.told(found.elsewhere) == f"1 of 3 compute nodes went to {CPU} (Gather 1)"

    def test_a_provider_with_shapes_alone_is_not_where_it_ran(self):
        found = placement(on_cuda_but("n", "rows", "to", "flat", "kept", "z"), flattening(), (CUDA,))
        assert found.first == CPU

    def test_copies_are_counted_apart(self):
        told = Told([CUDA, CPU], (CUDA, "Conv", "a"), (CUDA, "MemcpyToHost", "m"), (CPU, "Relu", "b"))
        found = placement(told, b"not a model", (CUDA,))
        assert [(p.provider, p.nodes, p.computing) for p in found.placed] == [(CUDA, 2, 1), (CPU, 1, 1)]
        assert found.total == 2

    @pytest.mark.parametrize(
        ("op", "computes"), [("Conv", True), ("com.microsoft.FusedConv", True), ("Concat", False), ("Cast", False)]
    )
    def test_a_node_that_the_file_does_not_have_is_judged_by_its_kind(self, op, computes):
        found = placement(Told([CUDA, CPU], (CUDA, "MatMul", "node_z"), (CPU, op, "made_by_the_runtime")), b"", (CUDA,))
        assert bool(found.elsewhere) == computes

    def test_two_providers_that_were_both_asked_for(self):
        assert placement(on_cuda_but("z"), flattening(), (CUDA, CPU)).elsewhere == ()

    def test_what_a_loop_captures_flows_through_its_body(self):
        body = helper.make_graph(
            [helper.make_node("Identity", ["go"], ["go_on"], name="on"), helper.make_node("Mul", ["x", "two"], ["y"], name="mul"),
             helper.make_node("Identity", ["y"], ["w"], name="keep")],
            "body", [helper.make_tensor_value_info("i", TensorProto.INT64, []), helper.make_tensor_value_info("go", TensorProto.BOOL, [])],
            [helper.make_tensor_value_info("go_on", TensorProto.BOOL, []), helper.make_tensor_value_info("w", TensorProto.FLOAT, None)],
        )  # fmt: skip
        graph = helper.make_graph(
            [helper.make_node("Loop", ["three", "true"], ["z"], name="loop", body=body)], "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2])],
            [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(np.array(3), "three"), numpy_helper.from_array(np.array(True), "true"),
             numpy_helper.from_array(np.float32([2, 2]), "two")],
        )  # fmt: skip
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
        found = placement(Told([CUDA, CPU], (CUDA, "Loop", "loop"), (CPU, "Mul", "mul")), model, (CUDA,))
        assert found.elsewhere[0].compute == {"Mul": 1}


class TestNotKnown:
    def test_an_older_runtime(self):
        class Old:
            def get_providers(self):
                return [CPU]

        assert placement(Old(), b"") is None

    def test_a_runtime_that_did_not_record(self, monkeypatch):
        pretend(monkeypatch, tells=False)
        _, report = open_session(flattening(), Hardware(("openvino",), require=True))
        assert (report.placement, report.obtained) == (None, OPENVINO)


@needs_record
class TestObtained:
    def test_all_nodes(self, monkeypatch):
        pretend(monkeypatch)
        _, report = open_session(flattening(), Hardware(("openvino",), require=True))
        assert (report.obtained, report.explicit, report.reason) == (OPENVINO, False, None)

    def test_no_node_is_not_obtained(self, monkeypatch, told):
        pretend(monkeypatch, leaves=None)
        _, report = open_session(flattening(), Hardware(("openvino",)))
        assert (report.obtained, report.explicit) == (CPU, True)
        assert report.registered == (OPENVINO, CPU)
        assert report.reason.startswith(f"it loaded, but was given no node that computes: 3 of 3 compute nodes went to {CPU} (")
        with pytest.raises(ProviderError, match=told(OPENVINO, "was required and not obtained", "no node that computes", "opset")):
            open_session(flattening(), Hardware(("openvino",), require=True))

    def test_a_part(self, monkeypatch, told):
        pretend(monkeypatch, leaves=frozenset({"MatMul"}))
        _, report = open_session(flattening(), Hardware(("openvino",)))
        assert (report.obtained, report.explicit) == (OPENVINO, False)
        with pytest.raises(ProviderError, match=told(OPENVINO, "required, but 1 of 3 compute nodes went to", CPU, "(MatMul 1)")):
            open_session(flattening(), Hardware(("openvino",), require=True))
        assert open_session(flattening(), Hardware(("openvino", "cpu"), require=True))[1].obtained == OPENVINO

    def test_shapes_that_are_left_to_the_cpu_are_no_part(self, monkeypatch):
        pretend(monkeypatch, leaves=frozenset({"Shape", "Concat", "Unsqueeze"}))
        _, report = open_session(flattening(), Hardware(("openvino",), require=True))
        assert report.placement.elsewhere == ()


def test_a_node_of_another_domain_has_it_in_its_name():
    told = Told([CPU])
    told.get_provider_graph_assignment_info = lambda: [Part(CPU, (Node("Gelu", "g", "com.microsoft"), Node("Add", "a", "ai.onnx")))]
    found = placement(told, b"")
    assert found.placed[0].operators == {"com.microsoft.Gelu": 1, "Add": 1}
    assert AssignedNode(CPU, "Add", "a").operator == "Add"


@pytest.mark.skipif(OPENVINO not in onnxruntime.get_available_providers(), reason="this ONNX Runtime has no OpenVINO")
class TestOpenVino:
    def test_a_float32_model_is_taken_whole(self):
        _, report = open_session(SAMPLES / "digits_resnet.onnx", Hardware(("openvino",), require=True))
        assert [(p.provider, p.nodes) for p in report.placement.placed] == [(OPENVINO, 21)]

    def test_a_float64_model_is_not_taken(self, told):
        W = np.ones((4, 2))
        graph = helper.make_graph(
            [helper.make_node("MatMul", ["x", "W"], ["z"])], "g",
            [helper.make_tensor_value_info("x", TensorProto.DOUBLE, ["N", 4])],
            [helper.make_tensor_value_info("z", TensorProto.DOUBLE, ["N", 2])], [numpy_helper.from_array(W, "W")],
        )  # fmt: skip
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
        assert open_session(model, Hardware(("openvino",)))[1].obtained == CPU
        with pytest.raises(ProviderError, match=told("not obtained", "1 of 1 compute nodes went to", "(MatMul 1)")):
            open_session(model, Hardware(("openvino",), require=True))
