"""Options of settings are made from their declarations: all of them, with their helps, defaults and types."""

from __future__ import annotations

import re
from dataclasses import replace

import click
import pytest
from click.testing import CliRunner

from onnxfim.cli import main
from onnxfim.cli.audit_command import settings_from
from onnxfim.cli.gating import as_baseline
from onnxfim.errors import SettingsError
from onnxfim.record.settings import SETTINGS, Settings
from onnxfim.report.page.facts import how_it_was_run
from onnxfim.verdict.pairs import differences
from tests.support.audits import make_audit

#: Other values than the defaults, as the command line spells them, and as settings hold them.
OTHERS = {
    "samples": ("5", 5), "method": ("sketch", "sketch"), "budget": ("41", 41), "precision": ("5%", 0.05), "max_budget": ("300", 300),
    "step": ("0.5", 0.5), "scheme": ("central", "central"), "seed": ("7", 7), "batch": ("3", 3), "providers": ("cpu", ("cpu",)),
    "require_provider": (None, True), "output_kind": ("logits", "logits"), "input": ("x", "x"), "output": ("z", "z"),
    "temperature": ("1.5", 1.5), "sigma": ("2", 2.0), "score_threshold": ("0.5", 0.5), "tf32": (None, True), "replay": ("0", 0), "attack": ("linf", "linf"),
    "epsilon": ("0.25", 0.25), "attack_range": ("-1,1", (-1.0, 1.0)), "attack_samples": ("9", 9), "bounds": (None, False),
    "surrogate": (None, True), "provider_options": ("device_id=1", ("device_id=1",)), "provider_libraries": ("mine=/m.so", ("mine=/m.so",)),
    "custom_op_libraries": ("/m.so", ("/m.so",)),
    "feed": ("mask=ones", ("mask=ones",)), "shape": ("x:[N,3,8]", ("x:[N,3,8]",)),
    "verifier": ("marabou", "marabou"), "verifier_timeout": ("5", 5.0), "verifier_samples": ("3", 3), "verifier_precision": ("10%", 0.1),
    "verifier_budget": ("60", 60.0), "verifier_jobs": ("2", 2), "verifier_model": ("f.onnx", "f.onnx"),
    "at": ("e", "e"), "class_axis": ("-1", -1), "input_kind": ("series", "series"), "batch_axis": ("1", 1), "flip": (None, False),
    "bracket": (None, True), "noise": ("uniform:8/255", ("uniform:8/255",)), "noise_stable": ("95%", 0.95), "noise_budget": ("500", 500),
    "certify": ("smoothing:1/4", ("smoothing:1/4",)), "certify_budget": ("300", 300),
}  # fmt: skip
OPTIONS = [s for s in SETTINGS if s.option is not None]


def parsed(*arguments):
    command = main.commands["audit"]
    return command.make_context("audit", ["m.onnx", "--data", "random", *arguments], parent=click.Context(main)).params


def test_the_defaults_of_the_command_line_are_those_of_the_settings():
    assert settings_from(parsed()) == Settings()


@pytest.mark.parametrize("declared", OPTIONS, ids=lambda s: s.name)
def test_every_option_reaches_its_setting_alone(declared):
    spelled, value = OTHERS.get(declared.name, (None, None))
    if value is None:
        pytest.fail(f"OTHERS has no value for {declared.name}")
    name = f"--{declared.option}" if value is not False else f"--no-{declared.option}"
    arguments = [name] if spelled is None else [f"{name}={spelled}"]
    assert settings_from(parsed(*arguments)) == replace(Settings(), **{declared.name: value})


@pytest.mark.parametrize("command", ["audit", "compare"])
def test_help_tells_every_setting(command):
    text = unspaced(CliRunner().invoke(main, [command, "--help"]).output)
    for declared in OPTIONS:
        assert f"--{declared.option}" in text
        assert unspaced(declared.facts.help.removesuffix(".")) in text


def unspaced(text):
    """Without white space, as lines are broken at hyphens too."""
    return "".join(text.split())


def test_what_no_value_stands_for_is_told():
    text = " ".join(CliRunner().invoke(main, ["audit", "--help"]).output.split())
    for told in ("[default: all]", "[default: that of the data]", "[default: auto]", "[default: bounds]", "[default: 101; x>=12]"):
        assert told in text


@pytest.mark.parametrize("spelled", ["1", "1,2,3"])
def test_a_range_is_two_numbers(spelled):
    with pytest.raises(click.BadParameter, match=rf"^{len(spelled.split(','))} numbers, expected two: LOW,HIGH\.$"):
        parsed("--attack-range", spelled)


def test_the_most_is_never_below_the_budget():
    assert settings_from(parsed("--budget", "3000", "--precision", "5%")).max_budget == 3000


def test_what_has_no_option_is_given_beside_the_options():
    assert settings_from(parsed(), input_scale=(2.0,)).input_scale == (2.0,)
    with pytest.raises(SettingsError, match=r"sigma: -1\.0 is not"):
        settings_from(parsed("--sigma", "-1"))


# what a baseline gives


def with_run(**changes):
    audit = make_audit(3)
    return replace(audit, run=replace(audit.run, seed=11, method="sketch", step=0.5, scheme="central", **changes))


def test_a_baseline_gives_what_a_paired_comparison_needs():
    baseline = replace(with_run(), settings=Settings(samples=9, budget=41, temperature=1.5, replay=1, tf32=True))
    taken = settings_from(as_baseline(parsed(), (), baseline))
    assert taken == Settings(
        samples=9, budget=41, temperature=1.5, seed=11, method="sketch", step=0.5, scheme="central",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("given", "step", "scheme"),
    [((), 0.5, "central"), (("step",), None, "auto"), (("scheme",), 0.5, "auto"), (("step", "scheme"), None, "auto")],
)
def test_the_scheme_is_taken_with_the_step_only(given, step, scheme):
    taken = as_baseline(settings := {**parsed()}, given, with_run())
    assert (taken["step"], taken["scheme"]) == (step, scheme)
    assert settings["scheme"] == "auto", "what came in is not changed"


def test_no_baseline_gives_nothing():
    options = parsed()
    assert as_baseline(options, (), None) == options


# what the report and a comparison tell


def rows(**settings):
    groups = how_it_was_run(replace(make_audit(3), settings=Settings(**settings)))
    return {f.name: f.value for g in groups if g.title == "Settings" for f in g.facts}


def test_rows_of_the_report():
    told = {
        "Samples": "all", "Method": "auto", "Budget": "101 passes per sample", "Precision": "not asked for", "Step": "auto",
        "Batch": "auto", "Provider required": "no", "Output kind": "auto", "Temperature": "fitted on the labels",
        "Input scale": "not known", "TF32": "off",
    }  # fmt: skip
    assert told.items() <= rows().items()


@pytest.mark.parametrize("declared", OPTIONS, ids=lambda s: s.name)
def test_when_a_setting_has_a_row(declared):
    value = OTHERS[declared.name][1]
    found = declared.label in rows(), declared.label in rows(**{declared.name: value})
    assert found == {"always": (True, True), "changed": (False, True), "never": (False, False)}[declared.facts.row]


@pytest.mark.parametrize(
    ("settings", "name", "value"),
    [
        ({"samples": 1000}, "Samples", "at most 1,000"),
        ({"precision": 0.05}, "Precision", "5.0\u00a0%, at most 2,000 passes per sample"),
        ({"step": 0.05}, "Step", "0.05"),
        ({"batch": 1024}, "Batch", "1,024"),
        ({"temperature": 1.5}, "Temperature", "1.5"),
        ({"input_scale": (4.367, 2.0)}, "Input scale", "4.37, 2"),
        ({"tf32": True}, "TF32", "allowed"),
        ({"require_provider": True}, "Provider required", "yes"),
        ({"attack": "linf"}, "Attack", "linf"),
        ({"attack_range": (0.0, 1.0)}, "Attack range", "0, 1"),
        ({"bounds": False}, "Bounds", "no"),
    ],
)
def test_how_a_setting_prints(settings, name, value):
    assert rows(**settings)[name] == value


@pytest.mark.parametrize("name", ["budget", "precision", "temperature", "sigma", "input_scale", "tf32"])
def test_settings_that_matter_are_told_as_differences(name):
    value = {"input_scale": (2.0,)}.get(name) or OTHERS[name][1]
    audit = make_audit(3)
    other = replace(audit, settings=replace(audit.settings, **{name: value}))
    assert f"settings.{name}" in {d.name for d in differences(other, audit)}


def test_settings_that_do_not_matter_are_not():
    audit = make_audit(3)
    for declared in SETTINGS:
        if not declared.facts.matters:
            other = replace(audit, settings=replace(audit.settings, **{declared.name: OTHERS[declared.name][1]}))
            assert not [d for d in differences(other, audit) if re.match("settings", d.name)], declared.name
