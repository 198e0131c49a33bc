"""Wrong derivative rules are refused: faults of every kind planted into the rule of each operator of small networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnxfim.gradients import differentiable, nodewise
from onnxfim.gradients.derivative_rules import RULES
from onnxfim.gradients.differentiable import DifferentiableModel
from onnxfim.record.settings import Settings
from onnxfim.runtime.hardware import Hardware
from tests.support.gradient_nets import session
from tests.support.planted import FAULTS, NETS, NoFault, operators

EVERY = 2  # one of two faults is planted, which is enough and half as long; 1 plants all
LEAST = 100 // EVERY  # planted faults in each network that change its derivative
_MATTERS = 2e-3  # of the derivative: less is no fault that a value would show


def drawn(name):
    """A network, its samples, and what it gives."""
    net, output = NETS[name](np.random.default_rng(len(name)))
    X = np.random.default_rng(1).standard_normal((4, *net.shape)).astype(np.float32)
    model = net.model(output)
    run = session(model)
    return model, output, X, lambda rows: run.run(None, {"x": rows})[0].reshape(len(rows), -1)


def derived(model, output, X, original):
    z = original(X)
    return DifferentiableModel(
        model, input_name="x", output_name=output, shape=X.shape[1:], num_outputs=z.shape[1], settings=Settings(),
        base_dir=Path(), hardware=Hardware(("cpu",)),
    )  # fmt: skip


def products(model, X):
    """Products with random vectors both ways, which tell one derivative from another."""
    rng = np.random.default_rng(2)
    v = rng.standard_normal((2, *X.shape)).astype(np.float32)
    u = rng.standard_normal((2, len(X), model.num_outputs)).astype(np.float32)
    return model.jvp(X, v)[1], model.vjp(X, u)[1]


def apart(a, b):
    """The larger relative difference of two pairs of products."""
    return max(np.linalg.norm(p - q) / np.linalg.norm(p) for p, q in zip(a, b, strict=True))


@pytest.mark.parametrize("name", NETS)
def test_right_rules_are_accepted(name):
    model, output, X, original = drawn(name)
    for seed in range(5):
        found = derived(model, output, X, original).self_test(X, original, seed=seed)
        assert found.passed, found
        assert found.difference_error < (2e-4 if name != "rounded" else 1e-3)  # a fifth of the tolerance, where rounding leaves it


@pytest.fixture(scope="module")
def quick():
    """What is the same for every fault of a network is done once: the graph is prepared; ONNX Runtime rearranges no graph."""
    known, plain = {}, differentiable.prepare

    def prepare(model, **options):
        key = id(model), repr(sorted(options.items()))
        if key not in known:
            known[key] = model, plain(model, **options)  # the model is kept, so that its id stays its own
        return known[key][1]

    with pytest.MonkeyPatch.context() as patch:
        for module in (differentiable, nodewise):
            patch.setattr(module, "prepare", prepare)
        patch.setattr("onnxfim.runtime.session.MOST_NODES", 0)
        yield


@pytest.fixture(scope="module", params=NETS)
def judged(request, quick):
    """Operator and fault of every fault that changes the derivative, with the self-test's word on it, in one network."""
    model, output, X, original = drawn(request.param)
    right = products(derived(model, output, X, original), X)
    found = {}
    for k, op in enumerate(operators(model, output)):
        honest = RULES[op]
        for fault in FAULTS[k % EVERY :: EVERY]:
            spoiled = fault.plant(honest)
            if spoiled is None:
                continue
            with pytest.MonkeyPatch.context() as patch:
                patch.setitem(RULES, op, spoiled)
                try:
                    wrong = derived(model, output, X, original)
                    distance = apart(right, products(wrong, X))
                except NoFault:
                    continue
                if distance > _MATTERS:
                    found[op, fault.name] = wrong.self_test(X, original, seed=0)
    return found


@pytest.mark.slow
@pytest.mark.untraced
def test_planted_faults_are_refused(judged):
    accepted = [key for key, test in judged.items() if test.passed]
    print(f"\n{len(judged) - len(accepted)} of {len(judged)} planted faults refused")
    assert accepted == []
    assert len(judged) >= LEAST
    told = [op in test.reason or "⟨u, Jv⟩" in test.reason or "not finite" in test.reason for (op, _), test in judged.items()]
    assert all(told), "the reason names the operator, or the identity that fails"
