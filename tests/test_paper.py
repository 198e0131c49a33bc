"""The answers to the published claims: planted truths are found, verdicts turn where they should, and the page takes what is missing."""

from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from tests.benchmarks.paper import (
    answers_correlation,
    answers_published,
    answers_ranking,
    answers_seeds,
    answers_strength,
    answers_twins,
    collect,
    figures,
)
from tests.benchmarks.paper import statistics as st
from tests.benchmarks.paper.cells import Cell
from tests.benchmarks.paper.page import page, write
from tests.benchmarks.paper.population import CALIBRATED, RAW, Results
from tests.benchmarks.paper.resampling import Resampling
from tests.benchmarks.paper.stages import Folder
from tests.benchmarks.paper.verdicts import CALIBRATED as AFTER
from tests.benchmarks.paper.verdicts import HOLDS, NOT, STRONG, UNDECIDED, Estimate, judge, together, with_calibration
from tests.support.paper_results import entry, failed, planted
from tests.support.places import ROOT

HERE = ROOT / "tests/benchmarks/paper"
REPLICATES = 60


def results(**how):
    return Results(planted(**how), REPLICATES)


# Statistics, against SciPy or by hand.


def test_rank_correlations_are_scipys_and_leave_out_what_is_missing():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 6, (4, 15)).astype(float), rng.standard_normal((4, 15))  # ties on one side
    assert_allclose(st.spearman(a, b), [stats.spearmanr(x, y)[0] for x, y in zip(a, b, strict=True)])
    assert_allclose(st.kendall(a, b), [stats.kendalltau(x, y)[0] for x, y in zip(a, b, strict=True)])
    a[:, 3], b[:, 7] = np.nan, np.nan
    kept = [i for i in range(15) if i not in (3, 7)]
    assert_allclose(st.spearman(a, b), [stats.spearmanr(x[kept], y[kept])[0] for x, y in zip(a, b, strict=True)])
    assert np.isnan(st.spearman(np.ones(5), b[0, :5]))


def test_partial_correlation_takes_out_a_common_cause():
    rng = np.random.default_rng(1)
    cause = rng.standard_normal(2000)
    a, b = cause + 0.5 * rng.standard_normal(2000), cause + 0.5 * rng.standard_normal(2000)
    assert st.spearman(a, b) > 0.7
    assert abs(st.partial_spearman(a, b, cause)) < 0.06  # 2.5 standard errors at n = 2000


def test_what_is_told_of_samples_leaves_out_nan():
    a = np.array([[1.0, np.nan, 4.0, 2.0], [np.nan] * 4])
    assert_allclose(st.mean(a), [7 / 3, np.nan])
    assert_allclose(st.median(a), [2, np.nan])
    assert_allclose(st.geometric_mean(a), [2, np.nan])


def test_isotonic_regression_is_scipys_and_decreasing():
    rng = np.random.default_rng(2)
    x = rng.permutation(40).astype(float)
    y = -x + 10 * rng.standard_normal(40)
    curve = st.isotonic(x, y)
    order = np.argsort(x)
    assert_allclose(st.step(curve, x[order]), -stats_isotonic(-y[order]))
    assert_allclose(st.step(curve, np.array([-9.0, 99.0])), [curve[1][0], curve[1][-1]])


def stats_isotonic(y):
    """Increasing fit by its min-max formula."""
    n = len(y)
    return np.array([max(min(y[i : k + 1].mean() for k in range(j, n)) for i in range(j + 1)) for j in range(n)])


def test_components_of_variance_are_found():
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(200), 3)
    values = rng.standard_normal(200)[groups] * 2 + rng.standard_normal(600)
    share, low, high, within = st.intraclass(values, groups)
    assert low < 0.8 < high  # 4 of 5 parts
    assert abs(share - 0.8) < 0.06
    assert_allclose(within, 1, rtol=0.08)
    first, second = np.repeat(np.arange(3), 40), np.tile(np.repeat(np.arange(4), 10), 3)
    shares = st.shares_of_variance(first * 3.0 + rng.standard_normal(120) * 0.1, first, second)
    assert shares["first"] > 0.99
    assert_allclose(sum(shares.values()), 1)


def test_concordance_and_its_chance():
    rng = np.random.default_rng(4)
    same = np.tile(np.arange(5.0), (6, 1))
    assert st.concordance(same) == 1
    assert st.concordance_p(same, times=200, rng=rng) < 0.01
    assert st.concordance_p(rng.standard_normal((6, 5)), times=200, rng=rng) > 0.01


# The bootstrap.


def test_models_of_one_configuration_are_drawn_together_and_share_their_samples():
    sampling = Resampling(["a", "a", "b", "c", "c", "c"], 10, replicates=50)
    for row in sampling.models:
        counts = np.bincount(row[row >= 0], minlength=6)
        assert counts[0] == counts[1]
        assert len(set(counts[3:])) == 1
    values = np.random.default_rng(0).standard_normal((6, 10))
    told = sampling.quantity(np.concatenate([values[:3], values[:3]]), st.mean)
    assert_allclose(told.draws[:, :3], told.draws[:, 3:])  # equal arrays stay equal in every replicate


def test_intervals_of_a_correlation_cover_it():
    """Configurations drawn from a population of rank correlation 0.67, three seeds each; 40 of 40 to 34 of 40 at 95 %."""
    rng, covered = np.random.default_rng(5), 0
    for i in range(40):
        z = rng.standard_normal(20).repeat(3)
        a, b = ((z + 0.7 * rng.standard_normal(20).repeat(3))[:, None] + 0.5 * rng.standard_normal((60, 30)) for _ in range(2))
        sampling = Resampling([str(k) for k in np.arange(20).repeat(3)], 30, replicates=150, seed=i)
        e = sampling.estimate(st.spearman, sampling.quantity(a, st.mean), sampling.quantity(b, st.mean))
        covered += e.low <= 6 / np.pi * np.arcsin(1 / 1.49 / 2) <= e.high  # of normals with correlation 1 / 1.49
    assert covered >= 34


# Verdicts, from both sides.


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.51, 0.9, HOLDS), (0.5, 0.9, UNDECIDED), (0.2, 0.49, NOT), (0.2, 0.5, UNDECIDED), (None, None, UNDECIDED)],
)
def test_one_interval_is_judged(low, high, verdict):
    assert judge(Estimate(0.4, low, high)) == verdict


def test_several_data_sets_are_judged_together():
    assert together([HOLDS, HOLDS]) == HOLDS
    assert together([HOLDS, UNDECIDED]) == UNDECIDED
    assert together([HOLDS, NOT, UNDECIDED]) == NOT
    assert together([]) == UNDECIDED
    assert [with_calibration(a, b) for a, b in ((NOT, HOLDS), (HOLDS, NOT), (UNDECIDED, NOT))] == [AFTER, HOLDS, UNDECIDED]


@pytest.mark.parametrize(
    ("raw", "calibrated", "verdict"), [(1, 1, HOLDS), (0, 1, AFTER), (-1, 1, AFTER), (-1, 0, NOT), (1, 0, HOLDS)]
)
def test_planted_correlations_are_found(raw, calibrated, verdict):
    answer = answers_correlation.answer(results(raw=raw, calibrated=calibrated))
    assert answer.verdict == verdict
    found = answer.numbers["data"]["digits"]["measures"]
    for measure, follows in ((RAW, raw), (CALIBRATED, calibrated)):
        value = found[measure.name]["l2"].value
        assert value > 0.9 if follows == 1 else value < -0.9 if follows == -1 else abs(value) < 0.6
    assert found["boundary median"]["l2"].low > 0.9


def test_planted_order_of_families_is_found_and_its_reverse_is_not():
    answer = answers_ranking.answer(results())
    assert answer.verdict == HOLDS
    assert answer.numbers["common"]["as they are"]["l2 median"]["order"] == ["densenet", "mlp", "vgg", "resnet", "vit"]
    assert answers_ranking.answer(results(families=-1.0)).verdict == NOT
    assert answers_ranking.answer(results(bound=1.0)).verdict == NOT  # attacks have the order, bounds are all alike


def test_strength_is_judged_step_by_step():
    answer = answers_strength.answer(results())
    assert answer.verdict == HOLDS
    assert answers_strength.answer(results(raw=-1)).verdict == AFTER
    assert answers_strength.answer(results(raw=-1, calibrated=-1)).verdict == NOT


def test_seeds_and_twins():
    assert answers_seeds.answer(results()).verdict == HOLDS
    assert answers_seeds.answer(results(raw=0, calibrated=0)).verdict != HOLDS
    assert answers_twins.answer(results()).numbers["rho"]["lambda_calibrated"]["change"].value is not None


# What is missing.


def test_models_that_did_not_learn_are_left_out_and_listed():
    found = planted(data_sets=("digits",))
    found["models"].append(
        entry(np.random.default_rng(1), "digits", "vit", "pgd", 8, accuracy=0.55)
    )  # chance .5, best .9: least .7
    known = Results(found, REPLICATES)
    assert "digits-vit-medium-pgd-1-grid-8" not in [m.name for m in known.usable("digits", "grid")]
    text = page(known, [])
    assert "accuracy 55.0%, under 70.0%" in text
    assert "digits-broken | train: ValueError: NaN" in text


def holed():
    """A grid with all that can be missing."""
    found = planted(data_sets=("digits", "pneumonia"), seeds=2)
    models = [m for m in found["models"] if m["audit"]]
    models[0]["audit"]["samples"]["lambda_calibrated"] = [None] * 40
    models[1]["audit"] = {"failed": "ValueError: no slope", "seconds": 1}
    models[2]["attack"]["l2"][3:9] = [None] * 6
    models[3]["audit"]["log10_fisher_bound"] = None
    del models[4]["audit"]["published"], models[5]["attack"]["corruptions"], models[5]["attack"]["ensemble"]
    models[6]["audit"]["temperature"] = None
    found["models"].append({"name": "theirs", "data": "CIFAR-10", "block": "others", "family": "VGG-like", "training": "sgd", "strength": None, "seed": None,
                            "size": "", "failed": None, "train": {"accuracy": None}, "audit": {"samples": {"right": [1, 0], "lambda_raw": [1.0, None]}}, "attack": {"l2": []}})  # fmt: skip
    return found


def single():
    found = planted(data_sets=("digits",), seeds=1)
    found["models"] = found["models"][:1]
    return found


def nothing():
    return {"schema": 1, "data": {"digits": {"side": 8, "classes": 10}}, "models": [failed("digits")]}


def again():
    found = planted(data_sets=("digits",), seeds=2)
    rng = np.random.default_rng(5)
    found["models"] += [
        m | {"block": "again"} for m in planted(data_sets=("digits",), seeds=2)["models"] if m["block"] == "grid" and m["audit"]
    ]
    found["models"] += [entry(rng, "digits", "mlp", "pgd", 101, block="again")]
    return found


@pytest.mark.parametrize("make", [holed, single, nothing, again])
def test_the_page_is_written_whatever_is_missing(make, tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(make()), "utf-8")
    first = write(path, tmp_path / "docs", replicates=20)
    text = (tmp_path / "docs/paper.md").read_text("utf-8")
    assert "nan" not in text.replace("NaN", "").lower().split()
    assert all(f"**{a.verdict}**" in text for a in first)
    assert all((tmp_path / "docs/paper" / f"{f.name}.svg").stat().st_size < 60_000 for a in first for f in a.figures)
    told = json.loads((tmp_path / "answers.json").read_text("utf-8"))
    assert list(told["answers"]) == [a.key for a in first]
    assert ("again" in told["answers"]) == (make is again)
    before = {p.name: p.read_bytes() for p in (tmp_path / "docs").rglob("*.*") if p.is_file()}
    write(path, tmp_path / "docs", replicates=20)
    assert before == {p.name: p.read_bytes() for p in (tmp_path / "docs").rglob("*.*") if p.is_file()}  # the same bytes again


def test_records_are_gathered_with_failures_and_rounded(tmp_path):
    folder = Folder(tmp_path)
    cells = [Cell("digits", "mlp", "medium", "standard", 0.0, seed, "grid") for seed in (0, 1, 2)]
    for cell in cells[:2]:
        folder.write("train", cell.name, {"accuracy": 0.98765, "said": "98 %", "seconds": 1.0})
    folder.write(
        "audit",
        cells[0].name,
        {"samples": {"right": [1], "lambda_raw": [0.000123456], "trace": [2.0]}, "published": {"black": [0.0456]}},
    )
    folder.write(
        "attack", cells[0].name, {"l2": [float("inf")], "l2_own": [0.5], "l2_ddn": [0.0], "how": "by hand", "attacks": ["DDN"]}
    )
    folder.write("audit", cells[1].name, {"failed": "ValueError: no"})
    folder.write("others", "theirs", {"failed": "OSError: gone", "seconds": 1})
    path = tmp_path / "results.json"
    assert collect.write(path, collect.results(folder, cells, {})) == path.stat().st_size
    found = json.loads(path.read_text("utf-8"))
    one, two, three, theirs = found["models"]
    assert [m["failed"] for m in found["models"]] == [None, "audit: ValueError: no", "train: not run", "others: OSError: gone"]
    assert one["train"] == {"accuracy": 0.9877, "seconds": 1}
    assert one["audit"]["samples"] == {"right": [1], "lambda_raw": [0.000123]}
    assert (one["audit"]["trace_mean"], one["audit"]["published"]) == (2.0, {"black": [0.046]})
    assert one["attack"] == {"l2": [None], "l2_own_median": 0.5, "l2_ddn_median": None}
    assert found["attacks"] == [{"data": "digits", "block": "grid", "how": "by hand", "attacks": "DDN"}]
    assert (two["train"]["accuracy"], three["train"], theirs["name"]) == (0.9877, None, "theirs")


def test_models_without_their_arrays_are_counted_by_their_means():
    found = planted(data_sets=("digits",))
    for m in found["models"]:
        if m["seed"] == 2 and m["audit"]:
            m["audit"]["black_mean"] = float(np.mean(m["audit"]["published"].pop("black")))
    told = answers_published.answer(Results(found, REPLICATES)).numbers["data"]["digits"]["black"]
    whole = answers_published.answer(results(data_sets=("digits",))).numbers["data"]["digits"]["black"]
    assert told["models"] == whole["models"] == 45
    assert told["attacks"].value == whole["attacks"].value
    assert told["ratio"].value == pytest.approx(0.1)


def test_a_file_that_is_too_large_is_not_written(tmp_path):
    with pytest.raises(collect.TooLarge, match="at most 2,000,000"):
        collect.write(tmp_path / "results.json", {"models": [{"name": "x" * 2_000_001}]})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [0.000123, 1.0, 0.5, 12345.0, 1.23e-12, -0.04, 0.0, 1e30, 2 / 3])
def test_short_numbers_are_the_same_numbers(value):
    assert float(json.loads(collect.short(value))) == value


def test_charts_are_well_formed_whatever_they_show():
    from xml.etree import ElementTree

    empty = figures.panels("none", [])
    one = figures.panels(
        "a & b",
        [
            figures.Panel(
                "<t>",
                "x",
                "y",
                [figures.Series("s", [(1.0, 2.0), (float("nan"), 1.0)], i, line=True, steps=i == 1) for i in range(6)],
            )
        ],
    )
    lines = figures.forest(
        "f", [("g", [("a", Estimate(0.5, 0.1, 0.9), 0), ("b", Estimate(None, None, None), 1)])], across="ρ", names={"first": 0}
    )
    for text in (empty, one, lines, figures.forest("f", [], across="")):
        ElementTree.fromstring(text)


# The committed results.


def by_hand(x, y):
    """Spearman's rho from mid-ranks, by counting."""
    kept = [i for i in range(len(x)) if x[i] is not None and y[i] is not None]
    x, y = ([v[i] for i in kept] for v in (x, y))
    p, q = ([sum(w < v for w in a) + (sum(w == v for w in a) + 1) / 2 for v in a] for a in (x, y))
    middle = (len(kept) + 1) / 2
    up = sum((a - middle) * (b - middle) for a, b in zip(p, q, strict=True))
    return up / (sum((a - middle) ** 2 for a in p) * sum((b - middle) ** 2 for b in q)) ** 0.5


def middle_of_the_right(model, values):
    """Median over the images that the model classifies rightly."""
    return float(np.median([v for v, right in zip(values, model["audit"]["samples"]["right"], strict=True) if right]))


def test_the_largest_correlations_of_the_committed_results():
    """Of λ and of a distance, the data set where each is largest: from the JSON, with ranks of this file."""
    results = json.loads((HERE / "results.json").read_text("utf-8"))
    told = json.loads((HERE / "answers.json").read_text("utf-8"))["answers"]["correlation"]["numbers"]["data"]
    for name in ("lambda_calibrated mean", "boundary median"):
        value, data = max((n["measures"][name]["l2"]["value"], d) for d, n in told.items())
        complete = [m for m in results["models"] if m["data"] == data and m["block"] in ("grid", "strength") and not m["failed"]]
        accuracies = [
            m["train"]["accuracy"] for m in results["models"] if m["data"] == data and m["train"] and "accuracy" in m["train"]
        ]
        chance = 1 / results["data"][data]["classes"]
        models = [m for m in complete if m["train"]["accuracy"] >= chance + (max(accuracies) - chance) / 2]
        attacks = [middle_of_the_right(m, m["attack"]["l2"]) for m in models]
        if name == "boundary median":
            measured = [middle_of_the_right(m, m["audit"]["samples"]["boundary"]) for m in models]
        else:
            arrays = [m["audit"]["samples"]["lambda_calibrated"] for m in models]
            measured = [-float(np.mean(a)) if None not in a else None for a in arrays]
        assert len(models) == told[data]["models"]
        assert by_hand(measured, attacks) == pytest.approx(value, abs=1e-4)  # four digits


def test_the_committed_page_is_that_of_the_committed_results():
    """Verdicts, point estimates and the list of models need no bootstrap; a few replicates tell them all but the intervals."""
    results = Results(json.loads((HERE / "results.json").read_text("utf-8")), 20)
    told = json.loads((HERE / "answers.json").read_text("utf-8"))["answers"]
    text = (ROOT / "docs/paper.md").read_text("utf-8")
    assert sum(not m.failed for m in results.models) >= 90
    assert all(f"{m.name} |" in text for m in results.models)
    assert all(f"**{a['verdict']}**" in text and a["line"] in text for a in told.values())
    fresh = answers_correlation.answer(results).json()["numbers"]["data"]
    for data, found in told["correlation"]["numbers"]["data"].items():
        for name, row in found["measures"].items():
            assert fresh[data]["measures"][name]["l2"]["value"] == row["l2"]["value"]


def test_what_the_readme_says_of_lambda_is_what_was_found():
    answers = json.loads((HERE / "answers.json").read_text("utf-8"))["answers"]
    numbers = answers["correlation"]["numbers"]
    found = numbers["data"] | numbers["others"]
    rho = {d: f"{n['measures']['lambda_raw mean']['l2']['value']:.2f}" for d, n in found.items()}
    text = " ".join((ROOT / "README.md").read_text("utf-8").split())
    assert f"Over {sum(n['models'] for n in found.values())} classifiers of four data sets" in text
    shares = f"ρ = {rho['digits']} on digits, {rho['fashion']} on Fashion-MNIST, {rho['pneumonia']} on chest X-rays, {rho['CIFAR-10']} on CIFAR-10"
    assert shares in text
    cells = [c for by_training in numbers["by_training"].values() for c in by_training.values()]
    assert all(c["lambda_raw mean"]["low"] <= STRONG <= c["lambda_raw mean"]["high"] for c in cells)  # among models trained alike
    less = [n["calibrated_less_raw"] for n in found.values()]
    assert all(d["low"] <= 0 <= d["high"] for d in less)  # whether calibration helps
    assert answers["ranking"]["verdict"] == NOT
