"""One step and one scheme for several models, so that float32, float16 and int8 files are measured alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from onnxfim.auditing.run import planned_step
from onnxfim.auditing.subject import CallableModel
from onnxfim.data import Samples
from onnxfim.errors import InputError
from onnxfim.graph.load import ModelFile
from onnxfim.record.audit import Audit
from onnxfim.record.settings import Settings
from onnxfim.record.steps import StepChoice
from onnxfim.slopes.differences import Scheme

Array: TypeAlias = np.ndarray[Any, Any]

#: From the least to the most noise that each takes out.
_SCHEMES: tuple[Scheme, ...] = ("forward", "central", "dithered")


@dataclass(frozen=True)
class Candidate:
    """A model to compare, with its samples and settings."""

    model: str | Path | ModelFile | CallableModel
    inputs: Array | Samples
    settings: Settings


def at_common_step(
    subjects: Sequence[Candidate], saved: Sequence[Audit] = (), chosen: Sequence[StepChoice] | None = None
) -> list[Settings]:
    """Settings of the subjects with one common step, scheme and seed.

    Args:
        subjects: What is to be measured. A step in the settings of any is taken as given.
        chosen: The step that each subject would choose, where that is known already.
        saved: Audits that were measured already; the others follow them, since these cannot be measured again.

    Returns:
        The settings in order. Without saved audits the step is the largest that any model chose and the scheme the one that takes
        out most noise: what resolves the coarsest model resolves the others as well.
    """
    settings = [s.settings for s in subjects]
    if saved:
        coarsest = max(saved, key=lambda a: (_SCHEMES.index(_scheme(a)), a.run.step))
        return [
            replace(s, step=coarsest.run.step, scheme=_scheme(coarsest), seed=coarsest.run.seed, method=_method(coarsest))
            for s in settings
        ]
    if len(subjects) < 2:
        return settings
    if chosen is None:
        chosen = [planned_step(s.model, s.inputs, s.settings) for s in subjects]
    scheme = max((c.scheme for c in chosen), key=_SCHEMES.index)
    step = max(c.step for c in chosen)
    # A file that rounds has no gradient: what it is compared with is then measured by differences too.
    methods = ["sketch" if scheme == "dithered" and s.method in ("auto", "gradient") else s.method for s in settings]
    return [replace(s, step=step, scheme=scheme, method=m) for s, m in zip(settings, methods, strict=True)]


def _scheme(audit: Audit) -> Scheme:
    for scheme in _SCHEMES:
        if scheme == audit.run.scheme:
            return scheme
    known = f"{', '.join(_SCHEMES[:-1])} or {_SCHEMES[-1]}"
    raise InputError(f"{audit.model.name}: its audit took {audit.run.scheme!r} differences, expected {known}. Audit it again.")


def _method(audit: Audit) -> Any:
    return audit.run.method
