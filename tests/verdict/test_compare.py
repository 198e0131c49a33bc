import json
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from onnxfim.errors import InputError
from onnxfim.record.audit import InputInfo
from onnxfim.record.sample import Estimate
from onnxfim.report.comparison_csv import render_comparison_csv
from onnxfim.report.comparison_html import render_comparison_html
from onnxfim.report.comparison_markdown import render_comparison_markdown
from onnxfim.report.page.comparison_page import build_comparison_page
from onnxfim.verdict.common_units import in_common_units
from onnxfim.verdict.compare import compare
from onnxfim.verdict.judge import judge
from onnxfim.verdict.survival import robustness
from tests.support.audits import HOSTILE, hostile, make_attack, make_audit, with_flips
from tests.support.pages import foreign_scripts, read
from tests.support.small_audits import heavy, with_values


def three(n=200):
    """Audits of which the second is the first with noise, and the third three times as sensitive."""
    rng = np.random.default_rng(0)
    audit = make_audit(n)
    values = heavy(n, rng, 1.0)
    others = (
        ("first", values),
        ("same", values * np.exp(rng.normal(0, 0.2, n) - 0.02)),
        ("worse", 3 * values * np.exp(rng.normal(0, 0.2, n))),
    )
    return [replace(with_values(audit, v), model=replace(audit.model, name=name)) for name, v in others]


@pytest.fixture(scope="module")
def comparison():
    return compare(three())


def test_a_measure_that_is_named_ranks_by_its_mean():
    comparison = compare(three(), measure="lambda_max_calibrated")
    assert comparison.ranked_by == "lambda_max_calibrated"
    assert {t.question for p in comparison.pairs for t in p.decided.measures} == {"log_lambda", "mean_lambda"}
    means = [comparison.entries[i].mean.value for i in comparison.order]
    assert means == sorted(means)
    assert [comparison.entries[i].rank for i in comparison.order] == [1, 2, 3]


def test_ranks_stay_open_where_nothing_is_significant(comparison):
    ranks = {e.name: (e.rank_low, e.rank_high) for e in comparison.entries}
    assert ranks == {"first": (1, 2), "same": (1, 2), "worse": (3, 3)}


def test_pairs_are_corrected_for_their_number(comparison):
    found = {(p.first, p.second): p for p in comparison.pairs}
    assert set(found) == {(0, 1), (0, 2), (1, 2)}
    assert [p.significant for p in found.values()] == [False, True, True]
    assert all(p.p_holm >= p.p for p in found.values())
    assert_allclose(found[0, 2].ratio.value, 3, rtol=0.1)
    # Ratios are consistent: they are of means over the same samples.
    assert_allclose(found[0, 2].ratio.value, found[0, 1].ratio.value * found[1, 2].ratio.value, rtol=1e-9)


def test_an_audit_equals_itself():
    audit = make_audit(100)
    (pair,) = compare([audit, audit]).pairs
    assert (pair.p, pair.significant, pair.ratio.low, pair.ratio.high) == (1.0, False, 1.0, 1.0)


def test_order_of_the_audits_changes_nothing_but_positions(comparison):
    turned = compare(three()[::-1])
    assert [turned.entries[i].name for i in turned.order] == [comparison.entries[i].name for i in comparison.order]
    there = {frozenset((comparison.entries[p.first].name, comparison.entries[p.second].name)): p.p for p in comparison.pairs}
    back = {frozenset((turned.entries[p.first].name, turned.entries[p.second].name)): p.p for p in turned.pairs}
    assert there == back


def test_classes_are_means_of_their_samples(comparison):
    assert sum(c.count for c in comparison.classes) == comparison.count
    for c in comparison.classes:
        mine = np.array([s.values for s in comparison.samples if s.label == c.index])
        assert_allclose(c.means, mine.mean(axis=0))
        assert_allclose([r.value for r in c.ratios], mine.mean(axis=0)[1:] / mine.mean(axis=0)[0])


def test_correlations_hold_every_pair_of_measures(comparison):
    found = {(c.first, c.second) for c in comparison.correlations if c.entry == 0}
    assert len(found) == 15  # six measures, attack distances not among them
    rho = {(c.first, c.second): c.rho.value for c in comparison.correlations if c.entry == 0}
    assert rho["lambda_max", "trace"] == pytest.approx(1.0)


def test_attack_distances_join_where_samples_have_them(monkeypatch):
    audits = three(50)
    kind = type(audits[0].samples[0])
    monkeypatch.setattr(kind, "attack_distance", property(lambda s: Estimate(1.0 / (1 + s.index))), raising=False)
    assert any(c.second == "attack_distance" and c.rho.value is not None for c in compare(audits).correlations)


def test_names_are_made_distinct():
    audit = make_audit(30)
    assert [e.name for e in compare([audit, audit]).entries] == ["digits_resnet (1)", "digits_resnet (2)"]


def test_json_holds_no_nan_and_all_fields(comparison):
    record = json.loads(comparison.to_json(), parse_constant=lambda word: pytest.fail(word))
    assert record["entries"][2]["name"] == "worse"
    assert len(record["samples"]) == comparison.count


@pytest.mark.parametrize("audits", [[], [make_audit(5)]])
def test_one_audit_is_too_few(audits):
    with pytest.raises(InputError, match=f"{len(audits)} audit was given, expected two or more"):
        compare(audits)


def test_a_comparison_shows_itself_in_two_lines(comparison):
    text = repr(comparison)
    assert text.startswith(
        f"<Comparison of {len(comparison.entries)} models on {comparison.count} samples; the most robust first: "
    )
    assert len(text.splitlines()) == 2


def test_what_differs_is_told_in_few_digits_and_where_these_are_equal_in_all():
    audit = make_audit(30)
    steps = (audit.run.step * 3.00001, audit.run.step * (1 + 1e-9))
    told = [compare([audit, replace(audit, run=replace(audit.run, step=s))]).differences[0] for s in steps]
    wide, close = (next((d.baseline, d.current) for d in found if d.name == "run.step") for found in told)
    assert wide == (f"{audit.run.step:.4g}", f"{steps[0]:.4g}")
    assert close == (str(audit.run.step), str(steps[1]))


@pytest.mark.parametrize(("held", "words"), [((0,), "1 of 2 audits hold"), ((0, 1), "All audits hold"), ((), None)])
def test_attacks_are_said_to_decide_nothing(held, words):
    audits = [make_audit(30, seed=k) for k in range(2)]
    audits = [replace(a, attack=make_attack(30) if k in held else None) for k, a in enumerate(audits)]
    notes = [n for n in compare(audits).notes if "Attacks decide nothing" in n]
    assert [n.partition(" an attack")[0] for n in notes] == ([] if words is None else [words])


def test_audits_of_other_data_are_refused():
    audit = make_audit(5)
    model = replace(audit.model, input="images")  # the name of a model's only input is its own affair
    with pytest.raises(InputError, match=r"the audits saw different samples\. Audit both on the same .* labels\.$"):
        compare([audit, replace(audit, model=model, data=replace(audit.data, sha256="0" * 64))])


def test_models_that_read_other_inputs_of_the_data_are_refused_with_the_reason():
    audit = make_audit(5)
    mask = tuple(
        InputInfo(name, "int64", ("N", 4), role) for name, role in (("x", "perturbed"), ("mask", "held"), ("y", "not read"))
    )
    other = replace(audit, data=replace(audit.data, sha256="0" * 64), model=replace(audit.model, inputs=mask))
    with pytest.raises(InputError, match=rf"One model reads 'mask', 'x' of them, the other '{audit.model.input}'"):
        compare([audit, other])


def test_raw_values_are_noted():
    audit = make_audit(50, labels=False)
    assert any("Raw values are compared" in note for note in compare([audit, audit]).notes)


def test_the_page_says_what_the_comparison_says(comparison):
    page = read(render_comparison_html(comparison))
    assert not page.problems
    text = next(e.text for e in page.elements if e.tag == "main")
    for entry in comparison.entries:
        assert entry.name in text
    assert "2 of 3 pairs decided" in text
    ids = [e.attributes["id"] for e in page.elements if "id" in e.attributes]
    assert len(ids) == len(set(ids))
    links = [e.attributes["href"][1:] for e in page.elements if e.tag == "a"]
    assert set(links) <= set(ids)


def test_the_page_loads_nothing_and_runs_nothing(comparison):
    page = read(render_comparison_html(comparison))
    assert foreign_scripts(page.elements) == []
    assert {"link", "iframe", "img"}.isdisjoint(e.tag for e in page.elements)
    assert not any(name.startswith("on") or name == "style" for e in page.elements for name in e.attributes)


def test_hostile_names_are_inert():
    html = render_comparison_html(compare([hostile(make_audit(30)), hostile(make_audit(30))]))
    page = read(html)
    assert not page.problems
    assert foreign_scripts(page.elements) == []
    assert {"img", "b"}.isdisjoint(e.tag for e in page.elements)
    assert "\u202e" not in html
    markdown = render_comparison_markdown(compare([hostile(make_audit(30)), hostile(make_audit(30))]))
    assert not any(text in markdown for text in HOSTILE if "<" in text)


def test_the_formats_tell_the_same_numbers(comparison):
    html = read(render_comparison_html(comparison))
    markdown = render_comparison_markdown(comparison)
    texts = [e.text for e in html.elements if e.tag == "span" and e.attributes.get("class") == "value"]
    for value in texts:
        assert value.replace("_", "\\_") in markdown or value.isdigit() or value in "".join(texts)
    for pair in comparison.pairs:
        assert f"{pair.ratio.value:.3g}"[:4] in markdown


def test_a_thousand_samples_stay_small():
    audits = [make_audit(1000), make_audit(1000, seed=1)]
    html = render_comparison_html(compare(audits))
    assert len(html.encode()) < 2_000_000


def test_the_bound_stands_beside_the_estimates():
    from onnxfim.record.bound import Bound

    bound = Bound(True, "", 3.1, 5.9, (), ())
    audits = [replace(make_audit(40, seed=0), bound=bound), make_audit(40, seed=1)]
    result = compare(audits)
    assert [e.log10_fisher_bound for e in result.entries] == [5.9, None]
    page = render_comparison_html(result)
    assert "Bound by the weights" in page
    assert ">5.90<" in "".join(page.split())


@pytest.mark.parametrize("scales", [(None, None), ((4.0,), (4.0,)), ((4.0,), (2.0,)), ((4.0,), None)])
def test_the_medians_are_those_that_each_models_own_card_tells(scales):
    audits = []
    for seed, scale in enumerate(scales):
        found = with_flips(make_audit(40, seed=seed))
        apart = tuple(float(v) for v in np.random.default_rng(0).uniform(3, 9, 40) * (np.arange(40) > 0))
        settings = replace(found.settings, input_scale=scale)
        audits.append(replace(found, data=replace(found.data, apart=apart), settings=settings, robustness=None))
    comparison = compare(audits)
    for entry, audit in zip(comparison.entries, audits, strict=True):
        told = robustness(audit)
        for name in ("flip_radius", "boundary_distance"):
            half, median = told.curve(name).reached[1], getattr(entry, name)
            assert (median.value, median.low, median.high) == (half.epsilon, half.low, half.high)
    assert comparison.distance_units == ("model input units" if scales == (None, None) else "raw input units")
    note = build_comparison_page(comparison).standing_note
    assert f"distances of each model’s rightly classified samples in {comparison.distance_units}, L2" in note


def test_the_flip_radius_stands_beside_the_boundary_distance():
    audits = [with_flips(make_audit(40, seed=0)), make_audit(40, seed=1)]
    comparison = compare(audits)
    assert comparison.entries[0].flip_radius.value == robustness(audits[0]).curve("flip_radius").reached[1].epsilon
    assert comparison.entries[1].flip_radius is None
    page = build_comparison_page(comparison)
    place = page.ranking.columns.index("Median flip radius")
    assert page.ranking.columns[place - 1] == "Median boundary distance"
    cells = {row.head: row.cells[place] for row in page.ranking.rows}
    told = {c.kind for c in cells.values() if c.text != "not measured"}
    assert told == {"sketched direction"}, "a sketched direction is longer than the model's own, and is called so"


class TestCertifiedRadii:
    """What is guaranteed stands beside the flip radii where all audits asked for it."""

    @staticmethod
    def certified(audit, radius, **settings):
        known = Estimate(radius, radius, None, "lower bound", "local bounds")
        samples = tuple(replace(s, certified_radius=known, certified_radius_linf=known, flip_radius=None) for s in audit.samples)
        return judge(replace(audit, samples=samples, settings=replace(audit.settings, **settings)))

    def test_medians_of_both_norms(self):
        audits = [self.certified(make_audit(40), radius) for radius in (0.02, 0.03)]
        found = compare(audits)
        assert [e.certified_radius.value for e in found.entries] == [0.02, 0.03]
        assert [e.certified_radius_linf.value for e in found.entries] == [0.02, 0.03]
        page = build_comparison_page(found)
        columns = page.ranking.columns
        assert {"Median certified radius", "Median certified radius, L∞"} <= set(columns)
        assert "certified_radius_linf" in render_comparison_csv(found).splitlines()[0]

    def test_not_where_one_did_not_ask(self):
        plain = judge(make_audit(40))
        found = compare([plain, self.certified(make_audit(40), 0.03)])
        assert all(e.certified_radius is None for e in found.entries)
        assert not any("ertified" in c for c in build_comparison_page(found).ranking.columns)

    def test_raw_units_are_those_that_all_share(self):
        """Of the same samples in two scalings: brackets are in raw units already, and are not scaled again."""
        plain = make_audit(40)
        apart = tuple(float(i) for i in range(plain.data.count))
        plain = replace(plain, data=replace(plain.data, apart=apart))
        one, other = self.certified(plain, 0.02), replace(plain, data=replace(plain.data, sha256="f" * 64))
        found = in_common_units([one, self.certified(other, 0.03, input_scale=(4.0,))])
        assert found.converted
        assert [a.samples[0].certified_radius.value for a in found.audits] == [0.02, 0.03]
        assert [b.bracket[0].low.value for b in found.audits] == [0.02, 0.03]
