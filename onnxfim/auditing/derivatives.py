"""Derivative graphs that may be used: on the audited model's own provider, or on the CPU where that computes them otherwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from onnxfim.auditing.context import Ground
from onnxfim.auditing.meter import MeteredModel
from onnxfim.errors import OnnxFimError
from onnxfim.gradients.derivative_rules import AUTO
from onnxfim.gradients.selftest import SelfTest
from onnxfim.record.settings import Settings
from onnxfim.runtime.failures import OutOfMemory
from onnxfim.runtime.hardware import Hardware
from onnxfim.runtime.providers import CPU


@dataclass(frozen=True)
class Derived:
    """Derivative graphs with their self-test.

    Attributes:
        model: The graphs, or None where there are none to trust.
        test: Their self-test, where it came so far.
        reason: Why there is no model.
        elsewhere: The provider they run on, where that is not the audited model's.
        why_elsewhere: What the model's own provider did wrong.
    """

    model: MeteredModel | None
    test: SelfTest | None = None
    reason: str | None = None
    elsewhere: str | None = None
    why_elsewhere: str | None = None


def derive(ground: Ground, settings: Settings, tested: Callable[[MeteredModel], SelfTest]) -> Derived:
    """The model's derivative graphs, which passed their self-test on its own provider or, where they do not, on the CPU.

    The CPU tells what is to blame: where the test fails there too, a rule is wrong; where it passes, the provider computes the
    graphs otherwise. The outputs that slopes go with stay those of the audited model, which the test holds the CPU's against:
    where they differ, nothing of the CPU's is used. A provider that has no memory for the graphs is not helped by a slower one.

    Args:
        ground: Of the audit.
        settings: What is differentiated: the file, or its surrogate.
        tested: The self-test of the graphs.
    """
    hardware = ground.hardware
    assert hardware is not None
    try:
        first = _opened(ground, settings, hardware)
    except OnnxFimError as error:  # no derivative of this graph, wherever it runs
        return Derived(None, reason=_line(error))
    own = _judged(first, tested)
    name = _name(hardware)  # not always the model's own: under TensorRT graphs of ours run on CUDA
    if own.model is not None or name == CPU or isinstance(own.failure, OutOfMemory):
        return own.derived()
    there = _judged(_opened(ground, settings, hardware.on(CPU)), tested)
    short = name.removesuffix("ExecutionProvider")
    if there.model is not None and there.test is not None:
        why = f"{short} does not run them ({own.seen})" if own.test is None else f"{short} computes them otherwise: {own.seen}"
        why += "; on the CPU they pass their test"
        if not settings.surrogate:  # which is tested against itself
            why += f", and outputs of the two agree within {there.test.output_error:.1e} of the largest"
        return replace(there.derived(), elsewhere=CPU, why_elsewhere=why)
    if there.test is not None and not there.test.same_outputs:
        apart = f"on {short}, {own.seen}; on the CPU, {there.seen}"
        return Derived(None, there.test, f"self-test failed: {apart}, and slopes of one do not go with outputs of the other")
    return there.derived()


@dataclass(frozen=True)
class _Judged:
    """Graphs on one provider; ``model`` is None where the test failed, ``failure`` the error that ended it."""

    model: MeteredModel | None
    test: SelfTest | None
    failure: OnnxFimError | None = None

    @property
    def seen(self) -> str:
        """What went wrong, whoever is to blame."""
        return _line(self.failure) if self.test is None else self.test.reason

    def derived(self) -> Derived:
        """The same where no other provider is asked: what the test's failure means is then known."""
        if self.model is not None:
            return Derived(self.model, self.test)
        return Derived(None, self.test, _line(self.failure) if self.test is None else f"self-test failed: {self.test.verdict}")


def _name(hardware: Hardware) -> str:
    return hardware.providers[0]


def _judged(model: MeteredModel, tested: Callable[[MeteredModel], SelfTest]) -> _Judged:
    try:
        test = tested(model)
    except OnnxFimError as error:
        return _Judged(None, None, error)
    return _Judged(model if test.passed else None, test)


def _opened(ground: Ground, settings: Settings, hardware: Hardware) -> MeteredModel:
    source = ground.subject.differentiable
    assert source is not None
    return MeteredModel(
        source.proto, meter=ground.meter, input_name=source.input_name, output_name=source.logits, shape=ground.X.shape[1:],
        num_outputs=ground.base[0].size, settings=settings, base_dir=source.base_dir, hardware=hardware,
        turns=ground.subject.turns,
    )  # fmt: skip


def _line(error: OnnxFimError | None) -> str:
    """What failed, without the advice to audit from forward passes: that is what is done then, or said by who raises it."""
    return " ".join(str(error).replace(f" Way out: {AUTO}", "").rstrip(".").split())
