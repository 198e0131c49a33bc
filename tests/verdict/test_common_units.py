from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from onnxfim.errors import InputError
from onnxfim.verdict.common_units import RAW_UNITS, in_common_units, same_samples
from onnxfim.verdict.compare import compare
from tests.support.audits import make_audit, with_flips

POWERS = {
    "lambda_max": -2,
    "lambda_max_calibrated": -2,
    "trace": -2,
    "boundary_distance": 1,
    "flip_radius": 1,
    "logit_sensitivity": -1,
}
APART = tuple(float(v) for v in np.random.default_rng(0).uniform(3, 9, 60) * (np.arange(60) > 0))


def _times(record, factor):
    numbers = {n: getattr(record, n) for n in ("value", "low", "high", "plain", "cross_fit") if hasattr(record, n)}
    return replace(record, **{n: None if v is None else v * factor for n, v in numbers.items()})


def scaled(audit, scale, sha="f" * 64):
    """The same audit of a model that takes ``scale`` times the raw inputs, all channels alike."""
    s = float(np.exp(np.mean(np.log(scale))))
    samples = tuple(replace(x, **{n: _times(getattr(x, n), s**p) for n, p in POWERS.items()}) for x in audit.samples)
    groups = {}
    for name, group in audit.aggregates.items():
        parts = {n: _times(getattr(group, n), s ** POWERS[name]) for n in ("mean", "median", "p95", "max", "geometric_mean")}
        groups[name] = replace(group, **parts)
    return replace(
        audit, samples=samples, aggregates=groups, data=replace(audit.data, sha256=sha),
        settings=replace(audit.settings, input_scale=tuple(scale)),
    )  # fmt: skip


@pytest.fixture(scope="module")
def audit():
    found = with_flips(make_audit(60))
    return replace(found, data=replace(found.data, apart=APART))


def test_one_model_in_two_scalings_is_one_model(audit):
    result = compare([audit, scaled(audit, (4.0,))])
    assert result.units == RAW_UNITS
    (pair,) = result.pairs
    assert pair.decided.better is None
    assert_allclose([t.ratio.value for t in pair.decided.measures], 1.0, rtol=1e-9)
    assert_allclose(result.entries[0].boundary_distance.value, result.entries[1].boundary_distance.value)
    assert_allclose(result.entries[0].flip_radius.value, result.entries[1].flip_radius.value)
    assert any("in raw input units." in note for note in result.notes)
    assert not any("within" in note for note in result.notes)


def test_the_same_scale_needs_no_other_units(audit):
    both = [scaled(audit, (4.0, 5.0, 3.0)), scaled(audit, (4.0, 5.0, 3.0))]
    assert not in_common_units(both).converted
    assert compare(both).units == audit.units


def test_channels_in_one_ratio_leave_no_slack(audit):
    found = in_common_units([scaled(audit, (4.0, 5.0, 3.0)), scaled(audit, (8.0, 10.0, 6.0), "e" * 64)])
    assert found.converted
    assert_allclose(found.slack, 0, atol=1e-12)


def test_channels_in_other_ratios_leave_what_a_direction_may_hide(audit):
    one, other = (4.0, 5.0, 3.0), (4.0, 4.0, 4.0)
    slack = in_common_units([scaled(audit, one), scaled(audit, other, "e" * 64)]).slack[0, 1]
    ratios = np.array(one) / np.array(other)
    assert_allclose(slack, np.abs(np.log(ratios) - np.log(ratios).mean()).max())
    # Any direction: its length in raw units lies within the slack of the one that the geometric mean gives.
    v = np.random.default_rng(0).normal(size=(1000, 3))
    raw = [np.linalg.norm(v / np.array(s), axis=1) * np.exp(np.mean(np.log(s))) for s in (one, other)]
    assert np.abs(np.log(raw[0] / raw[1])).max() <= slack + 1e-12
    found = compare([scaled(audit, one), scaled(audit, other, "e" * 64)])
    assert all(t.p == 1.0 for t in found.pairs[0].decided.measures)
    assert any(
        note.startswith("The models take the same samples in different scalings") and "within" in note for note in found.notes
    )


def test_other_samples_are_refused_as_before(audit):
    moved = scaled(audit, (4.0,))
    moved = replace(moved, data=replace(moved.data, apart=tuple(1.01 * a for a in APART)))
    assert not same_samples(audit, moved)
    with pytest.raises(InputError, match="the audits saw different samples"):
        compare([audit, moved])


def test_other_labels_are_other_samples(audit):
    first, *rest = audit.samples
    other = scaled(replace(audit, samples=(replace(first, label=(first.label + 1) % 10), *rest)), (4.0,))
    assert not same_samples(audit, other)


def test_older_audits_are_told_by_their_hash(audit):
    old = replace(audit, data=replace(audit.data, apart=()))
    assert same_samples(old, old)
    assert not same_samples(old, scaled(old, (4.0,)))


def test_another_order_of_axes_is_no_other_sample(audit):
    turned = replace(scaled(audit, (4.0,)), data=replace(audit.data, sha256="e" * 64, shape=(8, 8, 1)))
    assert compare([audit, turned]).count == 60
    smaller = replace(turned, data=replace(turned.data, shape=(7, 8, 1)))
    assert not same_samples(audit, smaller)


def test_the_raw_value_known_channel_by_channel_is_taken(audit):
    other = scaled(audit, (4.0, 5.0, 3.0))
    told = tuple(replace(s, lambda_max_raw_units=_times(s.lambda_max, 15.0)) for s in other.samples)
    other = replace(other, samples=told)
    found = in_common_units([audit, other]).audits[1]
    assert_allclose([s.lambda_max.value for s in found.samples], [15 * s.lambda_max.value for s in other.samples])
