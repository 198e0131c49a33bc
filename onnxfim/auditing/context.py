"""What every stage of an audit is given: the model, the samples, the settings, who counts and who remembers."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import numpy as np

from onnxfim.auditing.cache import Memory
from onnxfim.auditing.coupling import Coupling
from onnxfim.auditing.faults import Faults
from onnxfim.auditing.meter import Meter, MeteredForward
from onnxfim.auditing.store import FileStore
from onnxfim.auditing.subject import Subject
from onnxfim.auditing.summary import custom_libraries, package_versions
from onnxfim.auditing.tied_samples import TiedSamples
from onnxfim.data import Samples
from onnxfim.errors import OnnxFimError
from onnxfim.graph.joint import JOINT
from onnxfim.graph.quantised import takes_scales_from_the_batch
from onnxfim.record.audit import AttackSummary, Calibration, DirectionPicture, GradientInfo
from onnxfim.record.guarantee_summaries import VerifierSummary
from onnxfim.record.input_pictures import DirectionSummary
from onnxfim.record.row_check import RowCheck
from onnxfim.record.sample import SampleResult, Skipped
from onnxfim.record.settings import Settings
from onnxfim.record.steps import StepChoice
from onnxfim.runtime.failures import OutOfMemory, ProviderFailed
from onnxfim.runtime.forgiving import ForgivingForward
from onnxfim.runtime.forward import OnnxForward
from onnxfim.runtime.hardware import Hardware
from onnxfim.runtime.providers import ProviderReport
from onnxfim.runtime.rows import Forward, PlacedForward
from onnxfim.runtime.stopping import Stopped
from onnxfim.served.terms import SERVED
from onnxfim.slopes.differences import Request, Sample, Scheme
from onnxfim.slopes.kinds import OutputReader
from onnxfim.slopes.ladder_rows import LadderRows
from onnxfim.slopes.spread import Spread

Array: TypeAlias = np.ndarray[Any, Any]


#: What ends an audit early (`Stopped` among them, which is a KeyboardInterrupt); what was finished by then is kept.
ENDS = (KeyboardInterrupt, ProviderFailed, OutOfMemory)


@dataclass(frozen=True)
class Context:
    """One audit under way. Samples are named by their position among the inputs."""

    subject: Subject
    samples: Samples
    settings: Settings
    meter: Meter
    memory: Memory
    faults: Faults = field(default_factory=Faults, kw_only=True)

    @property
    def X(self) -> Array:
        """All inputs, (N, *shape)."""
        return self.samples.inputs

    @property
    def positions(self) -> Array:
        """Those of all samples, (N,): rows go to the model with the position of the sample that they are, or stand beside."""
        return np.arange(len(self.X))

    @property
    def joint(self) -> bool:
        """Whether several inputs are perturbed together."""
        return self.subject.info.input == JOINT

    @property
    def placed(self) -> Forward:
        """The audited model for who calls it with rows of ``X`` as they stand."""
        return PlacedForward(self.forward, self.positions)

    @property
    def forward(self) -> Forward:
        """The audited model; its rows are counted, and NaN where the runtime fails on them."""
        info = self.subject.info
        return MeteredForward(ForgivingForward(self.subject.forward, (info.num_outputs, info.positions)), self.meter)

    @property
    def reader(self) -> OutputReader:
        """What the outputs are."""
        return self.subject.reader

    @property
    def report(self) -> ProviderReport | None:
        """Where the model runs, or None for a function."""
        return self.subject.forward.report if isinstance(self.subject.forward, OnnxForward) else None

    @property
    def hardware(self) -> Hardware | None:
        """Where graphs of ours run beside the model, or None for a function."""
        return self.subject.forward.hardware if isinstance(self.subject.forward, OnnxForward) else None

    @property
    def provider(self) -> str:
        if self.report is None:
            return "callable" if self.subject.info.served is None else SERVED
        return self.report.obtained

    @property
    def dimension(self) -> int:
        """Numbers in a sample."""
        return int(np.prod(self.X.shape[1:]))

    def index(self, position: int) -> int:
        """Position in the data as given; it names the sample's streams, so that skipping others changes nothing."""
        return int(self.samples.indices[position])

    def sample(self, position: int) -> Sample:
        """The sample as one to measure."""
        label = None if self.samples.labels is None else int(self.samples.labels[position])
        return Sample(int(position), self.index(position), self.samples.names[position], label)

    def request(self, position: int, start: int, count: int) -> Request:
        """Directions ``start … start + count`` of the sample."""
        return Request(self.sample(position), start, count)

    def store(self, *, outputs: bool = False, **identity: object) -> FileStore | None:
        """The cache's store for this model, run in this way; None without a cache, or for a function, which has no hash.

        ``outputs`` are given up before what was computed of them.
        """
        if self.report is None:
            return None  # answers of a served model are kept request by request
        info = self.subject.info
        held = None if self.subject.file is None else self.subject.file.held_hash
        model = (
            info.sha256,
            *filter(None, [held]),
            info.input,
            info.output,
            info.read_from,
            info.rewritten,
            info.class_axis,
            info.batch_axis,
        )
        given = [(o.provider, o.key, o.value) for o in self.report.options if not o.ours]
        operators = [library.sha256 for library in custom_libraries(self.settings.custom_op_libraries)]
        runtime = (
            self.report.obtained, self.settings.tf32, platform.machine(), package_versions(), given, self.report.plugin, *operators,
        )  # fmt: skip
        whole = {"model": model, "runtime": runtime, "rows": self._rows_that_matter(), **identity}
        return self.memory.store(whole, outputs=outputs)

    def _rows_that_matter(self) -> int | None:
        """Rows a call, where answers depend on them: of files that take scales of quantisation from the batch."""
        file = self.subject.file
        return self.settings.batch if file is not None and takes_scales_from_the_batch(file.proto) else None

    def say(self, stage: str) -> None:
        """Report the progress."""
        self.meter.say(stage)

    def facts(self) -> str:
        """How it is run, for the log."""
        return f"batch {self.subject.forward.batch}, {self.provider}"


@dataclass(frozen=True)
class Clean:
    """What the samples themselves gave.

    Attributes:
        base: Outputs of all samples, (N, K, P).
        usable: Positions whose outputs are numbers.
        audited: Those of them that are audited.
        skipped: Samples that are not usable, those that could not be read among them.
        scales: How far the audited samples spread, feature by feature.
        around: Positions of audited samples that tell how far each coordinate goes; None where those are ``audited``.
    """

    base: Array
    usable: Array
    audited: Array
    skipped: tuple[Skipped, ...]
    scales: Spread
    around: Array | None = None


@dataclass(frozen=True)
class Ground(Context):
    """A context in which measuring can begin: clean outputs, temperature and step are known.

    ``rows`` tells how far rows depend on the batch that they are in, None where that could not be tried; ``ties`` which samples are
    tied; ``ladder`` knows the outputs by which the step was chosen, ``brief`` whether it was chosen for a check of gradients alone.
    ``coupling`` is what all samples together decide, where the audited ones are a part of them; else None. ``foreseen`` are the
    forward passes of the audit, as far as they were known before the first sample was measured.
    """

    clean: Clean
    calibration: Calibration
    step: StepChoice
    rows: RowCheck | None = None
    ties: TiedSamples = field(default_factory=TiedSamples)
    ladder: LadderRows = field(default_factory=LadderRows)
    brief: bool = False
    coupling: Coupling | None = None
    foreseen: int = 0

    @property
    def base(self) -> Array:
        """Outputs of all samples, (N, K, P)."""
        return self.clean.base

    @property
    def scales(self) -> Spread:
        """How far the inputs spread, feature by feature."""
        return self.clean.scales

    @property
    def spread(self) -> Array | None:
        """By how much each coordinate is moved for a step of one deviation, broadcastable to a sample; None where one fits all."""
        return self.clean.scales.steps

    def facts(self) -> str:
        return f"step {self.step.step:.3g} per coordinate, {self.step.scheme} differences, {super().facts()}"


@dataclass(frozen=True)
class Found:
    """What the stages found so far; each returns it with its own part added.

    Attributes:
        method: How the samples were measured.
        gradient: How the derivative was obtained and checked.
        results: Of the samples that were measured, by position.
        skipped: Samples that could not be measured.
        interrupted: It ended early: the user's doing, or that of the provider.
        stopped: What was said where a failure of the provider ended it.
        interrupted_by: The signal that ended it, where that is known.
        pictures: Of worst directions.
        direction_summary: Worst directions over all samples that have one, of inputs that are tables.
        attack: What the attack replay found, or None.
        verifier: What a verifier was asked and said, or None.
        scheme: How differences were taken where samples were measured by them.
        ratios: Of sketched values to those of gradients, by the sample's index, where they were checked against each other.
        leads: Of samples measured by differences, weights of their directions, (2, m): where to look for flips.
    """

    method: Literal["gradient", "exact", "sketch"]
    gradient: GradientInfo
    results: Mapping[int, SampleResult] = field(default_factory=dict)
    skipped: tuple[Skipped, ...] = ()
    interrupted: bool = False
    stopped: str | None = None
    interrupted_by: str | None = None
    pictures: tuple[DirectionPicture, ...] = ()
    direction_summary: DirectionSummary | None = None
    attack: AttackSummary | None = None
    verifier: VerifierSummary | None = None
    scheme: Scheme | None = None
    ratios: Mapping[int, float] = field(default_factory=dict)
    leads: Mapping[int, Array] = field(default_factory=dict)

    def ended(self, by: BaseException | None) -> Found:
        """The same, ended early by one of `ENDS`; unchanged by None."""
        if by is None:
            return self
        by_signal = by.by if isinstance(by, Stopped) else None
        stopped = str(by) if isinstance(by, OnnxFimError) else self.stopped
        return replace(self, interrupted=True, stopped=stopped, interrupted_by=self.interrupted_by or by_signal)

    @property
    def in_order(self) -> list[SampleResult]:
        """The results in the order of the samples."""
        return [self.results[i] for i in sorted(self.results)]
