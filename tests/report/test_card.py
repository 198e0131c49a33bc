"""The card: the verdict first, every number with its interval, unit and kind, and nothing that a name could steer."""

from __future__ import annotations

from dataclasses import replace

import pytest

from onnxfim.record.decision import Finding
from onnxfim.record.running import UNMEASURED, UNREACHED
from onnxfim.record.sample import Estimate, Skipped
from onnxfim.report.card import FINDINGS, audit_card, verdict_line
from onnxfim.report.human import robustness_of
from onnxfim.report.meaning import boundary_tile
from onnxfim.report.numbers import number
from onnxfim.report.words import answers, lead_values, notices
from tests.support.audits import fallback, gated, hostile, make_audit, with_flips, with_nulls, with_replay, with_tokens
from tests.support.hostile import FORBIDDEN


def told(audit, **options):
    """The card's lines by their labels; of those that are there twice, the last."""
    return {line.label: line.whole for line in audit_card(audit, **options).lines}


def with_findings(audit, *levels):
    return replace(audit, findings=tuple(Finding(f"f{i}", level, f"Message {i}.") for i, level in enumerate(levels)))


PLAIN = with_flips(replace(make_audit(60), findings=()))
REPLAYED = with_replay(PLAIN)


def test_where_the_flip_radius_is_in_raw_units_so_is_the_boundary_beside():
    scaled = replace(PLAIN, settings=replace(PLAIN.settings, input_scale=(4.0,)), robustness=None)
    half = robustness_of(scaled).curve("boundary_distance").reached[1]
    beside = f"median {number(half.epsilon)} [{number(half.low)}, {number(half.high)}] raw input units, L2, first order"
    assert beside in told(scaled)["boundary"]
    assert "raw input units" in told(scaled)["flip radius"]
    assert "raw input units" not in told(PLAIN)["boundary"]


def test_the_lines_in_their_order():
    labels = [line.label for line in audit_card(PLAIN, files=("a.html", "b.json")).lines]
    order = [
        "verdict",
        "accuracy",
        "meaning",
        "lambda_max",
        "flip radius",
        "boundary",
        "worst",
        "findings",
        "next",
        "files",
        "cost",
        "audited",
    ]
    assert [label for k, label in enumerate(labels) if label not in labels[:k]] == order
    assert labels.count("meaning") <= 2


@pytest.mark.parametrize(
    ("audit", "verdict", "look", "reason"),
    [
        (replace(PLAIN, verdict="measured"), "measured", "neutral", ". 60 samples, no gate set: neither pass nor fail."),
        (replace(gated(PLAIN), verdict="pass"), "pass", "good", ". Every gate passed on 60 samples."),
        (replace(PLAIN, verdict="inconclusive"), "inconclusive", "doubtful", ". The comparison that was asked for could not be made."),
        (
            replace(with_findings(PLAIN, "error", "warning"), verdict="inconclusive"),
            "inconclusive", "doubtful", " (f0). These numbers must not be relied on.",
        ),
    ],
    ids=["measured", "pass", "not compared", "unsound"],
)  # fmt: skip
def test_the_verdict_its_look_and_its_reason(audit, verdict, look, reason):
    line = verdict_line(audit)
    assert (line.label, line.lead, line.look, line.text) == ("verdict", verdict, look, reason)
    assert audit_card(audit).look == look


def test_a_failed_gate_is_named():
    audit = gated(PLAIN)
    assert audit.verdict == "fail"
    line = verdict_line(audit)
    assert (line.lead, line.look) == ("fail", "bad")
    failed = [g.text for g in audit.gates if g.verdict == "fail"]
    assert failed[0] in line.text


def test_what_ended_early_is_part_of_the_verdict():
    run = replace(PLAIN.run, partial=True, interrupted_by="SIGTERM")
    left = tuple(Skipped(60 + k, UNMEASURED if k < 25 else UNREACHED) for k in range(40))  # of 500 samples 100 were asked for
    audit = replace(PLAIN, run=run, verdict="inconclusive", data=replace(PLAIN.data, count=500), skipped=left)
    audit = replace(audit, findings=(Finding("partial", "error", "Partial."), Finding("few-samples", "error", "Few.")))
    assert verdict_line(audit).text.startswith(" (terminated, partial: 60 of 100 samples, few-samples). ")
    assert any("It holds 60 of 100 samples" in n.text for n in notices(audit))
    stopped = replace(audit, run=replace(run, stopped="a device was lost"))
    assert verdict_line(stopped).text.startswith(" (stopped by the provider, partial: ")


def test_nothing_measured_is_no_sign_of_robustness():
    audit = replace(with_nulls(PLAIN), verdict="inconclusive")
    found = told(audit)
    assert "Nothing was measured on 60 samples. This is not a sign of robustness." in found["verdict"]
    assert found["lambda_max"].startswith("not measured: ")
    assert "worst" not in found


def test_every_number_has_its_interval_its_unit_and_its_kind():
    found, aggregates = told(PLAIN), PLAIN.aggregates
    mean = aggregates["lambda_max_calibrated"].mean
    kind = aggregates["lambda_max_calibrated"].kind
    assert found["lambda_max"].startswith(
        f"mean {number(mean.value)} [{number(mean.low)}, {number(mean.high)}] {PLAIN.units}, calibrated, {kind}; raw "
    )
    flips = robustness_of(PLAIN).curve("flip_radius").reached[1]
    ends = f"(at most {number(flips.high)})"  # an upper bound: nothing is known below
    assert found["flip radius"].startswith(f"median {number(flips.epsilon)} {ends} model input units, L2, upper bound")
    distance = aggregates["boundary_distance"].median
    ends = f"[{number(distance.low)}, {number(distance.high)}]"
    assert (
        found["boundary"]
        == f"median {number(distance.value)} {ends} model input units, L2, first order, {aggregates['boundary_distance'].kind}"
    )


def test_where_few_samples_carry_the_mean_the_geometric_mean_stands_for_it():
    kind = "lambda_max_calibrated"
    group = PLAIN.aggregates[kind]
    mean = replace(group.mean, high=None, method="carried by 2 of 60 samples: no population interval but its lower end")
    typical = replace(group.mean, value=0.25, low=0.125, high=0.5)
    audit = replace(PLAIN, aggregates={**PLAIN.aggregates, kind: replace(group, mean=mean, geometric_mean=typical)})
    assert told(audit)["lambda_max"] == (
        f"geometric mean 0.250 [0.125, 0.500] {PLAIN.units}, calibrated, {group.kind}; 2 of 60 samples carry the mean"
    )


def test_the_worst_samples_are_those_with_the_largest_values():
    values = lead_values(PLAIN)
    first, second, third = sorted(values, key=lambda k: -values[k])[:3]
    parts = told(PLAIN)["worst"].split("; ")
    assert len(parts) == 3
    for index, part in zip((first, second, third), parts, strict=True):
        assert part.startswith(f"sample\u00a0{index} ")
        assert part.endswith(f"\u00a0{number(values[index])}")
    wrong = next(s for s in PLAIN.samples if s.label != s.prediction)
    alone = replace(PLAIN, samples=(wrong, *[s for s in PLAIN.samples if s.index != wrong.index][:1]))
    assert f"({wrong.label},\u00a0predicted\u00a0{wrong.prediction})" in told(alone)["worst"]


@pytest.mark.parametrize(
    ("levels", "counted", "shown"),
    [
        ((), "none", []),
        (("note",), "1 note", ["note"]),
        (("note", "warning"), "1 warning, 1 note", ["warning", "note"]),
        (("note", "warning", "error", "error"), "2 errors, 1 warning, 1 note", ["error", "error", "warning", "note"]),
        (("warning",) * 7, "7 warnings; 2 more in the report", ["warning"] * FINDINGS),
    ],
)
def test_findings_are_counted_and_the_worst_told(levels, counted, shown):
    card = audit_card(with_findings(PLAIN, *levels))
    lines = {line.label: line for line in card.lines}
    assert lines["findings"].whole == counted
    assert [line.label for line in card.lines if line.label in ("error", "warning", "note")] == shown
    assert not card.whole


def test_all_findings_are_told_where_they_are_asked_for():
    card = audit_card(with_findings(PLAIN, "note", "note", "warning"), findings=FINDINGS + 3)
    assert [line.label for line in card.lines if line.label in ("error", "warning", "note")] == ["warning", "note", "note"]
    assert card.whole


def test_the_next_step():
    assert told(with_findings(PLAIN, "error"))["next"] == "Mend what is in error above, and audit again."
    assert told(replace(PLAIN, data=replace(PLAIN.data, synthetic=True)))["next"] == "Run it on real inputs."
    assert told(replace(PLAIN, run=replace(PLAIN.run, partial=True)))["next"] == "Run it again to the end."
    cut = replace(with_findings(PLAIN, "error"), run=replace(PLAIN.run, partial=True))
    cut = replace(cut, findings=tuple(replace(f, id="partial") for f in cut.findings))
    assert told(cut)["next"] == "Run it again to the end."
    bare = replace(make_audit(60, labels=False), findings=())
    assert told(bare)["next"] == "Give labels to get accuracy and calibrated values."
    assert told(bare)["accuracy"] == "not measured: it needs labels"


def test_what_settles_an_open_gate_is_the_next_step():
    advice = "About 13 more samples (73 in all) would settle it."
    gates = tuple(replace(g, verdict="inconclusive", advice=advice) for g in gated(PLAIN).gates)
    audit = replace(PLAIN, gates=gates, verdict="inconclusive")
    assert told(audit)["next"] == advice
    assert answers(audit)[3].text.startswith(advice), "every surface begins with the same step"


def test_distances_are_told_in_one_unit():
    """Where raw units are known, the flip radius and the boundary of one card are both in them."""
    audit = with_flips(make_audit(60))
    audit = replace(audit, settings=replace(audit.settings, input_scale=(0.2,)), robustness=None)
    found, curve = told(audit), robustness_of(audit).curve("boundary_distance")
    assert curve.units == "raw input units"
    assert "raw input units" in found["flip radius"]
    assert found["boundary"].startswith(f"median {number(curve.reached[1].epsilon)} [")
    assert " raw input units, L2, first order, estimate" in found["boundary"]
    quantity, note = boundary_tile(audit)
    assert found["boundary"].startswith(f"median {quantity.text} ")
    assert note.startswith("L2 in raw input units, first order")


def test_what_has_no_decision_has_no_flips():
    samples = tuple(replace(s, prediction=None, label=None) for s in PLAIN.samples)
    audit = replace(PLAIN, samples=samples, model=replace(PLAIN.model, output_kind="embedding"))
    assert not {"accuracy", "flip radius", "boundary"} & set(told(audit))


def test_tokens_and_an_entry_are_told():
    found = told(with_tokens(REPLAYED))
    assert "tokens" in found
    assert "; before it: " in found["audited"]


def test_the_cost_tells_what_came_from_the_cache():
    run = replace(PLAIN.run, times={"cached_rows": 1234}, evaluations=5000, seconds=2.0)
    assert told(replace(PLAIN, run=run))["cost"].startswith("5,000 forward passes (1,234 from the cache), 2.00 s, ")


@pytest.mark.parametrize("audit", [hostile(PLAIN), hostile(with_tokens(REPLAYED)), hostile(fallback(PLAIN))])
def test_no_name_steers(audit):
    card = audit_card(audit, files=("a\x1b[31m.html",))
    text = "\n".join([card.title, *(line.label + line.whole for line in card.lines)])
    assert not FORBIDDEN & (set(text) - {"\n"})


def test_one_sample_has_no_statistics():
    one = replace(PLAIN, samples=PLAIN.samples[:1])
    group = replace(PLAIN.aggregates["lambda_max_calibrated"], count=1)
    found = told(replace(one, aggregates={**PLAIN.aggregates, "lambda_max_calibrated": group}))
    assert found["lambda_max"].endswith("; of the one sample")
    assert "worst" not in found
    assert "1 sample," in found["verdict"] or "1 sample." in found["verdict"]


def test_a_file_of_steps_is_not_called_unmeasured():
    """Trees have flips and no slope: neither the verdict's line nor the page's says that nothing was measured, nor is a slope to mend."""
    audit = replace(with_flips(make_audit(40)), robustness=None)
    none = Estimate(None, reason="the outputs are steps")
    samples = tuple(replace(s, lambda_max=none, lambda_max_calibrated=none) for s in audit.samples)
    audit = replace(audit, samples=samples, model=replace(audit.model, no_slope="trees"), verdict="inconclusive")
    audit = replace(audit, findings=(Finding("no-slope", "error", "There is no slope."),))
    assert audit.measured == 0
    assert "What was measured is the flip radius." in told(audit)["verdict"]
    assert "Nothing was measured" not in told(audit)["verdict"]
    assert told(audit)["next"].startswith("Read the flip radius")
    assert answers(audit)[3].text.startswith("Read the flip radius")
    assert answers(audit)[2].text == "The outputs are steps."
    assert "their flip radius is what is known" in notices(audit)[0].text
