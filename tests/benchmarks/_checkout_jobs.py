"""The commands whose results `compare_checkouts` holds against each other: every model, and every option that changes numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

#: Files in which one saved audit is written by `convert`.
FORMATS = ("html=page.html", "json=again.json", "csv=rows.csv", "junit=junit.xml", "sarif=out.sarif", "markdown=summary.md", "comment=comment.md")  # fmt: skip

#: Inputs of at most this many numbers are measured over all coordinates by differences too.
EXACT_UP_TO = 784

#: Given to every audit: nothing kept from other runs, no GPU, and rows per call that do not hang on how fast the machine is.
_FIXED = ("--no-cache", "--provider", "cpu", "-q")
_SAVED = ("-o", "json=audit.json")


@dataclass(frozen=True)
class Job:
    """One command of onnxfim: what follows its name, and files of earlier jobs that it reads (its name for each: ``job/file``).

    What the command prints goes into a file of its own where ``prints`` names one.
    """

    name: str
    arguments: tuple[str, ...]
    needs: dict[str, str] = field(default_factory=dict)
    prints: str | None = None


@dataclass(frozen=True)
class Subject:
    """A model with its samples; ``heavy`` ones are measured on two samples."""

    name: str
    model: Path
    data: Path
    heavy: bool = False

    def audit(self, *options: str, budget: int = 33, bounds: bool = True) -> tuple[str, ...]:
        """Arguments of an audit of it."""
        size: tuple[str, ...] = ("--samples", "8", "--batch", "64")
        if self.heavy:
            size = ("--samples", "2", "--batch", "8", "--replay", "2")
        size += ("--budget", str(budget)) if bounds else ("--budget", str(budget), "--no-bounds")
        return ("audit", str(self.model), "--data", str(self.data), *size, *_FIXED, *_SAVED, *options)

    @property
    def dimension(self) -> int:
        """Numbers that one sample holds."""
        with np.load(self.data) as arrays:
            return math.prod(arrays["inputs"].shape[1:])


def jobs(checkout: Path, shared: Path) -> list[Job]:
    """All commands, those first that others read from.

    Args:
        checkout: Root of the code, with its ``sample_models``.
        shared: Folder of the real trained models; what is not there is left out.
    """
    samples = list(_samples(checkout / "sample_models"))
    subjects = [*samples, *_listed(shared / "models"), *_listed(shared / "models_more"), *_cases(shared / "cases")]
    every = [job for subject in subjects for job in _of_every_model(subject)]
    found = {s.name: s for s in subjects}
    return [*every, *_options(found), *_of_saved_audits(found), *_mistakes(found)]


def _samples(folder: Path) -> Iterator[Subject]:
    for path in sorted(folder.glob("*.onnx")):
        yield Subject(path.stem, path, folder / "digits.npz")


def _listed(folder: Path) -> Iterator[Subject]:
    """The models of a folder's manifest."""
    manifest = folder / "manifest.json"
    for record in json.loads(manifest.read_text(encoding="utf-8")) if manifest.is_file() else []:
        path = folder / record["model"]
        yield Subject(path.stem, path, folder / record["data"], heavy=record["task"].startswith("ImageNet"))


def _cases(folder: Path) -> Iterator[Subject]:
    """Small graphs with a trap in each."""
    for path in sorted(folder.glob("*.onnx")):
        yield Subject(f"case_{path.stem}", path, path.with_suffix(".npz"))


def _of_every_model(subject: Subject) -> Iterator[Job]:
    name = subject.name
    yield Job(f"inspect/{name}", ("inspect", "--json", str(subject.model)), prints="inspect.json")
    yield Job(f"bounds/{name}", ("bounds", "--json", str(subject.model)), prints="bounds.json")
    yield Job(f"auto/{name}", subject.audit())
    yield Job(f"sketch/{name}", subject.audit("--method", "sketch", budget=49, bounds=False))
    if subject.dimension <= EXACT_UP_TO:
        yield Job(f"exact/{name}", subject.audit("--method", "exact", bounds=False))


def _options(subjects: dict[str, Subject]) -> Iterator[Job]:
    """One audit for each option that changes numbers; those of models that are not there are left out."""
    attack = ("--attack-samples", "6")
    table = (
        ("digits_resnet", "gradient", ("--method", "gradient")),
        ("digits_resnet_int8", "gradient", ("--method", "gradient")),
        ("digits_resnet", "temperature", ("--temperature", "1.7")),
        ("digits_mlp", "seed", ("--method", "sketch", "--seed", "5")),
        ("digits_vgg", "step", ("--method", "sketch", "--step", "0.003")),
        ("digits_vgg", "central", ("--method", "sketch", "--scheme", "central")),
        ("digits_resnet_fp16", "forward", ("--method", "sketch", "--scheme", "forward")),
        ("digits_resnet_int8", "dithered", ("--method", "sketch", "--scheme", "dithered")),
        ("digits_mlp", "precision", ("--method", "sketch", "--precision", "20%", "--max-budget", "120")),
        ("digits_densenet", "normalised", ("--mean", "0.1", "--std", "0.5")),
        ("digits_densenet", "normalised-sketch", ("--mean", "0.1", "--std", "0.5", "--method", "sketch")),
        ("cifar_resnet2b_adv", "already-normalised", ("--already-normalised", "--mean", "0.4914,0.4822,0.4465", "--std", "0.2471,0.2435,0.2616")),
        ("digits_mlp", "attack-l2", ("--attack", "l2", *attack)),
        ("digits_resnet_softmax", "attack-linf", ("--attack", "linf", "--epsilon", "0.1", *attack)),
        ("digits_vit", "attack-in-range", ("--attack", "l2", "--attack-range", "-0.5,1.5", "--mean", "0", "--std", "0.5", *attack)),
        ("digits_resnet_int8", "surrogate", ("--surrogate",)),
        ("cifar_resnet8_qdq_int8", "surrogate", ("--surrogate",)),
        ("kws_dscnn_qdq_int8", "surrogate", ("--surrogate",)),
        ("digits_mlp", "gaussian", ("--output-kind", "gaussian", "--sigma", "2.0")),
        ("digits_mlp", "sigmoid", ("--output-kind", "sigmoid")),
        ("digits_resnet_softmax", "as-logits", ("--output-kind", "logits")),
        ("digits_resnet_softmax", "probabilities-sketch", ("--output-kind", "probabilities", "--method", "sketch")),
        ("digits_resnet", "random-data", ("--data", "random")),
        ("digits_mlp", "no-replay", ("--replay", "0")),
    )  # fmt: skip
    for name, option, arguments in table:
        if name in subjects:
            yield Job(f"options/{option}/{name}", subjects[name].audit(*arguments))
    if "esc10_miniresnet1" in subjects:
        known = subjects["esc10_miniresnet1"]
        bare = Subject(known.name, known.model, known.data.with_name(f"{known.data.stem}_unlabelled.npz"))
        yield Job(f"options/no-labels/{known.name}", bare.audit())


def _of_saved_audits(subjects: dict[str, Subject]) -> Iterator[Job]:
    """Gates and baselines, comparisons, and all formats."""
    plain, adversarial, int8 = (subjects[f"digits_resnet{end}"] for end in ("", "_adv", "_int8"))
    gates = ("--fail-on", "lambda_max.p95 > 12.5", "--fail-on", "clean_accuracy < 90%", "--fail-on", "boundary_distance.median < 0.3", "--fail-on", "findings.error")  # fmt: skip
    before = {"before.json": f"auto/{plain.name}/audit.json"}
    yield Job("gates/fails", plain.audit(*gates))
    yield Job("gates/passes", adversarial.audit("--fail-on", "lambda_max.mean > 1e6", "--fail-on", "findings.error"))
    yield Job("gates/forgiven", plain.audit(*gates, "--exit-zero"))
    yield Job("gates/undecided", plain.audit("--fail-on", "lambda_max.mean > 14", "--fail-on-inconclusive"))
    yield Job("baseline/better", adversarial.audit("--baseline", "before.json"), before)
    yield Job("baseline/itself", plain.audit("--baseline", "before.json"), before)
    yield Job("baseline/worse", plain.audit("--baseline", "before.json"), {"before.json": f"auto/{adversarial.name}/audit.json"})
    sketched = {"before.json": f"sketch/{plain.name}/audit.json"}
    yield Job("baseline/sketch", adversarial.audit("--baseline", "before.json", "--regression-over", "population"), sketched)
    everything = ("--attack", "l2", "--attack-samples", "6", "--mean", "0", "--std", "0.5", "--baseline", "before.json")
    yield Job("baseline/everything", plain.audit(*gates, *everything), before)

    compared = ("-q", "-o", "json=comparison.json", "-o", "markdown=comparison.md", "-o", "html=comparison.html")
    for name, kind, members in (
        ("two", "auto", (plain, adversarial)),
        ("three", "auto", (plain, subjects["digits_vit"], subjects["digits_mlp"])),
        ("sketches", "sketch", (plain, adversarial, subjects["digits_resnet_fp16"])),
        ("exact-and-sketch", "exact", (plain, int8)),
    ):
        needs = {f"{m.name}.json": f"{kind}/{m.name}/audit.json" for m in members}
        yield Job(f"compare/{name}", ("compare", *needs, *compared), needs)
    size = ("--samples", "8", "--budget", "33", "--batch", "64", "--provider", "cpu")
    files = (str(plain.model), str(int8.model), "--data", str(plain.data))
    yield Job("compare/files", ("compare", *files, *size, *compared))

    for name, source in (
        ("auto", f"auto/{plain.name}"),
        ("sketch", "sketch/digits_resnet_int8"),
        ("everything", "baseline/everything"),
        ("trees", "auto/case_trees"),
        ("softmax", "auto/kws_dscnn_float"),
    ):
        if source.rpartition("/")[2] in subjects or source.startswith("baseline"):
            targets = [part for written in FORMATS for part in ("-o", written)]
            yield Job(f"convert/{name}", ("convert", "saved.json", *targets), {"saved.json": f"{source}/audit.json"})


def _mistakes(subjects: dict[str, Subject]) -> Iterator[Job]:
    """Commands that end with a message."""
    plain = subjects["digits_resnet"]
    yield Job("mistakes/no-file", ("audit", "nothing.onnx", "--data", str(plain.data), *_FIXED, *_SAVED))
    yield Job("mistakes/no-data", ("audit", str(plain.model), "--data", "nothing.npz", *_FIXED, *_SAVED))
    yield Job("mistakes/gate", plain.audit("--fail-on", "lambda.p95 > 12.5"))
    yield Job("mistakes/budget", plain.audit(budget=3))
    if "kws_dscnn_float" in subjects:
        yield Job("mistakes/shape", Subject("shape", plain.model, subjects["kws_dscnn_float"].data).audit())


def chosen(every: Iterable[Job], pattern: str) -> list[Job]:
    """The jobs whose name holds ``pattern`` (``*`` for any text), and those that they read from."""
    listed = {job.name: job for job in every}
    wanted = {name for name in listed if fnmatchcase(name, f"*{pattern}*")}
    while more := {source(n) for name in wanted for n in listed[name].needs.values()} - wanted:
        wanted |= more
    return [job for name, job in listed.items() if name in wanted]


def source(need: str) -> str:
    """The job that writes the file ``job/file``."""
    return need.rpartition("/")[0]
