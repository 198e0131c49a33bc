import math
from dataclasses import replace

import pytest

from onnxfim.auditing.summary import aggregate_of
from onnxfim.errors import SettingsError
from onnxfim.record.audit import Calibration
from onnxfim.record.decision import Aggregate, Finding, overall
from onnxfim.record.sample import Estimate
from onnxfim.verdict import decide, parse_gate
from onnxfim.verdict.gates import gate_names
from tests.support.audits import make_audit


def with_mean(low, value, high, n=200):
    audit = make_audit(n)
    group = audit.aggregates["lambda_max"]
    mean = Aggregate(value, low, high, 0.95, "test")
    return replace(audit, aggregates={**audit.aggregates, "lambda_max": replace(group, mean=mean)})


def verdict(audit, text):
    (result,) = decide(audit, [parse_gate(text)])
    return result.verdict


@pytest.mark.parametrize(
    ("text", "name", "operator", "threshold"),
    [
        ("lambda_max.p95 > 12.5", "lambda_max.p95", ">", 12.5),
        ("  lambda_max_calibrated.mean>=1e-3 ", "lambda_max_calibrated.mean", ">=", 1e-3),
        ("boundary_distance.median < .5", "boundary_distance.median", "<", 0.5),
        ("clean_accuracy <= 90%", "clean_accuracy", "<=", 0.9),
        ("temperature > -1", "temperature", ">", -1.0),
        ("findings.error", "findings.error", ">", 0.0),
        ("findings.warning > 3", "findings.warning", ">", 3.0),
    ],
)
def test_gates_are_read(text, name, operator, threshold):
    gate = parse_gate(text)
    assert (gate.name, gate.operator, gate.threshold) == (name, operator, threshold)
    assert gate.text == text.strip()


@pytest.mark.parametrize("name", gate_names())
def test_every_name_can_be_decided(name):
    (result,) = decide(make_audit(100), [parse_gate(f"{name} > 1")])
    assert result.name == name
    assert result.comparison


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lamda_max.p95 > 1", r"'lamda_max.p95' is no measure. The nearest name is 'lambda_max.p95'"),
        ("lambda_max.p99 > 1", r"The nearest name is 'lambda_max.p95'"),
        ("accuracy < 0.9", r"The nearest name is 'clean_accuracy'"),
        ("findings.errors > 0", r"The nearest name is 'findings.error'"),
        ("lambda_max.mean", r"nothing to compare lambda_max.mean with. Give an operator and a number"),
        ("lambda_max.mean == 1", r"cannot be read, expected NAME OPERATOR NUMBER"),
        ("lambda_max.mean > nan", r"cannot be read"),
        ("lambda_max.mean > 1e999", r"1e999 is too large"),
        ("", r"cannot be read"),
    ],
)
def test_what_is_no_gate_is_an_error(text, message):
    with pytest.raises(SettingsError, match=message):
        parse_gate(text)


@pytest.mark.parametrize(
    ("operator", "threshold", "expected"),
    [
        (">", 0.5, "fail"), (">", 1.0, "inconclusive"), (">", 2.0, "inconclusive"), (">", 3.0, "pass"), (">", 3.1, "pass"),
        (">=", 1.0, "fail"), (">=", 3.0, "inconclusive"), (">=", 3.1, "pass"),
        ("<", 3.1, "fail"), ("<", 3.0, "inconclusive"), ("<", 1.0, "pass"),
        ("<=", 3.0, "fail"), ("<=", 1.0, "inconclusive"), ("<=", 0.9, "pass"),
    ],
)  # fmt: skip
def test_the_whole_interval_decides(operator, threshold, expected):
    assert verdict(with_mean(1.0, 2.0, 3.0), f"lambda_max.mean {operator} {threshold}") == expected


def test_the_comparison_is_unrounded():
    (result,) = decide(with_mean(1.0 / 3, 0.6666666666666666, 1.2345678901234567), [parse_gate("lambda_max.mean > 5")])
    for number in ("0.3333333333333333", "0.6666666666666666", "1.2345678901234567", "5.0"):
        assert number in result.comparison


@pytest.mark.parametrize(("n", "bounded"), [(71, False), (72, True)])
def test_the_95th_percentile_has_an_upper_end_from_72_samples_on(n, bounded):
    # 0.95^n ≤ 2.5 % from n = 72 on: below, the largest sample may well lie under the percentile.
    (result,) = decide(make_audit(n), [parse_gate("lambda_max.p95 > 1e9")])
    assert (result.high is not None) == bounded
    assert result.verdict == ("pass" if bounded else "inconclusive")
    if not bounded:
        assert "at least 1 more are needed (72 in all)" in result.advice


def test_a_violated_percentile_fails_with_few_samples_too():
    assert verdict(make_audit(64), "lambda_max.p95 > 1e-9") == "fail"


def test_the_mean_of_one_sample_decides_nothing():
    audit = make_audit(1)
    group = audit.aggregates["lambda_max"]
    mean = replace(group.mean, confidence=0.0)
    audit = replace(audit, aggregates={**audit.aggregates, "lambda_max": replace(group, mean=mean)})
    assert verdict(audit, "lambda_max.mean > 1e9") == "inconclusive"


@pytest.mark.parametrize(
    ("levels", "error", "warning"), [((), "pass", "pass"), (("warning",), "pass", "fail"), (("error",), "fail", "pass")]
)
def test_findings_are_counted(levels, error, warning):
    audit = replace(make_audit(20), findings=tuple(Finding("x", level, "x") for level in levels))
    assert verdict(audit, "findings.error > 0") == error
    assert verdict(audit, "findings.warning") == warning


def test_accuracy_is_decided_on_its_interval():
    audit = replace(make_audit(100), calibration=Calibration(0.95, 0.9, 0.98, 0.9, 1.0, 0.1, 0.1))
    assert verdict(audit, "clean_accuracy < 0.9") == "pass"
    assert verdict(audit, "clean_accuracy < 93%") == "inconclusive"
    assert verdict(audit, "clean_accuracy < 99%") == "fail"


def test_what_was_not_measured_is_inconclusive_and_says_why():
    (result,) = decide(make_audit(50, labels=False), [parse_gate("lambda_max_calibrated.mean > 1")])
    assert (result.verdict, result.value) == ("inconclusive", None)
    assert "no labels were given" in result.comparison


def test_samples_needed_follow_the_square_root_law():
    # Half-width 1 at 200 samples, threshold half of that away: four times the samples.
    (result,) = decide(with_mean(1.0, 2.0, 3.0), [parse_gate("lambda_max.mean > 2.5")])
    words = result.advice.lower()
    more = int(words.split(" more samples")[0].split()[-1].replace(",", ""))
    assert math.isclose(more, 600, rel_tol=0.01)


def test_a_value_on_the_threshold_is_hopeless():
    (result,) = decide(with_mean(1.0, 2.0, 3.0), [parse_gate("lambda_max.mean > 2")])
    assert "move the threshold" in result.advice


@pytest.mark.parametrize(
    ("verdicts", "levels", "expected"),
    [
        ((), (), "measured"), ((), ("warning", "note"), "measured"), (("pass",), ("warning",), "pass"), (("pass", "inconclusive"), (), "inconclusive"),
        ((), ("error",), "inconclusive"),
        (("inconclusive", "fail"), ("error",), "fail"),
    ],
)  # fmt: skip
def test_fail_outranks_inconclusive_outranks_pass(verdicts, levels, expected):
    (template,) = decide(make_audit(100), [parse_gate("lambda_max.mean > 1")])
    gates = [replace(template, verdict=v) for v in verdicts]
    found = [Finding("x", level, "x") for level in levels]
    assert overall(measured=1, gates=gates, findings=found) == expected
    assert overall(measured=0, gates=gates, findings=found) == "inconclusive"


def test_the_temperature_is_decided_on_its_interval():
    audit = make_audit(100)
    calibration = replace(audit.calibration, temperature=1.2, errors=3, log_error=0.2, method="MAP, ln T ~ N(0, 1)")
    audit = replace(audit, calibration=calibration)
    wide = 1.2 * math.exp(1.96 * 0.2)
    assert [verdict(audit, f"temperature > {t}") for t in (0.99 * wide, 1.01 * wide)] == ["inconclusive", "pass"]
    (result,) = decide(audit, [parse_gate("temperature > 1.3")])
    assert "rests on 3 wrong predictions" in result.advice
    given = replace(audit, calibration=replace(calibration, log_error=0.0, method="given"))
    assert verdict(given, "temperature > 1.3") == "pass"


def test_a_mean_that_few_carry_fails_but_never_passes():
    audit = with_mean(1.0, 2.0, None)
    group = audit.aggregates["lambda_max"]
    method = "carried by 2 of 64 samples: no population interval but its lower end"
    audit = replace(audit, aggregates={**audit.aggregates, "lambda_max": replace(group, mean=replace(group.mean, method=method))})
    assert verdict(audit, "lambda_max.mean > 0.9") == "fail"
    (result,) = decide(audit, [parse_gate("lambda_max.mean > 1000")])
    assert result.verdict == "inconclusive"
    assert "carried by 2 of 64 samples" in result.advice


def test_lower_bounds_do_not_pass():
    audit = make_audit(100)
    group = audit.aggregates["lambda_max"]
    bound = replace(group, kind="lower bound", mean=replace(group.mean, high=None))
    audit = replace(audit, aggregates={**audit.aggregates, "lambda_max": bound})
    (result,) = decide(audit, [parse_gate("lambda_max.mean > 1e9")])
    assert result.verdict == "inconclusive"
    assert "its values are lower bounds" in result.advice


def with_radii(*radii):
    """An audit whose samples flip at these lengths; None where no flip was found."""
    audit = make_audit(len(radii))
    estimates = [
        Estimate(None, kind="upper bound", evaluations=30, reason="no flip") if r is None else Estimate(r, None, r, "upper bound")
        for r in radii
    ]
    samples = tuple(replace(s, flip_radius=e) for s, e in zip(audit.samples, estimates, strict=True))
    group = aggregate_of(samples, "flip_radius", seed=0)
    return replace(audit, samples=samples, aggregates={**audit.aggregates, "flip_radius": group})


LENGTHS = tuple(0.1 + 0.001 * i for i in range(100))


class TestWhatWasFound:
    def test_the_median_of_flips_passes_and_fails(self):  # each radius bounds another distance; their own median is known
        audit = with_radii(*LENGTHS)
        assert audit.aggregates["flip_radius"].kind == "upper bound"
        for threshold, expected in ((0.1, "pass"), (0.15, "inconclusive"), (0.2, "fail")):
            (result,) = decide(audit, [parse_gate(f"flip_radius.median < {threshold}")])
            assert result.verdict == expected
            assert "of the smallest lengths found (each an upper bound)" in result.comparison

    @pytest.mark.parametrize("statistic", ["mean", "geometric_mean", "median"])
    def test_every_usual_statistic_has_two_ends(self, statistic):
        found = getattr(with_radii(*LENGTHS).aggregates["flip_radius"], statistic)
        assert found.low < found.value < found.high

    def test_a_sample_without_a_flip_makes_no_model_look_less_robust(self):
        few, many = with_radii(*LENGTHS), with_radii(*LENGTHS, *[None] * 60)
        assert many.aggregates["flip_radius"].median.value > few.aggregates["flip_radius"].median.value
        assert verdict(many, "flip_radius.median < 0.15") == "pass"
        assert verdict(few, "flip_radius.median < 0.15") == "inconclusive"

    def test_a_median_beyond_all_that_was_found_passes_on_its_lower_end(self):
        audit = with_radii(*LENGTHS, *[None] * 110)
        (kept,) = decide(audit, [parse_gate("flip_radius.median < 0.15")])
        assert (kept.verdict, kept.value) == ("pass", None)
        assert "lies beyond all that was found" in kept.comparison
        (open_,) = decide(audit, [parse_gate("flip_radius.median < 0.3")])
        assert open_.verdict == "inconclusive"
        assert "nothing was found on 110 of 210 samples" in open_.advice

    def test_an_open_percentile_does_not_fail_and_says_why(self):
        (result,) = decide(with_radii(*LENGTHS, *[None] * 10), [parse_gate("flip_radius.p95 < 9")])
        assert result.verdict == "inconclusive"
        assert "nothing was found on 10 of 110 samples" in result.advice

    def test_no_flip_at_all_decides_nothing(self):
        (result,) = decide(with_radii(*[None] * 40), [parse_gate("flip_radius.median < 0.1")])
        assert result.verdict == "inconclusive"
        assert "nothing was found on 40 samples" in result.comparison

    def test_what_was_not_searched_is_no_sample_without_a_flip(self):
        audit = with_radii(*LENGTHS)
        left = Estimate(None, kind="upper bound", reason="the run was interrupted before it was measured")
        group = aggregate_of((*audit.samples, replace(audit.samples[0], flip_radius=left)), "flip_radius", seed=0)
        assert (group.count, group.unfound) == (100, 0)

    def test_a_bound_of_another_measure_keeps_no_lower_end(self):  # of the boundary distance itself, which lies below each value
        bound = Estimate(0.2, None, 0.2, "upper bound")
        samples = tuple(replace(s, boundary_distance=bound) for s in make_audit(40).samples)
        assert aggregate_of(samples, "boundary_distance", seed=0).median.low is None
