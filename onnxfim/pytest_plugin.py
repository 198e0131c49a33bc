"""A pytest fixture: ``def test_model(onnxfim): onnxfim.audit("m.onnx", "data.npz").check("lambda_max.mean < 5")``."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import numpy as np

    from onnxfim.data import Samples
    from onnxfim.record.audit import Audit


class InconclusiveWarning(UserWarning):
    """What was measured does not decide: a bound inside the interval, or an audit that is unsound."""


@dataclass(frozen=True)
class Audited:
    """An audit to make assertions about; ``result`` is the audit itself."""

    result: Audit

    def check(self, *relations: str, allow_inconclusive: bool = False) -> Audited:
        """Assert relations that must hold, such as ``lambda_max.p95 < 12.5`` or ``clean_accuracy >= 90%``.

        The test fails where a relation holds nowhere in its 95 % interval or only in a part of it, and where the audit is unsound.

        Args:
            relations: What must hold.
            allow_inconclusive: Warn (`InconclusiveWarning`) and go on where what was measured does not decide.

        Returns:
            This object, so that checks can be chained.

        Raises:
            AssertionError: which relation is broken or open, with the measured interval, or why the audit is unsound.
        """
        __tracebackhide__ = True
        from onnxfim.report.gate_words import decided_words, units_of, value_words
        from onnxfim.verdict.expect import expect

        decided = [expect(self.result, relation) for relation in relations]
        for one in decided:
            if one.verdict == "fail":
                raise AssertionError(f"{one.text} does not hold: it is {value_words(one, units_of(self.result, one.name))}")
        unsound = [f"the audit is unsound: {f.message}" for f in self.result.findings if f.level == "error"]
        undecided = [
            f"{d.text} is not decided: it is {decided_words(d, units_of(self.result, d.name))}"
            for d in decided
            if d.verdict != "pass"
        ]
        for message in (*unsound[:1], *undecided):
            if not allow_inconclusive:
                raise AssertionError(message)
            warnings.warn(message, InconclusiveWarning, stacklevel=2)
        return self


class Auditor:
    """What the `onnxfim` fixture gives."""

    def audit(
        self, model: str | Path, data: str | Path | np.ndarray[Any, Any] | Samples, labels: Any = None, **settings: Any
    ) -> Audited:
        """Audit a model.

        Args:
            model: An ONNX file.
            data: Samples as an array, an iterable such as a DataLoader, a path of them (as of `onnxfim.load_samples`), or
                `onnxfim.data.Samples`.
            labels: Class indices, where ``data`` is an array.
            settings: Fields of `onnxfim.Settings`, such as ``samples=200, budget=64``.
        """
        from onnxfim.auditing.run import audit
        from onnxfim.record.settings import Settings

        chosen = Settings(**settings)
        samples = _load(model, data, chosen) if isinstance(data, (str, Path)) else data
        return Audited(audit(model, samples, labels, chosen))


def _load(model: str | Path, data: str | Path, settings: Any) -> Samples:
    from onnxfim.auditing.api import load_samples
    from onnxfim.auditing.run import CALIBRATION_SAMPLES

    limit = None if settings.samples is None else max(settings.samples, CALIBRATION_SAMPLES)
    return load_samples(data, model, input=settings.input, limit=limit)


@pytest.fixture(scope="session")
def onnxfim() -> Auditor:
    """Audits ONNX models: ``onnxfim.audit(model, data).check("lambda_max.mean < 5")``."""
    return Auditor()
