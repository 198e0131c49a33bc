"""The place among reference classifiers: found by shape, units and names, and never against itself."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from onnxfim.record import reference
from onnxfim.record.fitting import from_plain
from onnxfim.record.reference import ReferenceTable, reference_table, task_of
from onnxfim.record.statistics import spearman
from onnxfim.verdict.pixels import pixel_level
from onnxfim.verdict.placing import figure_of
from onnxfim.verdict.survival import robustness
from tests.support.audits import make_audit
from tests.support.places import MODELS, needs_models
from tests.support.small_audits import cifar_like

CIFAR = next(t for t in reference_table().tasks if t.task == "CIFAR-10")


def ranks(audit):
    return {r.measure: r for r in robustness(audit).place.ranks}


def test_the_table_is_read_and_whole():
    table = reference_table()
    assert from_plain(ReferenceTable, json.loads(reference.PLACE.read_text("utf-8"))) == table
    assert {t.task: len(t.networks) for t in table.tasks} == {"CIFAR-10": 11, "MNIST": 3, "Fashion-MNIST": 1, "8x8 digits": 6}
    for task in table.tasks:
        names = [m.name for m in task.models]
        assert len(set(names)) == len(names)
        for m in task.models:
            assert m.variant_of is None or m.variant_of in names
            assert all((m.flip_radius.value, m.boundary_distance.value, m.lambda_mean.value, m.origin, m.training, m.scale))
            assert m.variant_of is not None or m.attack_l2 is not None


def test_it_leads_with_what_orders_the_references_as_attacks_do():
    """Spearman's correlations by SciPy, within each task and weighted with its networks."""
    stats = pytest.importorskip("scipy.stats")
    found = {}
    for measure, sign in (("flip_radius", 1), ("lambda_max_calibrated", -1)):
        some = [t for t in reference_table().tasks if len(t.networks) >= 3]
        rho = [
            stats.spearmanr([m.attack_l2 for m in t.networks], [sign * figure_of(m, measure) for m in t.networks])[0] for t in some
        ]
        found[measure] = np.average(rho, weights=[len(t.networks) for t in some])
    assert max(found, key=found.get) == reference_table().leads
    assert min(found.values()) > 0.9


def test_the_count_is_of_the_less_sensitive():
    for lam in (0.01, 3.0, 1e4):
        expected = sum(m.lambda_mean.value < lam for m in CIFAR.networks)
        assert ranks(cifar_like(lam))["lambda_max_calibrated"].below == expected
    for radius in (0.01, 0.5, 10.0):
        expected = sum(m.flip_radius.value > radius for m in CIFAR.networks)
        assert ranks(cifar_like(radius=radius))["flip_radius"].below == expected


@pytest.mark.parametrize(
    ("low", "high", "scale", "factor"),
    [
        (0.0, 1.0, None, 1.0),
        (0.0, 255.0, None, 255.0),
        (-2.0, 2.0, (4.0,), 4.0),  # (pixel − 0.5)/0.25
        (-2.1, 2.6, (1 / 0.229, 1 / 0.224, 1 / 0.225), 1 / 0.226),
        (-127.5, 127.5, (255.0,), 255.0),
    ],
    ids=["0 to 1", "0 to 255", "normalised", "normalised by channel", "centred bytes"],
)
def test_units_change_nothing(low, high, scale, factor):
    """The same network in other units has the same place: λ falls by the square of what distances grow by."""
    there = cifar_like(3.0 / factor**2, low=low, high=high, scale=scale, radius=0.3 * factor)
    here = ranks(cifar_like(3.0, radius=0.3))
    got = ranks(there)
    for measure, rank in here.items():
        assert got[measure].below == rank.below
        assert got[measure].value == pytest.approx(rank.value, rel=0.03)  # channels' scales differ by 2 %


def test_unknown_units_have_no_place():
    told = robustness(cifar_like(low=-2.1, high=2.6))
    assert (told.place, told.level) == (None, None)
    assert "let onnxfim normalise them (--mean, --std)" in told.no_place


@pytest.mark.parametrize(
    "shape",
    [(3, 32, 32), (32, 32, 3), (3072,)],
)
def test_shapes_of_either_layout(shape):
    assert robustness(cifar_like(shape=shape)).place.task == "CIFAR-10"


def test_other_shapes_and_kinds_have_none():
    assert robustness(cifar_like(shape=(3, 64, 64))).place is None
    hundred = cifar_like()
    assert robustness(replace(hundred, model=replace(hundred.model, num_outputs=100))).place is None
    assert robustness(replace(hundred, model=replace(hundred.model, output_kind="sigmoid"))).place is None
    assert robustness(replace(hundred, data=replace(hundred.data, synthetic=True))).place is None


def test_names_of_classes_speak():
    audit = cifar_like()
    svhn = replace(audit, data=replace(audit.data, class_names=tuple("abcdefghij")))
    told = robustness(svhn)
    assert told.place is None
    assert "its classes have other names" in told.no_place
    own = tuple(n.capitalize() for n in CIFAR.names)
    assert robustness(replace(audit, data=replace(audit.data, class_names=own))).place.task == "CIFAR-10"
    assert robustness(replace(audit, data=replace(audit.data, class_names=tuple(map(str, range(10)))))).place is not None


def test_fashion_is_not_taken_for_digits():
    audit = cifar_like(shape=(1, 28, 28))
    assert robustness(audit).place.task == "MNIST"
    fashion = replace(audit, data=replace(audit.data, source="/data/fashion_mnist.npz"))
    told = robustness(fashion)
    assert told.place is None
    assert "Fashion-MNIST" in told.no_place


def test_a_model_is_not_ranked_against_itself():
    one = CIFAR.networks[0]
    audit = cifar_like()
    own = replace(audit, model=replace(audit.model, sha256=one.sha256))
    assert robustness(audit).place.models == 11
    assert robustness(own).place.models == 10
    variant = next(m for m in CIFAR.models if m.variant_of)
    assert robustness(replace(audit, model=replace(audit.model, sha256=variant.sha256))).place.models == 10


def test_flips_found_without_gradients_are_not_held_against_those_found_with():
    audit = cifar_like()
    sketch = replace(audit, run=replace(audit.run, method="sketch"))
    assert set(ranks(sketch)) == {"lambda_max_calibrated"}


def test_training_is_named_where_both_ranks_agree():
    standard = [m for m in CIFAR.networks if m.group == "standard"]
    robust = [m for m in CIFAR.networks if m.group == "robust"]
    for group, some in (("standard", standard), ("robust", robust)):
        middle = sorted(some, key=lambda m: m.flip_radius.value)[1]
        near = cifar_like(middle.lambda_mean.value, radius=middle.flip_radius.value)
        assert robustness(near).place.like == group
    torn = cifar_like(standard[0].lambda_mean.value, radius=robust[0].flip_radius.value)
    assert robustness(torn).place.like is None
    assert robustness(cifar_like(1e6, radius=1e-4)).place.like is None


def test_pictures_are_known_by_shape_and_range():
    audit = make_audit(20)
    assert pixel_level(audit) == pytest.approx(1 / 255)  # 8x8 pixels from 0 to 1
    assert pixel_level(replace(audit, data=replace(audit.data, input_max=255.0))) == 1.0
    assert pixel_level(replace(audit, data=replace(audit.data, input_max=16.0))) is None
    assert pixel_level(replace(audit, data=replace(audit.data, shape=(13,)))) is None
    assert pixel_level(replace(audit, data=replace(audit.data, input_min=-1.0))) is None
    for kind, level in (("image", 1 / 255), ("other", 1 / 255), ("series", None), ("spectrogram", None)):
        signal = replace(audit, data=replace(audit.data, shape=(12, 100), input_kind=kind))
        assert pixel_level(signal) == pytest.approx(level)  # 12 channels of a recording are no rows of pixels
    given = replace(audit, settings=replace(audit.settings, attack_range=(0.0, 1.0)), data=replace(audit.data, input_max=0.3))
    assert pixel_level(given) == pytest.approx(1 / 255)


def test_no_shape_is_two_tasks_without_words_that_tell():
    for task in reference_table().tasks:
        for shape in task.shapes:
            assert task_of(shape, task.classes) is not None


@needs_models
def test_a_row_is_what_an_audit_gives():
    """Figures to 4 digits, measured again on another machine: float32 sums differ in order, flips by a rung of 2 %."""
    from tests.benchmarks.make_reference import row, subjects

    assert (MODELS / "manifest.json").is_file()
    subject = next(s for s in subjects() if s.name == "mnist_mlp2x256_pgd")
    known = next(m for t in reference_table().tasks for m in t.models if m.name == subject.name)
    found = row(subject)
    assert found.sha256 == known.sha256
    assert found.accuracy == known.accuracy
    for name in ("flip_radius", "boundary_distance", "lambda_mean", "lambda_median"):
        assert getattr(found, name).value == pytest.approx(getattr(known, name).value, rel=0.03), name
    assert (found.attack_l2, found.attacked) == (known.attack_l2, known.attacked)


def test_the_page_shows_the_table_that_is_shipped():
    from tests.benchmarks.make_reference import BEGIN, END, PAGE, page_tables

    page = PAGE.read_text("utf-8")
    assert page.split(BEGIN)[1].split(END)[0] == f"\n{page_tables()}"
    robust, standard = (sorted(m.flip_radius.value for m in CIFAR.networks if m.group == group) for group in ("robust", "standard"))
    told = " ".join(page.split())
    for task in (t for t in reference_table().tasks if len(t.networks) >= 3):
        attacks = np.array([m.attack_l2 for m in task.networks])
        rhos = (
            f"{spearman(attacks, np.array([figure_of(m, measure) for m in task.networks])):.2f}".rstrip("0").rstrip(".")
            for measure in ("lambda_max_calibrated", "flip_radius")
        )
        name = task.task.replace("8x8", "the")
        assert f" {' and '.join(rhos).replace('-', '−')} on {name} ({len(attacks)}" in told
    assert f"go from {robust[0]:.2f} to {robust[-1]:.2f}, of the latter from {standard[0]:.2f} to {standard[-1]:.2f}" in told
