"""Asks a verifier, for a few samples, how far around each no other prediction lies, and tries its counterexamples on the file."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from onnxfim.auditing.context import ENDS, Found, Ground
from onnxfim.auditing.control_moves import EVEN, ControlMove, ControlSearch
from onnxfim.auditing.instruments import allowed_inputs, scale_field
from onnxfim.auditing.kept_answers import KeptAnswers
from onnxfim.auditing.opening import open_subject
from onnxfim.auditing.stages import as_found, stage
from onnxfim.auditing.stages.replay import replayed
from onnxfim.auditing.subject import Subject
from onnxfim.auditing.verified_network import VerifiedNetwork, network_of
from onnxfim.errors import ModelError, OnnxFimError
from onnxfim.graph.load import load_model
from onnxfim.record.audited_from import units_of_lengths
from onnxfim.record.guarantee_summaries import VerifierSummary
from onnxfim.record.guarantees import VerifiedBox
from onnxfim.record.sample import Estimate, SampleResult
from onnxfim.runtime.available_memory import available_memory
from onnxfim.runtime.providers import CPU
from onnxfim.runtime.shared_cores import usable_cores
from onnxfim.slopes.attacks import Threat
from onnxfim.verdict.verifier_answers import changes, verifier_summary
from onnxfim.verifiers.answers import Said
from onnxfim.verifiers.closing_in import CONTROL, ClosingIn
from onnxfim.verifiers.properties import StaysInBox, box_around
from onnxfim.verifiers.questions import BoxLimits, Question, a_folder
from onnxfim.verifiers.verifier_commands import VerifierCommand, verifier_command

Array: TypeAlias = np.ndarray[Any, Any]

#: A counterexample lies at the boundary, where float32 may round it back: it is tried a little farther too, as attacks are.
_LONGER = (1.0, 1.0001, 1.001, 1.01, 1.03, 1.1)
_OUTSIDE = 1e-4  # of the box's width: what a solver's tolerance leaves a counterexample outside it by
_LOOKS, _SAYS = 0.02, 0.5  # seconds between two looks at what runs, and between two words
_MEMORY = 0.8  # of what is free that all verifiers together may hold
#: Boxes in a row without any answer, before one was answered, after which no more are asked about; later, samples in a row.
_FAILURES = 3
STAGE = "asking the verifier"


@dataclass
class _AskedSample:
    """One sample, and what was said of it."""

    position: int
    about: StaysInBox
    search: ClosingIn
    control: ControlMove | None
    boxes: list[VerifiedBox] = field(default_factory=list)
    lost: int = 0  # boxes without any answer


@dataclass(frozen=True)
class _BoxAsked:
    """A box that is asked about, or of which an answer was kept; ``control`` where it is the control question."""

    asked: _AskedSample
    epsilon: float
    control: ControlMove | None
    about: StaysInBox
    question: Question | None
    kept: tuple[Said, float] | None

    def answer(self) -> tuple[Said, float] | None:
        """What was said, and the seconds that it took; None while it is at it."""
        return self.kept if self.question is None else self.question.answer()


@stage(STAGE, instead=as_found)
def verify(ground: Ground, found: Found) -> Found:
    """Ask about boxes around some samples: what was certified, and what was refuted and how the file itself answers there."""
    started = time.perf_counter()
    settings = ground.settings
    assert settings.verifier is not None
    command = verifier_command(settings.verifier)
    ground.say(STAGE)
    chosen = [r for r in replayed(list(found.results.values()), len(found.results)) if r.prediction is not None]
    chosen = replayed(chosen, settings.verifier_samples) or _unranked(found, settings.verifier_samples)
    try:
        parent = _parent(ground)
        network = network_of(parent or ground.subject, ground.X[ground.clean.audited])
    except OnnxFimError as error:
        return replace(found, verifier=_summary(ground, [], started, None, reason=str(error)))
    asking = _AskingBoxes(ground, found, command, network, own=parent is None)
    ended: BaseException | None = None
    try:
        asking.all_of([asking.begun(r) for r in chosen])
    except ENDS as end:
        ended = end
    results = dict(found.results)
    for asked in asking.done:
        results[asked.position] = _with_answers(results[asked.position], asked, command, own=parent is None)
    summary = _summary(
        ground, [results[a.position] for a in asking.done], started, network if parent else None, reason=asking.stopped
    )
    return replace(found, results=results, verifier=summary).ended(ended)


def _unranked(found: Found, count: int) -> list[SampleResult]:
    """Samples where none has a value to rank them by."""
    return [r for r in found.in_order if r.prediction is not None][:count]


def _parent(ground: Ground) -> Subject | None:
    """The model that is verified in the file's place, opened on the CPU; None where the file itself is."""
    path = ground.settings.verifier_model
    if path is None:
        return None
    own = ground.settings
    settings = replace(own, providers=(CPU,), provider_options=(), require_provider=False, output=None, at=None, input=None)
    subject = open_subject(load_model(path), ground.X, settings)
    if (outputs := subject.info.num_outputs) != ground.subject.info.num_outputs:
        raise ModelError(
            f"--verifier-model {path}: has {outputs} outputs, expected {ground.subject.info.num_outputs} as the audited file has. "
            "Name the file that it was made from."
        )
    return subject


def _with_answers(result: SampleResult, asked: _AskedSample, command: VerifierCommand, *, own: bool) -> SampleResult:
    """The sample with its boxes, and with what was certified where that is believed, and more than what was."""
    believed = asked.search.controlled and not asked.search.contradicted
    boxes = asked.boxes if believed else [replace(b, believed=False) if b.answer == "unsat" else b for b in asked.boxes]
    result = replace(result, verified=tuple(boxes))
    certified, before = asked.search.certified if believed else 0.0, result.certified_radius_linf
    if not own or not certified or (before is not None and (before.value or 0.0) >= certified):
        return result
    return replace(result, certified_radius_linf=Estimate(certified, certified, None, "lower bound", f"verifier {command.name}"))


def _summary(
    ground: Ground, results: Sequence[SampleResult], started: float, parent: VerifiedNetwork | None, *, reason: str | None
) -> VerifierSummary:
    settings = ground.settings
    units = units_of_lengths(ground.subject.info.at, raw=settings.raw)
    model = None if settings.verifier_model is None else Path(settings.verifier_model).name
    return verifier_summary(
        results, settings, units=units, seconds=time.perf_counter() - started, reason=reason, model=model,
        model_sha256=None if parent is None else parent.sha256,
    )  # fmt: skip


class _AskingBoxes:
    """All questions of an audit, several at a time."""

    def __init__(self, ground: Ground, found: Found, command: VerifierCommand, network: VerifiedNetwork, *, own: bool) -> None:
        self.ground, self.found, self.command, self.network, self.own = ground, found, command, network, own
        settings = ground.settings
        cores = usable_cores()
        self.jobs = settings.verifier_jobs or cores
        free = available_memory()
        self.limits = BoxLimits(
            settings.verifier_timeout, None if free is None else int(_MEMORY * free / self.jobs), max(1, cores // self.jobs)
        )  # fmt: skip
        shape = ground.X.shape[1:]
        scale = scale_field(settings.input_scale, shape)
        self.scale: Array | float = 1.0 if scale is None else scale
        box = allowed_inputs(ground)
        self.low, self.high = box.low.reshape(shape), box.high.reshape(shape)
        self.answers = KeptAnswers(ground.memory, network.sha256, command, self.limits.seconds)
        predictions = {p: r.prediction for p, r in found.results.items() if r.prediction is not None}
        self.controls = ControlSearch(
            network, ground.X, predictions, self.low, self.high, self.scale, ground.meter.check
        )  # fmt: skip
        self.done: list[_AskedSample] = []
        self.stopped: str | None = None
        self._answered = False  # whether any box was: what goes wrong later is about that box alone
        self._aside: list[_AskedSample] = []  # in error before any box was answered
        self._failures = 0

    def begun(self, result: SampleResult) -> _AskedSample:
        """A sample with the ends between which its boxes lie."""
        ground, settings = self.ground, self.ground.settings
        position = next(p for p, r in self.found.results.items() if r.index == result.index)
        x = ground.X[position]
        most = float(np.max(np.maximum(self.high - x, x - self.low) / self.scale))
        known = min(changes(result, settings), default=None)
        trusted = self.own and ground.provider == CPU  # of other providers the same move may be rounded back
        guess = self._expected(result) or (most / 16 if known is None else known / 2)
        network = self.network
        assert result.prediction is not None
        about = StaysInBox(
            x, x, result.prediction, network.outputs, network.threshold, network.output_shape, network.dtype
        )  # fmt: skip
        control = ControlMove(known) if trusted and known is not None and CONTROL * known <= most else None
        if control is None:
            control = self.controls.near(position, about, (settings.seed, result.index))
        ends = [length for length in (known if trusted else None, control.length if control and control.valid else None) if length]
        certified = [e.value for e in (result.certified_radius_linf,) if e is not None and e.value]
        search = ClosingIn(
            low=max(certified, default=0.0) if self.own else 0.0, high=min(ends, default=None), guess=min(guess, most), most=most,
            precision=settings.verifier_precision, control=None if control is None else CONTROL * control.length,
        )  # fmt: skip
        return _AskedSample(position, about, search, control)

    def _expected(self, result: SampleResult) -> float | None:
        """Where slopes put the nearest change, in L∞."""
        told = [p.first_order for p in result.predicted if p.norm == "linf" and p.first_order]
        if told:
            return told[0]
        l2 = result.boundary_distance.value
        return l2 / float(np.mean(self.scale)) / np.sqrt(self.ground.dimension) if l2 else None

    def all_of(self, samples: Sequence[_AskedSample]) -> None:
        """Ask about all of them; `done` holds those with an answer, whatever ends it early."""
        started = time.monotonic()
        waiting, running = list(samples), list[_BoxAsked]()
        self._check_predictions(waiting)
        budget = self.ground.settings.verifier_budget
        with a_folder() as folder:
            onnx = folder / "network.onnx"
            onnx.write_bytes(self.network.model.SerializeToString())
            said = 0.0
            try:
                while waiting or running:
                    self.ground.meter.check()
                    over = budget is not None and time.monotonic() - started > budget
                    if over and self.stopped is None and waiting:
                        self.stopped = f"its time was up ({budget:g} s, --verifier-budget)"
                    if over or self.stopped is not None:
                        waiting.clear()
                    while waiting and len(running) < self.jobs:
                        asked = waiting.pop(0)
                        epsilon = asked.search.next()
                        if epsilon is not None:
                            running.append(self._ask(asked, epsilon, onnx, folder))
                    again = self._heard(running)
                    waiting[:0] = [a for a in again if a.search.next() is not None]
                    now = time.monotonic()
                    if now - said > _SAYS:
                        said = now
                        self._say(samples)
                    if running and not again:
                        time.sleep(_LOOKS)
            finally:
                for one in running:
                    if one.question is not None:
                        one.question.close()
        self._say(samples)

    def _check_predictions(self, waiting: list[_AskedSample]) -> None:
        """Leave out samples that the network that is verified decides otherwise than the audited file."""
        for asked in list(waiting):
            scores = self.network.scores(self.ground.X[[asked.position]])
            got = int(self.network.predictions(scores)[0])
            if got != asked.about.prediction:
                whose = "the network that is verified" if self.own else "the model that is verified"
                note = f"{whose} predicts class {got} here, the audited file class {asked.about.prediction}"
                self._take(asked, VerifiedBox(0.0, "error", 0.0, note=note))
                waiting.remove(asked)

    def _say(self, samples: Sequence[_AskedSample]) -> None:
        done = sum(a.search.asked for a in samples)
        self.ground.meter.count(done, max(sum(a.search.expected for a in samples), done), "boxes")
        self.ground.say(STAGE)

    def _ask(self, asked: _AskedSample, epsilon: float, onnx: Path, folder: Path) -> _BoxAsked:
        x = self.ground.X[asked.position]
        control = asked.control if asked.search.asks_control else None
        ends = (self.low, self.high)
        if control is not None and control.point is not None:
            ends = (np.minimum(self.low, control.point), np.maximum(self.high, control.point))
        low, high = box_around(x, epsilon, scale=self.scale, low=ends[0], high=ends[1])
        told = f"sample {self.ground.index(asked.position)}, half-width {epsilon:.17g}"
        about = replace(asked.about, low=low, high=high, about=(told,))
        kept = self.answers.of(about)
        question = Question(self.command, onnx, about, self.limits, folder) if kept is None else None
        return _BoxAsked(asked, epsilon, control, about, question, kept)

    def _heard(self, running: list[_BoxAsked]) -> list[_AskedSample]:
        """Take in the answers that are there; the samples that they are about."""
        heard = []
        for one in list(running):
            if (found := one.answer()) is None:
                continue
            said, seconds = found
            running.remove(one)
            if one.question is not None:
                self.answers.keep(one.about, said, seconds)
            box, changed = self._judged(one, said, seconds)
            one.asked.search.told(one.epsilon, box.answer, changed=changed)
            self._take(one.asked, box)
            self._ask_control_again(one.asked)
            heard.extend(self._counted(one.asked, box))
        return heard

    def _ask_control_again(self, asked: _AskedSample) -> None:
        """Ask another control question, once, where a sample would end with a certificate from one that never found anything.

        The move that was known is short, and its box hard to decide; one to another sample is longer, and its box quickly refuted.
        """
        search, control = asked.search, asked.control
        if search.next() is not None or not search.certified or search.refuted or control is None or control.point is not None:
            return
        again = self.controls.near(asked.position, asked.about, (self.ground.settings.seed, self.ground.index(asked.position)))
        if again is not None and again.valid:
            asked.control = again
            search.ask_control(CONTROL * again.length)

    def _counted(self, asked: _AskedSample, box: VerifiedBox) -> list[_AskedSample]:
        """The samples that may be asked about on, once a box was heard of; too much without any answer ends all.

        A verifier that cannot run fails at its first boxes: a sample is then set aside until one is answered. Later an error is
        about its box alone, and what is limited are samples in a row of which no box was answered.
        """
        lost = box.answer == "error" or (box.answer == "unknown" and bool(box.note))  # it told why it cannot
        asked.lost += lost
        if not self._answered:
            self._failures = self._failures + 1 if lost else 0
            if self._failures >= _FAILURES:
                self.stopped = f"it decided nothing {self._failures} times in a row: {box.note}"
            if box.answer == "error":
                self._aside.append(asked)
                return []
            if lost or box.answer == "timeout":
                return [asked]
            self._answered = True
            aside, self._aside = self._aside, []
            return [asked, *aside]
        if asked.search.next() is None:
            self._failures = self._failures + 1 if asked.lost == len(asked.boxes) else 0
            if self._failures >= _FAILURES:
                self.stopped = f"it answered nothing about {self._failures} samples in a row: {box.note}"
        return [asked]

    def _take(self, asked: _AskedSample, box: VerifiedBox) -> None:
        asked.boxes.append(box)
        if not any(a is asked for a in self.done):
            self.done.append(asked)

    def _judged(self, one: _BoxAsked, said: Said, seconds: float) -> tuple[VerifiedBox, float | None]:
        """The answer as recorded, its counterexample tried, and the length of a move that changes the network's prediction."""
        asked, about, control = one.asked, one.about, one.control
        box = VerifiedBox(one.epsilon, said.answer, seconds, note=said.note, control=None if control is None else control.length)
        if control is not None and not control.valid:
            if said.answer in ("sat", "unsat"):
                box = replace(box, note="a control question, of inputs beyond the valid range")
            return box, None  # nothing is told of the file there
        if said.answer != "sat" or said.point is None:
            return box, None
        width = float((about.high - about.low).max())
        outside = float(np.maximum(about.low - said.point, said.point - about.high).max())
        if outside > _OUTSIDE * width + np.finfo(np.float32).eps * float(np.abs(about.high).max()):
            return replace(box, answer="error", note=f"its counterexample lies outside the box by {outside:.3g}"), None
        x = self.ground.X[asked.position]
        delta = np.clip(said.point, about.low, about.high) - x.astype(np.float64)
        threat = Threat("linf", np.minimum(self.low, x), np.maximum(self.high, x), self.scale)
        steps = np.stack([threat.seen(x, longer * delta) for longer in _LONGER])  # (n, *shape)
        rows = (x + steps).astype(x.dtype)
        scores = self.network.scores(rows)
        there: Array = np.asarray(self.network.predictions(scores) != about.prediction)
        even = about.lead(scores[0]) <= EVEN * float(np.abs(scores[0]).max(initial=1e-30))
        if not there.any() and not even:
            note = "its counterexample does not change the prediction of the network that it was given"
            return replace(box, answer="error", note=note), None
        sizes = threat.size(steps)
        changed = float(sizes[int(np.argmax(there))]) if there.any() else None
        outputs = self.ground.forward.outputs(rows, np.full(len(rows), asked.position))
        finite: Array = np.asarray(np.isfinite(outputs).all(axis=(1, 2)))
        decided = self.ground.reader.predictions(np.where(finite.reshape(-1, 1, 1), outputs, 0.0))
        followed: Array = np.asarray(finite & (decided != about.prediction))
        at = int(np.argmax(followed)) if followed.any() else 0
        note = (
            ""
            if there[0]
            else "two classes are even at its counterexample"
            if not there.any()
            else "its counterexample had to be moved on a little"
        )
        return replace(box, replay=bool(followed.any()), distance=float(sizes[at]), note=note), changed
