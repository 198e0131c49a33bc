"""Inputs in other units than the model's are found, with the cause and the right scaling; right ones raise no alarm."""

import json

import numpy as np
import pytest

import onnxfim
from onnxfim.auditing.subject import from_callable
from onnxfim.record.settings import Settings
from tests.support.places import MODELS, SAMPLES, needs_models

QUICK = Settings(samples=8, replay=0, bounds=False, method="sketch", budget=24, max_budget=24)


def scaling(audit):
    return next((f for f in audit.findings if f.id == "input-scaling"), None)


def audited(name, change=lambda x: x, rows=200):
    with np.load(SAMPLES / "digits.npz") as data:
        X, y = data["inputs"][:rows], data["labels"][:rows]
    return onnxfim.audit(SAMPLES / f"{name}.onnx", change(X).astype(np.float32), y, QUICK)


@pytest.mark.parametrize("name", sorted(p.stem for p in SAMPLES.glob("*.onnx")))
def test_the_sample_models_on_their_data_raise_no_alarm(name):
    audit = audited(name)
    assert scaling(audit) is None
    # So few passes cannot tell a quantised file's slope, which is said, on processors whose integers resolve a sample and on others;
    # nothing else is wrong with any of them.
    wrong = {f.id for f in audit.findings if f.level == "error"}
    assert "no-plateau" in wrong if name.endswith("int8") else not wrong
    assert wrong <= {"no-plateau", "unresolved"}
    found = audit.data.scaling
    assert found.change is None  # none of them won anything
    if 200 * audit.calibration.nll_before < 19:
        assert found.tried == 0  # nothing to win: no pass was spent


@pytest.mark.parametrize(
    ("name", "change", "cause"),
    [
        ("digits_resnet", lambda x: 255 * x, "pixels 0 to 255"),
        ("digits_vgg", lambda x: 2 * x - 1, "pixels -1 to 1"),
        ("digits_vit", lambda x: (x - 0.1307) / 0.3081, "pixels normalised as MNIST (mean 0.1307, std 0.3081 of pixels from 0 to 1)"),
        ("digits_densenet", lambda x: x / 255, "pixels divided by 255 twice"),
        ("digits_mlp", lambda x: 255 * x, "pixels 0 to 255"),  # its accuracy stays: the likelihood tells
        ("digits_resnet_int8", lambda x: 255 * x, "pixels 0 to 255"),
    ],
)  # fmt: skip
def test_other_units_are_named(name, change, cause):
    audit = audited(name, change)
    assert audit.verdict == "inconclusive"
    finding, found = scaling(audit), audit.data.scaling
    assert finding.level == "error"
    assert finding.message.startswith(f"The data look like {cause}, the model answers as one made for pixels 0 to 1")
    assert found.accuracy_changed > 0.95
    assert found.tried <= 20


def test_the_right_scaling_that_is_named_mends_it():
    wrong = audited("digits_resnet", lambda x: 2 * x - 1)
    words = scaling(wrong).message.split()
    mean, std = (float(words[words.index(option) + 1].rstrip(".")) for option in ("--mean", "--std"))
    assert audited("digits_resnet", lambda x: ((2 * x - 1) - mean) / std).verdict == "measured"


def test_the_check_is_counted_and_kept():
    wrong = audited("digits_resnet", lambda x: 2 * x - 1)
    right = audited("digits_resnet")
    most = 20 * 16 + 4 * 32 + 3 * 152
    assert 0 < wrong.run.evaluations - right.run.evaluations <= most + 200  # the ladder may differ a little
    assert onnxfim.Audit.from_json(wrong.to_json()).data.scaling == wrong.data.scaling


def test_an_audit_smaller_than_the_check_says_that_nothing_was_tried():
    with np.load(SAMPLES / "digits.npz") as data:
        X, y = (2 * data["inputs"][:20] - 1).astype(np.float32), data["labels"][:20]
    tiny = Settings(samples=2, replay=0, bounds=False, flip=False, method="sketch", budget=12)
    audit = onnxfim.audit(SAMPLES / "digits_resnet.onnx", X, y, tiny)
    found = audit.data.scaling
    assert (found.tried, found.change) == (0, None)
    changes = int(found.unchecked.split()[1])
    told, foreseen = found.unchecked.rsplit(" ", 1)
    assert told == f"trying {changes} usual changes of the inputs takes {8 * changes} forward passes, and measuring about"
    assert int(foreseen.replace(",", "")) == pytest.approx(audit.run.evaluations, rel=0.15)  # but for what the ladder measured
    (finding,) = (f for f in audit.findings if f.id == "scaling-untried")
    assert finding.level == "note"
    assert found.unchecked in finding.message
    assert onnxfim.Audit.from_json(audit.to_json()).data.scaling == found
    larger = onnxfim.audit(SAMPLES / "digits_resnet.onnx", X, y, Settings(**{**vars(tiny), "samples": 8, "budget": 24}))
    assert (larger.data.scaling.tried, larger.data.scaling.unchecked) == (changes, None)


def test_changes_that_are_clearly_worse_end_after_four_samples():
    with np.load(SAMPLES / "digits.npz") as data:
        X, y = data["inputs"][:200], data["labels"][:200].copy()
    right = onnxfim.audit(SAMPLES / "digits_resnet.onnx", X, y, QUICK)
    y[::5] = (y[::5] + 1) % 10  # a fifth of the labels is wrong, so that there is something to win
    audit = onnxfim.audit(SAMPLES / "digits_resnet.onnx", X, y, QUICK)
    assert scaling(audit) is None
    assert right.data.scaling.tried == 0
    passes, tried = audit.run.evaluations - right.run.evaluations, audit.data.scaling.tried
    assert 4 * tried <= passes < 8 * tried


def test_a_quantiser_that_the_data_do_not_fill_contradicts_them():
    with np.load(SAMPLES / "digits.npz") as data:
        X = data["inputs"][:32]
    for factor, words in ((255, "lie beyond that range and are clipped"), (0.01, "and the inputs reach only from 0 to 0.01")):
        audit = onnxfim.audit(SAMPLES / "digits_resnet_int8.onnx", (factor * X).astype(np.float32), settings=QUICK)
        assert scaling(audit).level == "error"
        assert words in scaling(audit).message
        assert audit.verdict == "inconclusive"


def test_a_model_that_is_surer_than_any_is_doubted_without_labels():
    weights = np.random.default_rng(0).standard_normal((6, 3))
    X = np.random.default_rng(1).random((32, 6)).astype(np.float32)
    settings = Settings(method="sketch", output_kind="logits", bounds=False)
    model = from_callable(lambda rows: rows @ weights, (6,), 3)
    assert scaling(onnxfim.audit(model, X, settings=settings)) is None
    assert scaling(onnxfim.audit(model, 1e4 * X, settings=settings)).level == "error"


def test_an_honest_weak_model_is_measured():
    """Right more often than chance, unsure, and no scaling helps: nothing is wrong with the inputs."""
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((16, 4))
    X = rng.standard_normal((200, 16)).astype(np.float32)
    noisy = X @ weights + 6 * rng.gumbel(size=(200, 4))
    audit = onnxfim.audit(from_callable(lambda rows: rows @ weights / 6, (16,), 4), X, noisy.argmax(axis=1), QUICK)
    assert 0.3 < audit.calibration.accuracy < 0.8
    assert audit.verdict == "measured"


@needs_models
class TestOthers:
    RECORDS = {v["model"]: v for v in json.loads((MODELS / "manifest.json").read_text("utf-8"))} if MODELS.is_dir() else {}

    def audit(self, name, change):
        record = self.RECORDS[f"{name}.onnx"]
        with np.load(MODELS / record["data"]) as data:
            X, y = data["inputs"][:200], data["labels"][:200]
        mean, std = (np.array(record["scale"][k]).reshape(-1, 1, 1) for k in ("mean", "std"))
        if record["scale"]["layout"] == "NHWC":
            mean, std = mean.ravel(), std.ravel()
        given = change(X, X * std + mean, mean, std)
        return onnxfim.audit(MODELS / f"{name}.onnx", np.ascontiguousarray(given.astype(np.float32)), y, QUICK)

    @pytest.mark.parametrize(
        "name", ["cifar_resnet20", "cifar_cnna_adv4", "cifar_vit_pgd_2_3_16", "cifar_resnet8_float", "mnist_mlp2x256_pgd"]
    )
    def test_right_data_raise_no_alarm(self, name):
        audit = self.audit(name, lambda X, *_: X)
        assert scaling(audit) is None
        assert audit.verdict == "measured"

    @pytest.mark.parametrize("name", ["cifar_resnet20", "cifar_cnna_sgd", "cifar_resnet2b_adv", "cifar_vit_pgd_2_3_16"])
    @pytest.mark.parametrize(
        ("change", "cause"),
        [
            (lambda X, pixels, mean, std: pixels, "The data look like pixels 0 to 1,"),
            (lambda X, pixels, mean, std: np.round(255 * pixels), "The data look like pixels 0 to 255,"),
            (lambda X, pixels, mean, std: (X - mean) / std, " twice "),
        ],
    )  # fmt: skip
    def test_unit_errors_are_named(self, name, change, cause):
        audit = self.audit(name, change)
        assert audit.verdict == "inconclusive"
        message = scaling(audit).message
        assert cause in message
        assert "the model answers as one made for pixels normalised as " in message
        assert audit.data.scaling.accuracy_changed > audit.data.scaling.accuracy + 0.1
