"""Make the sample models: train them on scikit-learn's digits, write ONNX files, reference values and the table.

``python sample_models/train.py`` makes everything; ``--only NAME`` makes the net behind one file and all its files.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import exact
import files
import networks
import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

HERE = Path(__file__).resolve().parent
TEST_SIZE = 500
TEST_ATTACK_STEPS = 50
REFERENCE_SAMPLES = 32
QUANTITIES = ("confidence", "lambda_max", "lambda_max_calibrated", "boundary_distance", "logit_sensitivity")
TRAIN_EPS, TEST_EPS = 0.15, 0.1  # L∞ radii of the attacks; one grey level of the data is 1/16
BEGIN, END = "<!-- table: written by train.py -->", "<!-- end of table -->"

Images = NDArray[np.float32]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Digits:
    """The two parts of the data: images (N, 1, 8, 8) in [0, 1] and labels (N,)."""

    train_images: Images
    train_labels: Labels
    test_images: Images
    test_labels: Labels


@dataclass(frozen=True)
class Recipe:
    """How one net is trained; ``attack_steps`` of 0 is plain training."""

    name: str
    kind: str
    build: Callable[[], nn.Module]
    epochs: int
    learning_rate: float
    weight_decay: float
    attack_steps: int = 0

    @property
    def how(self) -> str:
        attacks = f", each attacked by PGD: {self.attack_steps} steps, L∞ ≤ {TRAIN_EPS}" if self.attack_steps else ""
        return f"{self.epochs} epochs on the training images{attacks}"


@dataclass(frozen=True)
class Derived:
    """A file made from another one, without training."""

    name: str
    parent: str
    kind: str
    how: str
    make: Callable[[Path, Path, Digits], None]


@dataclass(frozen=True)
class FileRecord:
    """What the table says of one file; ``pgd_accuracy`` is on images attacked through the float32 net."""

    kind: str
    how: str
    clean_accuracy: float
    pgd_accuracy: float
    bytes: int
    sha256: str
    opset: int


@dataclass(frozen=True)
class Reference:
    """Exact values of one net: on the first test images, and their means over all of them.

    ``max_logit_difference`` is how far the file's logits get from the float64 ones on any test image.
    """

    temperature: float
    max_logit_difference: float
    means: dict[str, float]
    samples: list[exact.Record]


@dataclass(frozen=True)
class Made:
    """All that one recipe gives: its files by name, and the exact values of its net."""

    records: dict[str, FileRecord]
    reference: Reference


RECIPES = (
    Recipe("digits_mlp", "MLP", networks.MLP, 40, 3e-3, 0.1),
    Recipe("digits_vgg", "VGG-like", networks.VGG, 40, 3e-3, 0.1),
    Recipe("digits_resnet", "ResNet", networks.ResNet, 40, 3e-3, 0.1),
    Recipe("digits_resnet_adv", "ResNet, adversarially trained", networks.ResNet, 40, 3e-3, 0.1, attack_steps=7),
    Recipe("digits_densenet", "DenseNet", networks.DenseNet, 40, 3e-3, 0.1),
    Recipe("digits_vit", "ViT", networks.ViT, 60, 2e-3, 0.1),
)
DERIVED = (
    Derived(
        "digits_resnet_int8",
        "digits_resnet",
        "ResNet, QDQ int8",
        "quantised, ranges from training images",
        lambda source, target, data: files.to_int8(source, target, calibration=data.train_images),
    ),
    Derived(
        "digits_resnet_fp16",
        "digits_resnet",
        "ResNet, float16",
        "converted; float32 in and out",
        lambda source, target, _: files.to_float16(source, target),
    ),
    Derived(
        "digits_resnet_softmax",
        "digits_resnet",
        "ResNet, probabilities out",
        "Softmax appended",
        lambda source, target, _: files.append_softmax(source, target),
    ),
)
FILES = [
    name for recipe in RECIPES for name in (recipe.name, *(derived.name for derived in DERIVED if derived.parent == recipe.name))
]


def load_data() -> Digits:
    """Digits scaled to [0, 1]; the test part is stratified and is never trained or calibrated on."""
    digits = load_digits()
    images = (digits.images / 16).astype(np.float32)[:, None]  # (N, 1, 8, 8)
    train, test, train_labels, test_labels = train_test_split(
        images, digits.target.astype(np.int64), test_size=TEST_SIZE, stratify=digits.target, random_state=0
    )
    return Digits(train, train_labels, test, test_labels)


def attack(model: nn.Module, x: Tensor, labels: Tensor, *, eps: float, steps: int, rng: torch.Generator) -> Tensor:
    """Images within L∞ distance ``eps`` of ``x`` that raise the loss, by projected gradient descent (Madry et al. 2018)."""
    model.eval()
    step = 2.5 * eps / steps
    near = (x + eps * (2 * torch.rand(x.shape, generator=rng) - 1)).clamp(0, 1)
    for _ in range(steps):
        near.requires_grad_()
        (slope,) = torch.autograd.grad(cross_entropy(model(near), labels), near)
        near = (near.detach() + step * slope.sign()).clamp(x - eps, x + eps).clamp(0, 1)
    return near


def train(recipe: Recipe, data: Digits, *, seed: int = 0, batch: int = 64) -> nn.Module:
    """The trained net in eval mode; every net starts from the same seed, so `--only` gives what a full run gives."""
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    model = recipe.build()
    images, labels = torch.from_numpy(data.train_images), torch.from_numpy(data.train_labels)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    steps = recipe.epochs * (len(images) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, total_steps=steps)
    for _ in range(recipe.epochs):
        for rows in torch.randperm(len(images), generator=rng)[: len(images) // batch * batch].split(batch):
            x = images[rows]
            if recipe.attack_steps:
                x = attack(model, x, labels[rows], eps=TRAIN_EPS, steps=recipe.attack_steps, rng=rng)
            model.train()
            optimizer.zero_grad()
            cross_entropy(model(x), labels[rows]).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def make(recipe: Recipe, data: Digits, *, folder: Path) -> Made:
    """Train one net, write its file and those derived from it, and measure them all."""
    model = train(recipe, data)
    X, labels = data.test_images, data.test_labels
    rng = torch.Generator().manual_seed(1)
    near = attack(model, torch.from_numpy(X), torch.from_numpy(labels), eps=TEST_EPS, steps=TEST_ATTACK_STEPS, rng=rng).numpy()

    def measure(path: Path, kind: str, how: str) -> FileRecord:
        return FileRecord(
            kind=kind,
            how=how,
            clean_accuracy=accuracy(files.run(path, X), labels),
            pgd_accuracy=accuracy(files.run(path, near), labels),
            bytes=path.stat().st_size,
            sha256=files.sha256(path),
            opset=files.opset(path),
        )

    parent = folder / f"{recipe.name}.onnx"
    files.export(model, parent, example=torch.from_numpy(X[:2]))
    records = {recipe.name: measure(parent, recipe.kind, recipe.how)}
    for derived in DERIVED:
        if derived.parent == recipe.name:
            path = folder / f"{derived.name}.onnx"
            derived.make(parent, path, data)
            records[derived.name] = measure(path, derived.kind, f"from `{derived.parent}`: {derived.how}")

    z = exact.logits(model, X)
    temperature = exact.fit_temperature(z, labels)
    samples = exact.describe_samples(model, X, labels, temperature=temperature)
    means = {key: float(np.mean([sample[key] for sample in samples])) for key in QUANTITIES}
    difference = float(np.abs(z - files.run(parent, X)).max())
    return Made(records, Reference(temperature, difference, means, samples[:REFERENCE_SAMPLES]))


def accuracy(scores: NDArray[np.floating], labels: Labels) -> float:
    """Share of rows whose largest score is the label's."""
    return float((scores.argmax(axis=1) == labels).mean())


def tables(records: dict[str, FileRecord], references: dict[str, Reference]) -> str:
    """Both tables of the README in Markdown."""
    lines = [
        "| file | kind | clean accuracy | PGD accuracy | size, kB | sha256 starts with | opset | how it was made |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| `{name}.onnx` | {r.kind} | {r.clean_accuracy:.1%} | {r.pgd_accuracy:.1%} | {r.bytes / 1000:.0f} | "
        f"`{r.sha256[:12]}` | {r.opset} | {r.how} |"
        for name, r in records.items()
    ]
    lines += [
        "",
        "| net | temperature | confidence | λ_max | λ_max, calibrated | boundary distance | ‖J‖₂ | float32 error of logits |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, reference in references.items():
        means = " | ".join(f"{reference.means[key]:.3g}" for key in QUANTITIES)
        lines.append(f"| `{name}` | {reference.temperature:.3g} | {means} | {reference.max_logit_difference:.0e} |")
    return "\n".join(lines)


def read_json(path: Path) -> dict[str, dict]:
    """The object in the file, empty where there is none yet."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def write_records(made: list[Made], chosen: list[Recipe], *, folder: Path) -> None:
    """Bring models.json, reference.json and the README's tables up to date; entries not made now stay as they are."""
    records = {name: FileRecord(**entry) for name, entry in read_json(folder / "models.json").items()}
    references = {name: Reference(**entry) for name, entry in read_json(folder / "reference.json").items()}
    for recipe, new in zip(chosen, made, strict=True):
        records |= new.records
        references[recipe.name] = new.reference
    records = {name: records[name] for name in FILES if name in records}
    references = {recipe.name: references[recipe.name] for recipe in RECIPES if recipe.name in references}
    for file, entries in (("models.json", records), ("reference.json", references)):
        text = json.dumps({name: asdict(entry) for name, entry in entries.items()}, indent=1)
        (folder / file).write_text(text + "\n", encoding="utf-8")

    readme = folder / "README.md"
    head, rest = readme.read_text(encoding="utf-8").split(BEGIN)
    _, tail = rest.split(END)
    readme.write_text(f"{head}{BEGIN}\n{tables(records, references)}\n{END}{tail}", encoding="utf-8")


def main() -> None:
    """Parse, make, write, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=FILES, help="make this file, and the net and files it shares its training with")
    only = parser.parse_args().only
    source = next((derived.parent for derived in DERIVED if derived.name == only), only)
    chosen = [recipe for recipe in RECIPES if source in (None, recipe.name)]

    torch.set_num_threads(1)  # sums in one order, so that a second run gives the same files
    torch.use_deterministic_algorithms(True)
    data = load_data()
    np.savez_compressed(HERE / "digits.npz", inputs=data.test_images, labels=data.test_labels)
    made = []
    for recipe in chosen:
        made.append(make(recipe, data, folder=HERE))
        for name, record in made[-1].records.items():
            print(f"{name}: {record.clean_accuracy:.1%} clean, {record.pgd_accuracy:.1%} under PGD, {record.bytes} bytes")
    write_records(made, chosen, folder=HERE)


if __name__ == "__main__":
    main()
