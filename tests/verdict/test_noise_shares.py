"""Shares of samples that are stable under noise, and gates on them: from records alone."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import beta, binom

from onnxfim.errors import SettingsError
from onnxfim.record.audit import Audit
from onnxfim.record.guarantees import NoiseStability
from onnxfim.record.successive_looks import OF_POPULATION, looks, noise_level
from onnxfim.report.gate_words import gate_words
from onnxfim.verdict import decide, judge, parse_gate
from onnxfim.verdict.expect import expect
from onnxfim.verdict.foreseen import Planned, obstacle, too_few_rows
from onnxfim.verdict.noise_shares import noise_summaries, population, tries_needed
from tests.support.audits import make_audit

GAUSSIAN, UNIFORM = "gaussian:0.1", "uniform:8/255"
STABLE = NoiseStability(GAUSSIAN, 1152, 1152, 0.9905, 1.0, "stable")
UNSTABLE = NoiseStability(GAUSSIAN, 64, 40, 0.3, 0.9, "unstable")
OPEN = NoiseStability(GAUSSIAN, 4000, 3950, 0.98, 0.993, "open")
UNTRIED = NoiseStability(GAUSSIAN, 0, 0, 0.0, 1.0, "open", "the run was interrupted before it was tried")


def noisy(counts, noise=(GAUSSIAN,), **settings):
    """An audit whose samples are so many stable, unstable and open ones under the first noise; the same under others."""
    kinds = [STABLE] * counts[0] + [UNSTABLE] * counts[1] + [OPEN] * counts[2] + [UNTRIED] * (counts[3] if len(counts) > 3 else 0)
    audit = make_audit(len(kinds))
    samples = [replace(s, noise=tuple(replace(k, noise=n) for n in noise)) for s, k in zip(audit.samples, kinds, strict=True)]
    return judge(replace(audit, samples=tuple(samples), settings=replace(audit.settings, noise=noise, **settings)))


def decided(audit, text):
    (result,) = decide(audit, [parse_gate(text)])
    return result


class TestSummary:
    def test_these_samples_and_the_population(self):
        (found,) = noisy((90, 4, 6)).noise
        assert (found.samples, found.stable_samples, found.unstable_samples) == (100, 90, 4)
        assert (found.share.value, found.share.low, found.share.high) == (0.9, 0.9, 0.96)
        tail = OF_POPULATION / 2  # SciPy's own quantiles
        assert_allclose(found.population.low, beta.ppf(tail, 90, 11), rtol=1e-9)
        assert_allclose(found.population.high, beta.ppf(1 - tail, 97, 4), rtol=1e-9)
        assert found.confidence == pytest.approx(0.95)
        assert (found.stable, found.budget, found.tries) == (0.99, 4000, 90 * 1152 + 4 * 64 + 6 * 4000)

    def test_several_noises_share_what_may_be_wrong(self):
        found = noisy((90, 4, 6), (GAUSSIAN, UNIFORM)).noise
        assert [s.noise for s in found] == [GAUSSIAN, UNIFORM]
        assert_allclose(found[0].population.low, beta.ppf(OF_POPULATION / 4, 90, 11), rtol=1e-9)

    def test_samples_that_were_not_tried_are_not_counted(self):
        (found,) = noisy((10, 0, 0, 5)).noise
        assert found.samples == 10
        assert noisy((0, 0, 0, 5)).noise == ()
        assert make_audit(3).noise == ()

    def test_it_follows_from_a_saved_record(self):
        audit = noisy((90, 4, 6))
        again = Audit.from_json(audit.to_json())
        assert again == audit
        assert noise_summaries(replace(again, noise=())) == audit.noise

    @pytest.mark.parametrize("true", [0.99, 0.9, 0.5])
    def test_the_population_is_covered_with_the_samples_undecided(self, true):
        """2000 draws of 60 samples, a tenth of them left open by chance: at most 4 % and three standard errors miss."""
        rng = np.random.default_rng(1)
        stable = rng.binomial(60, true, 2000)
        least, most = stable - rng.binomial(stable, 0.1), 60 - (60 - stable - rng.binomial(60 - stable, 0.1))
        ends = {(a, b): population(int(a), int(b), 60, 1) for a, b in set(zip(least.tolist(), most.tolist(), strict=True))}
        held = [ends[a, b][0] <= true <= ends[a, b][1] for a, b in zip(least.tolist(), most.tolist(), strict=True)]
        assert np.mean(held) >= 1 - OF_POPULATION - 3 * math.sqrt(OF_POPULATION / 2000)

    def test_tries_that_are_needed(self):
        """About: within a factor of two of the tries at which the exact test decides."""
        for kept, share in ((0.999, 0.99), (0.95, 0.99), (0.7, 0.9)):
            told = tries_needed(NoiseStability(GAUSSIAN, 10000, round(10000 * kept), 0, 1, "open"), share, 1e-5)
            tail = binom.cdf if kept > share else binom.sf
            needed = next(m for m in range(20, 20000, 20) if tail(round(m * (1 - kept)) - (kept < share), m, 1 - share) <= 1e-5)
            assert needed / 2 < told < 2 * needed
        assert tries_needed(replace(OPEN, tries=1000, kept=990), 0.99, 1e-5) == math.inf


class TestGates:
    @pytest.mark.parametrize(
        ("counts", "text", "verdict"),
        [
            ((400, 0, 0), "noise.stable_share < 99%", "pass"),
            ((380, 0, 0), "noise.stable_share < 99%", "inconclusive"),
            ((380, 20, 0), "noise.stable_share < 99%", "fail"),
            ((380, 20, 0), "noise.stable_share < 90%", "pass"),
            ((390, 0, 10), "noise.stable_share < 99%", "inconclusive"),
            ((99, 0, 0), "noise.stable_share_here < 99%", "pass"),
            ((98, 2, 0), "noise.stable_share_here < 99%", "fail"),
            ((98, 0, 2), "noise.stable_share_here < 99%", "inconclusive"),
            ((99, 0, 1), "noise.stable_share_here < 99%", "pass"),
            ((98, 0, 2), "noise.stable_share_here <= 98%", "inconclusive"),
            ((50, 50, 0), "noise.stable_share > 90%", "pass"),
        ],
    )
    def test_they_are_decided_on_the_interval(self, counts, text, verdict):
        result = decided(noisy(counts), text)
        assert result.verdict == verdict
        assert (result.advice is None) == (verdict != "inconclusive")

    def test_of_several_noises_the_worst_counts(self):
        audit = noisy((100, 0, 0), (GAUSSIAN, UNIFORM))
        other = [replace(s, noise=(s.noise[0], replace(UNSTABLE, noise=UNIFORM))) for s in audit.samples[:30]]
        audit = judge(replace(audit, samples=(*other, *audit.samples[30:])))
        assert decided(audit, "noise.stable_share_here < 99%").value == 0.7
        assert decided(audit, f"noise[{GAUSSIAN}].stable_share_here < 99%").verdict == "pass"
        assert decided(audit, "noise[uniform:16/510].stable_share_here < 99%").verdict == "fail"
        both = [decided(audit, f"noise[{n}].stable_share < 50%") for n in (GAUSSIAN, UNIFORM)]
        one = decided(audit, "noise.stable_share < 50%")
        assert (one.low, one.high) == (min(b.low for b in both), min(b.high for b in both))

    def test_they_are_printed_as_shares(self):
        told = gate_words(decided(noisy((90, 4, 6)), "noise.stable_share < 0.9"))
        assert told.startswith("noise.stable_share < 0.9: 90.0\u00a0% (95 % interval 82.")

    def test_expected_the_other_way_round(self):
        audit = noisy((400, 0, 0))
        assert expect(audit, "noise.stable_share >= 99%").verdict == "pass"
        assert expect(audit, f"noise[{GAUSSIAN}].stable_share_here >= 100%").verdict == "pass"
        assert expect(audit, "noise.stable_share < 50%").verdict == "fail"

    def test_more_samples_are_advised_where_those_would_settle_it(self):
        audit = noisy((380, 0, 0))
        advice = decided(audit, "noise.stable_share < 99%").advice
        more, whole = (int(n.replace(",", "")) for n in re.findall(r"About ([\d,]+) more samples \(([\d,]+) in all\)", advice)[0])
        assert more == whole - 380
        assert population(whole, whole, whole, 1)[0] >= 0.99 > population(380, 380, 380, 1)[0]
        assert whole <= 1.05 * 390

    def test_more_rows_are_advised_where_open_samples_are_in_the_way(self):
        advice = decided(noisy((390, 0, 10)), "noise.stable_share < 98%").advice
        assert "10 of 400 samples are open after 4,000 rows, and may settle it." in advice
        rows = int(re.findall(r"--noise-budget (\d+)\)", advice)[0])
        assert rows > 4000
        level = noise_level(400, 1) / 2
        assert rows == pytest.approx(1.3 * tries_needed(OPEN, 0.99, level), rel=0.01)

    def test_samples_on_the_very_threshold_need_another_threshold(self):
        near = replace(OPEN, kept=3960)
        audit = noisy((98, 0, 2))
        samples = [replace(s, noise=(near,)) if s.noise[0].decided == "open" else s for s in audit.samples]
        advice = decided(judge(replace(audit, samples=tuple(samples))), "noise.stable_share_here < 99%").advice
        assert "They are too close to the share asked for: move --noise-stable" in advice

    @pytest.mark.parametrize(
        ("noise", "text", "words"),
        [
            ((), "noise.stable_share < 99%", r"no noise is added. Give --noise"),
            ((GAUSSIAN,), f"noise[{UNIFORM}].stable_share < 99%", r"uniform:8/255 is not among the noises \(gaussian:0.1\). Give --noise uniform"),
        ],
    )  # fmt: skip
    def test_what_was_not_measured_is_said(self, noise, text, words):
        result = decided(noisy((5, 0, 0), noise) if noise else make_audit(5), text)
        assert result.verdict == "inconclusive"
        assert result.value is None
        assert re.search(words, result.comparison)
        assert re.search(words, result.advice)
        found = obstacle(parse_gate(text), Planned(5, noises=noise))
        assert found.never
        assert re.search(words, found.message)

    def test_noise_under_which_nothing_was_tried(self):
        result = decided(noisy((0, 0, 0, 4)), "noise.stable_share < 99%")
        assert result.verdict == "inconclusive"
        assert "the run was interrupted before it was tried" in result.comparison

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("noise[gauss:1].stable_share < 1", r"'gauss:1' is not one of gaussian:SIZE, uniform:SIZE"),
            ("noise[].stable_share < 1", r"'' is not one of"),
            ("noise[gaussian:0].stable_share < 1", r"'gaussian:0' has the size 0, expected one above 0"),
            ("lambda_max[gaussian:1].mean < 1", r"takes nothing in brackets there"),
            ("noise.stable_share[gaussian:1] < 1", r"takes nothing in brackets there"),
            ("noise[gaussian:1][gaussian:2].stable_share < 1", r"takes nothing in brackets there"),
            ("noise[gaussian:1].lambda_max < 1", r"takes nothing in brackets there"),
            ("noise.stable < 1", r"'noise.stable' is no measure. The nearest name is 'noise.stable_share'"),
            ("noise[gaussian:1.stable_share < 1", r"cannot be read"),
            ("noise.stable_share", r"nothing to compare noise.stable_share with"),
        ],
    )
    def test_names_that_are_none(self, text, words):
        with pytest.raises(SettingsError, match=words):
            parse_gate(text)


class TestForeseen:
    def said(self, text, samples, **planned):
        return obstacle(parse_gate(text), Planned(samples, **{"noises": (GAUSSIAN,), **planned}))

    def test_so_few_samples_cannot_show_it(self):
        found = self.said("noise.stable_share < 99%", 200)
        assert not found.never
        assert "cannot pass on 200 samples: were all of them stable, the 95 % interval would still begin at 98 %." in found.message
        needed = int(re.findall(r"Give ([\d,]+) samples", found.message)[0])
        assert population(needed, needed, needed, 1)[0] >= 0.99 > population(needed - 1, needed - 1, needed - 1, 1)[0]
        assert self.said("noise.stable_share < 99%", needed) is None
        assert self.said("noise.stable_share_here < 99%", 200) is None
        assert decided(noisy((200, 0, 0)), "noise.stable_share < 99%").verdict == "inconclusive"

    def test_a_whole_population_is_never_shown(self):
        assert "no number of samples shows that 100 %" in self.said("noise.stable_share < 100%", 10**6, noise_budget=10**5).message

    def test_so_few_rows_show_no_sample_to_be_stable(self):
        for text in ("noise.stable_share < 50%", "noise.stable_share_here < 50%"):
            found = self.said(text, 200, noise_budget=500)
            assert not found.never
            assert "cannot pass: 500 rows a sample show none of 200 samples to keep its prediction with 99 %" in found.message
        needed = int(re.findall(r"--noise-budget (\d+)", found.message)[0])
        assert looks(0.99, noise_level(200, 1), needed).soonest == needed
        assert too_few_rows(Planned(200, noises=(GAUSSIAN,), noise_budget=needed)) is None
        assert too_few_rows(Planned(200)) is None

    def test_a_gate_that_fails_above_is_not_in_the_way(self):
        assert self.said("noise.stable_share > 99%", 10) is None
