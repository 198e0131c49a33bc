"""Verifiers against each other, against our attack, and against the files that are deployed.

    python tests/benchmarks/bench_verifiers.py [--quick] [--models TEXT] [--verifiers NAMES] [--samples N] [--timeout S]
        [--deployed FOLDER] [--out FILE]

Around samples that a model classifies right lie boxes whose half-widths are parts of the smallest L∞ attack that our own search
finds: those of 1.02 times that length hold a counterexample for certain, so that an "unsat" about them contradicts the attack, as a
"sat" does our own local bounds where the box is inside them. Every verifier is asked about every box. Its counterexamples are tried on the very file, on its rounded twin where there is one, and with
``--deployed`` on OpenVINO, whose build of ONNX Runtime lies in that folder (``pip install --target``), in a process of its own.

Lengths are in pixel units (0 to 1) or raw units. ``--out`` keeps each box as a line of JSON; with it, boxes that it has are not
asked about again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from _common import ROOT, Case, arguments, have_shared, print_table, sample_case, shared_cases, trained
from bench_attack import pixel_scale

from onnxfim.auditing.opening import open_subject
from onnxfim.auditing.run import audit
from onnxfim.auditing.verified_network import VerifiedNetwork, network_of
from onnxfim.errors import ModelError, SettingsError
from onnxfim.graph.load import load_model
from onnxfim.record.settings import Settings
from onnxfim.verifiers.answers import Said
from onnxfim.verifiers.properties import StaysInBox, box_around
from onnxfim.verifiers.questions import BoxLimits, ask
from onnxfim.verifiers.verifier_commands import VerifierCommand, verifier_command

#: Half-widths as parts of the smallest attack; the last one holds it.
PARTS = (0.25, 0.5, 0.8, 1.02)
#: The nets that are small enough, each with the name of its rounded twin where there is one.
NETS: Mapping[str, str | None] = {
    "digits_mlp": None, "digits_vgg": None, "digits_resnet": "digits_resnet_int8", "digits_vit": None,
    "mnist_mlp2x256_standard": None, "mnist_mlp2x256_fgsm": None, "mnist_mlp2x256_pgd": None, "fashion_cnna_kw": None,
    "cifar_cnna_kw": None, "cifar_cnna_adv": None, "cifar_cnna_sgd": None, "cifar_resnet2b_adv": None, "cifar_vit_pgd_2_3_16": None,
    "cifar_resnet8_float": "cifar_resnet8_qdq_int8", "kws_dscnn_float": "kws_dscnn_qdq_int8",
}  # fmt: skip
_QUICK = ("digits_mlp",)
_DECIDED = ("sat", "unsat")


@dataclass(frozen=True)
class Box:
    """A box, what a verifier said of it, and what its counterexample does.

    ``attack`` is the length of the smallest attack, ``local`` the half-width that our own local bounds certify (0: none), and
    ``follows`` whether the file changes its prediction at the counterexample.
    """

    model: str
    sample: int
    part: float
    epsilon: float
    attack: float
    verifier: str
    answer: str
    seconds: float
    note: str = ""
    follows: bool | None = None
    point: tuple[float, ...] = ()
    local: float = 0.0

    @property
    def key(self) -> tuple[str, int, float]:
        """The box, whoever was asked."""
        return self.model, self.sample, self.part

    @property
    def against_attack(self) -> bool:
        """Whether it said that nothing is in a box in which the attack found something."""
        return self.answer == "unsat" and self.epsilon >= self.attack

    @property
    def against_bounds(self) -> bool:
        """Whether it said that something is in a box that our own bounds certify."""
        return self.answer == "sat" and self.epsilon <= self.local


@dataclass(frozen=True)
class Net:
    """A model that verifiers are given, with the samples that boxes lie around, and their smallest attacks."""

    case: Case
    network: VerifiedNetwork
    span: tuple[float, float]
    scale: np.ndarray
    attacks: Mapping[int, float]
    predictions: Mapping[int, int]
    local: Mapping[int, float]

    def box(self, sample: int, epsilon: float) -> StaysInBox:
        """The property that the prediction stays in the box of this half-width."""
        n, x = self.network, self.case.inputs[sample]
        low, high = box_around(x, epsilon, scale=self.scale, low=self.span[0], high=self.span[1])
        return StaysInBox(low, high, self.predictions[sample], n.outputs, n.threshold, n.output_shape, n.dtype)


def settings_of(case: Case, count: int) -> Settings:
    span, scale = ((0.0, 1.0), (1.0,)) if case.record is None else _raw_range(case)
    return Settings(
        samples=count, method="gradient", replay=0, attack="linf", attack_range=span, input_scale=scale, attack_samples=count,
        providers=("cpu",), bracket=True,
    )  # fmt: skip


def _raw_range(case: Case) -> tuple[tuple[float, float], tuple[float, ...]]:
    record = case.record
    assert record is not None
    if "raw255" in record["data"] or "pixel" in str(record.get("scale")):
        return pixel_scale(case)
    return (float(case.inputs.min()), float(case.inputs.max())), (1.0,)


def opened(case: Case, count: int) -> Net:
    """A model with the smallest attacks of the first samples that it classifies right."""
    settings = settings_of(case, 4 * count)
    found = audit(case.path, case.inputs, case.labels, settings)
    right = [
        s for s in found.samples
        if s.attack_distance is not None and s.attack_distance.value and s.prediction == case.labels[s.index]
    ][:count]  # fmt: skip
    subject = open_subject(load_model(case.path), case.inputs, settings)
    shape = case.inputs.shape[1:]
    scale = np.asarray(settings.input_scale, np.float64)
    if scale.size > 1:
        axis = shape.index(scale.size) if scale.size == shape[0] else len(shape) - 1
        scale = scale.reshape([-1 if k == axis else 1 for k in range(len(shape))])
    assert settings.attack_range is not None
    return Net(
        case, network_of(subject, case.inputs[: 4 * count]), settings.attack_range, np.broadcast_to(scale, shape),
        {s.index: float(s.attack_distance.value) for s in right}, {s.index: int(s.prediction) for s in right},
        {s.index: s.certified_radius_linf.value or 0.0 for s in right if s.certified_radius_linf is not None},
    )  # fmt: skip


def asked(net: Net, command: VerifierCommand, limits: BoxLimits, have: set[tuple[str, str, int, float]]) -> Iterator[Box]:
    """What a verifier says of each box of a net."""
    with tempfile.TemporaryDirectory() as folder:
        onnx = Path(folder, "network.onnx")
        onnx.write_bytes(net.network.model.SerializeToString())
        for sample, attack in net.attacks.items():
            for part in PARTS:
                if (command.name, net.case.name, sample, part) in have:
                    continue
                about = net.box(sample, part * attack)
                said, seconds = ask(command, onnx, about, limits)
                box = Box(
                    net.case.name, sample, part, part * attack, attack, command.name, "", seconds, local=net.local.get(sample, 0.0)
                )
                yield _judged(net, box, about, said)


def _judged(net: Net, box: Box, about: StaysInBox, said: Said) -> Box:
    """A box with what was said; a counterexample is brought into it and tried as float32 sees it."""
    box = replace(box, answer=said.answer, note=said.note)
    if said.point is None:
        return box
    x = net.case.inputs[box.sample]
    row = np.clip(said.point, about.low, about.high).astype(x.dtype)
    return replace(box, follows=about.is_met(net.network.scores(row[None])[0]), point=tuple(row.ravel().tolist()))


def kept(path: Path | None) -> list[Box]:
    """Boxes that a file has."""
    if path is None or not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return [Box(**{**line, "point": tuple(line["point"])}) for line in map(json.loads, lines)]


def answer_rows(boxes: Sequence[Box]) -> Iterator[list[Any]]:
    """A row for each net and verifier."""
    for model in dict.fromkeys(b.model for b in boxes):
        for verifier in dict.fromkeys(b.verifier for b in boxes):
            mine = [b for b in boxes if (b.model, b.verifier) == (model, verifier)]
            if not mine:
                continue
            counts = Counter(b.answer for b in mine)
            notes = Counter(b.note for b in mine if b.answer == "error")
            tried = [b for b in mine if b.follows is not None]
            yield [
                model, verifier, len(mine), counts["unsat"], counts["sat"], counts["unknown"] + counts["timeout"], counts["error"],
                f"{np.median([b.seconds for b in mine]):.1f}", sum(b.against_attack for b in mine), sum(b.against_bounds for b in mine),
                f"{sum(bool(b.follows) for b in tried)} of {len(tried)}" if tried else None, out_of_order(mine),
                notes.most_common(1)[0][0][:90] if notes else None,
            ]  # fmt: skip


def out_of_order(boxes: Sequence[Box]) -> int:
    """Samples of which a verifier said that a wider box holds nothing than one that holds something."""
    wrong = 0
    for sample in {b.sample for b in boxes}:
        mine = [b for b in boxes if b.sample == sample]
        safe = max((b.epsilon for b in mine if b.answer == "unsat"), default=0.0)
        wrong += safe > min((b.epsilon for b in mine if b.answer == "sat"), default=np.inf)
    return wrong


def agreement_rows(boxes: Sequence[Box]) -> Iterator[list[Any]]:
    """Over the boxes that both of two verifiers decided: how many they answer alike."""
    verifiers = list(dict.fromkeys(b.verifier for b in boxes))
    for one, other in combinations(verifiers, 2):
        answers = {v: {b.key: b.answer for b in boxes if b.verifier == v and b.answer in _DECIDED} for v in (one, other)}
        both = answers[one].keys() & answers[other].keys()
        same = sum(answers[one][k] == answers[other][k] for k in both)
        asked_both = len({b.key for b in boxes if b.verifier == one} & {b.key for b in boxes if b.verifier == other})
        yield [one, other, asked_both, len(both), same, f"{same / len(both):.1%}" if both else None]


#: Run where another build of ONNX Runtime is: the predictions of a file at samples and at counterexamples.
_ELSEWHERE = """
import json, sys
import numpy as np
from onnxfim.auditing.opening import open_subject
from onnxfim.graph.load import load_model
from onnxfim.record.settings import Settings
path, data, provider = sys.argv[1:]
with np.load(data) as z:
    X, P = z["samples"], z["points"]
s = open_subject(load_model(path), X, Settings(method="sketch", providers=(provider,), require_provider=True, input_scale=(1.0,)))
told = [s.reader.predictions(s.forward.outputs(rows, np.arange(len(rows)))).tolist() for rows in (X, P)]
print(json.dumps(told))
"""


def followed(path: Path, points: Mapping[int, Sequence[np.ndarray]], X: np.ndarray, provider: str, folder: str) -> list[bool] | str:
    """Whether another file, or another provider, changes its own prediction at each counterexample; or why it did not run."""
    samples = np.stack([X[i] for i, rows in points.items() for _ in rows])
    rows = np.stack([row for found in points.values() for row in found])
    with tempfile.TemporaryDirectory() as work:
        data = Path(work, "points.npz")
        np.savez(data, samples=samples, points=rows)
        path_of_it = os.pathsep.join(p for p in (folder, str(ROOT), os.environ.get("PYTHONPATH", "")) if p)
        done = subprocess.run(
            [sys.executable, "-c", _ELSEWHERE, str(path), str(data), provider], capture_output=True, text=True, check=False, cwd=work,
            env={**os.environ, "PYTHONPATH": path_of_it, "XDG_CACHE_HOME": work},
        )  # fmt: skip
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["no word"])[-1][:120]
    before, after = json.loads(done.stdout.splitlines()[-1])
    return [a != b for a, b in zip(before, after, strict=True)]


def replay_rows(boxes: Sequence[Box], cases: Mapping[str, Case], deployed: str | None) -> Iterator[list[Any]]:
    """Where the counterexamples of each net are followed too."""
    for model in dict.fromkeys(b.model for b in boxes):
        case = cases[model]
        mine = [b for b in boxes if b.model == model and b.follows and b.point]
        if not mine:
            continue
        points: dict[int, list[np.ndarray]] = {}
        for b in mine:
            points.setdefault(b.sample, []).append(np.array(b.point, case.inputs.dtype).reshape(case.inputs.shape[1:]))
        cells: list[Any] = [model, len(mine)]
        twin = NETS.get(model)
        cells.append(_told(followed(cases[twin].path, points, case.inputs, "cpu", "")) if twin else None)
        cells.append(_told(followed(case.path, points, case.inputs, "openvino", deployed)) if deployed else None)
        yield cells


def _told(found: list[bool] | str) -> str:
    return found if isinstance(found, str) else f"{sum(found)} of {len(found)}"


def main() -> None:
    options = arguments(
        __doc__, ("--verifiers", {"default": "vibecheck,marabou", "help": "which, with commas"}),
        ("--samples", {"type": int, "default": 4}), ("--timeout", {"type": float, "default": 20.0}),
        ("--deployed", {"default": None}), ("--out", {"type": Path, "default": None}),
    )  # fmt: skip
    every = {c.name: c for c in [sample_case(name) for name in trained.OURS] + (shared_cases() if have_shared() else [])}
    commands = []
    for name in options.verifiers.split(","):
        try:
            commands.append(verifier_command(name))
        except SettingsError as error:
            print(error)
    boxes, refused = kept(options.out), list[list[Any]]()
    have = {(b.verifier, *b.key) for b in boxes}
    for name in _QUICK if options.quick else NETS:
        if options.models not in name or name not in every or not commands:
            continue
        try:
            net = opened(every[name], 1 if options.quick else options.samples)
        except ModelError as error:
            refused.append([name, str(error)])
            continue
        for command in commands:
            for box in asked(net, command, BoxLimits(options.timeout), have):
                boxes.append(box)
                if options.out:
                    with options.out.open("a", encoding="utf-8") as file:
                        file.write(json.dumps({k: getattr(box, k) for k in Box.__dataclass_fields__}) + "\n")
    boxes = [b for b in boxes if options.models in b.model]
    headers = (
        "net", "verifier", "boxes", "unsat", "sat", "undecided", "errors", "median s", "against our attack", "against our bounds",
        "counterexamples the file follows", "out of order", "its most frequent error",
    )  # fmt: skip
    print_table(headers, answer_rows(boxes), title="Answers")
    print_table(("one", "other", "asked both", "both decided", "alike", "share"), agreement_rows(boxes), title="Agreement")
    replays = ("net", "counterexamples", "its int8 twin follows", "OpenVINO follows")
    print_table(replays, replay_rows(boxes, every, options.deployed), title="Counterexamples elsewhere")
    if refused:
        print_table(("net", "why it is not given to a verifier"), refused, title="Refused")


if __name__ == "__main__":
    main()
