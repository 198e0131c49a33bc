"""Audits on OpenVINO, a provider other than the CPU's that runs on any processor: where nodes go, values, derivatives."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest

from tests.support import models
from tests.support.places import SAMPLES

pytestmark = pytest.mark.slow

PROVIDER = "OpenVINOExecutionProvider"
#: Name, samples and method of each audit that is made on both providers.
AUDITS = {
    "digits_resnet": (16, "auto"),
    "digits_vit": (8, "auto"),
    "digits_resnet_int8": (24, "auto"),
}

AUDIT_BOTH = """
import json, sys
import numpy as np
import onnxfim
folder, wanted, save = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
with np.load(f"{folder}/digits.npz") as data:
    X, y = data["inputs"], data["labels"]
for name, (samples, method) in wanted.items():
    for provider in ("cpu", "openvino"):
        settings = onnxfim.Settings(samples=samples, method=method, providers=(provider,), flip=False, replay=0, bounds=False)
        onnxfim.audit(f"{folder}/{name}.onnx", X[:100], y[:100], settings).save(f"{save}/{name}.{provider}.json")
print("{}")
"""

# The derivative of a strided square convolution reads its weight both ways: Jᵀu of the graph as it is, and as it is written for
# OpenVINO, on OpenVINO, each against the CPU.
BOTH_WAYS = """
import json
import numpy as np
import onnxruntime as ort
from onnx import helper, numpy_helper
from onnxfim.gradients import derivative_graph
from onnxfim.gradients.openvino import for_openvino
rng = np.random.default_rng(0)
info = helper.make_tensor_value_info
weights = {"w": rng.standard_normal((8, 8, 3, 3)) / 8, "d": rng.standard_normal((128, 128)) / 11, "e": rng.standard_normal((128, 5)) / 11}
nodes = [
    helper.make_node("Conv", ["x", "w"], ["a"], name="conv", strides=[2, 2], pads=[1, 1, 1, 1]),
    helper.make_node("Flatten", ["a"], ["f"], name="flatten"),
    helper.make_node("Gemm", ["f", "d"], ["h"], name="dense", transB=1),
    helper.make_node("Relu", ["h"], ["r"], name="relu"),
    helper.make_node("MatMul", ["r", "e"], ["z"], name="last"),
]
tensors = [numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items()]
graph = helper.make_graph(nodes, "g", [info("x", 1, ["N", 8, 8, 8])], [info("z", 1, ["N", 5])], tensors)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
vjp = derivative_graph(model, input_name="x", output_name="z", kind="vjp", sample_shape=(8, 8, 8))
feeds = {"x": rng.standard_normal((4, 8, 8, 8)).astype(np.float32), "u": rng.standard_normal((2, 4, 5)).astype(np.float32)}
def slopes(model, provider):
    options = ort.SessionOptions()
    options.log_severity_level = 4
    return ort.InferenceSession(model.SerializeToString(), options, providers=[provider]).run(["g"], feeds)[0]
truth = slopes(vjp, "CPUExecutionProvider")
errors = [float(np.abs(slopes(m, "OpenVINOExecutionProvider") - truth).max() / np.abs(truth).max()) for m in (vjp, for_openvino(vjp))]
print(json.dumps(errors))
"""


@pytest.fixture(scope="module")
def audits(openvino, tmp_path_factory):
    """The audits on both providers: JSON by name and provider."""
    folder = tmp_path_factory.mktemp("audits")
    openvino.told(AUDIT_BOTH, str(SAMPLES), json.dumps(AUDITS), str(folder), cwd=folder)

    def both(name):
        read = {p: json.loads((folder / f"{name}.{p}.json").read_text("utf-8")) for p in ("cpu", "openvino")}
        return SimpleNamespace(**read)

    return both


def test_the_runtime_is_openvinos_alone(openvino, tmp_path):
    script = "import json, onnxruntime as o; print(json.dumps([o.__file__, o.get_available_providers()]))"
    path, providers = openvino.told(script, cwd=tmp_path)
    assert path.startswith(str(openvino.folder))
    assert providers == [PROVIDER, "CPUExecutionProvider"]


@pytest.mark.parametrize("name", ["digits_resnet", "digits_vit"])
def test_all_compute_nodes_of_a_float_file_are_its(audits, name):
    run = audits(name).openvino["run"]
    assert run["provider"] == PROVIDER
    placed = {p["provider"]: p for p in run["placement"]}
    assert placed[PROVIDER]["nodes"] > 0
    assert all(sum((p["compute"] or p["operators"]).values()) == 0 for name, p in placed.items() if name != PROVIDER)


def test_nodes_of_an_int8_file_are_told(audits):
    run = audits("digits_resnet_int8").openvino["run"]
    assert run["provider"] == PROVIDER
    assert sum(p["nodes"] for p in run["placement"]) > 0


@pytest.mark.parametrize("name", ["digits_resnet", "digits_vit"])
def test_values_are_the_cpus(audits, name):
    found = audits(name)
    assert found.openvino["run"]["method"] == found.cpu["run"]["method"] == "gradient"
    means = [a["aggregates"]["lambda_max"]["mean"]["value"] for a in (found.openvino, found.cpu)]
    assert means[0] == pytest.approx(means[1], rel=1e-2)
    for theirs, ours in zip(found.openvino["samples"], found.cpu["samples"], strict=True):
        # Two float32 arithmetics: a sample near a kink may stand on its other side.
        assert theirs["lambda_max"]["value"] == pytest.approx(ours["lambda_max"]["value"], rel=5e-2)


def test_an_int8_file_is_measured_as_the_provider_computes_it(audits):
    """Its rounding differs from the CPU's, sample by sample by a factor; the means lie within each other's intervals."""
    found = audits("digits_resnet_int8")
    theirs, ours = (a["aggregates"]["lambda_max"]["mean"] for a in (found.openvino, found.cpu))
    assert theirs["value"] == pytest.approx(ours["value"], rel=0.15)
    assert theirs["low"] <= ours["value"]
    assert ours["low"] <= theirs["value"]


@pytest.mark.parametrize("name", ["digits_resnet", "digits_vit"])
def test_derivatives_are_right_on_openvino_itself(audits, name):
    gradient = audits(name).openvino["gradient"]
    assert gradient["used"]
    assert gradient["adjoint_error"] < 1e-5
    assert gradient.get("provider") is None
    assert not [f for f in audits(name).openvino["findings"] if f["id"] in ("no-gradient", "derivatives-elsewhere")]


def test_rows_agree(audits):
    rows = audits("digits_resnet").openvino["rows"]
    assert rows["repeated"] == rows["identical"] == 0
    assert max(rows["neighbours"], rows["alone"]) <= 1e-5 * rows["scale"]  # kernels for one row may add in another order


def test_a_weight_read_both_ways_is_what_openvino_computes_wrong(openvino, tmp_path):
    """The cause of what `for_openvino` does: where this fails, OpenVINO was mended and it can go."""
    as_it_is, written_apart = openvino.told(BOTH_WAYS, cwd=tmp_path)
    assert as_it_is > 0.1
    assert written_apart < 1e-5


def test_derivatives_that_it_computes_wrong_are_taken_on_the_cpu(openvino, tmp_path):
    """With the graphs as they are, the provider is named, no rule is blamed, and the values are those of the CPU's derivative."""
    script = f"""
import json
import numpy as np
import onnxfim
from onnxfim.gradients import differentiable
differentiable.for_openvino = lambda model: model
with np.load({str(SAMPLES / "digits.npz")!r}) as data:
    X, y = data["inputs"][:100], data["labels"][:100]
found = {{}}
for provider in ("cpu", "openvino"):
    settings = onnxfim.Settings(samples=16, providers=(provider,), flip=False, replay=0, bounds=False)
    a = onnxfim.audit({str(SAMPLES / "digits_resnet.onnx")!r}, X, y, settings)
    found[provider] = [a.run.provider, a.run.method, a.gradient.provider, a.gradient.provider_reason,
                       [f.message for f in a.findings if f.id == "derivatives-elsewhere"], a.aggregates["lambda_max"].mean.value]
print(json.dumps(found))
"""
    found = openvino.told(script, cwd=tmp_path)
    ran, method, where, why, messages, mean = found["openvino"]
    assert (ran, method, where) == (PROVIDER, "gradient", "CPUExecutionProvider")
    assert why.startswith("OpenVINO computes them otherwise: ⟨u, Jv⟩ and ⟨Jᵀu, v⟩ differ by")
    assert "on the CPU they pass their test, and outputs of the two agree within" in why
    assert len(messages) == 1
    assert "No derivative rule is to blame" in messages[0]
    assert mean == pytest.approx(found["cpu"][-1], rel=1e-2)


def test_a_float64_file_is_refused_where_the_provider_is_required(openvino, saved, npz, tmp_path):
    """OpenVINO loads and takes none of its nodes, so that the CPU would run it all."""
    model = models.Mlp.draw(5, 12)
    path, data = saved(model.onnx(dtype="float64")), npz(model.samples(24).astype(np.float64))
    arguments = ["-m", "onnxfim", "audit", str(path), "--data", str(data), "--provider", "openvino", "--no-cache"]
    done = openvino(*arguments, "--require-provider", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    line = next(line for line in done.stderr.splitlines() if "provider" in line)
    assert f"provider {PROVIDER} was required and not obtained" in line
    assert re.search(
        r"it loaded, but was given no node that computes: (\d+) of \1 compute nodes went to CPUExecutionProvider \(", line
    )
