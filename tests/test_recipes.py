"""Every command of the README and of the recipes exists and runs."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from importlib.metadata import entry_points
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from onnxfim.cli import main
from onnxfim.cli.config import settable, variable_of
from tests.support.places import BASH, DEV, ROOT
from tests.support.places import SAMPLES as MODELS
from tests.support.snippets import blocks_of, commands_in, sample_folder

if sys.version_info >= (3, 11):
    import tomllib as toml
else:
    import tomli as toml

yaml = DEV.load("yaml")
from tests.support.recipes import Host, recipes  # noqa: E402 - it needs yaml

pytest_plugins = ["pytester"]

AUDIT = settable(main.commands["audit"])


def blocks(language, path="README.md"):
    return [b.text for b in blocks_of(path) if b.language == language and not b.needs]


def commands():
    """The `onnxfim` commands of the README."""
    return commands_in([b for b in blocks_of("README.md") if not b.needs])


@pytest.fixture
def samples(tmp_path, monkeypatch):
    """A folder with the sample models, under their own names and those of the recipes."""
    monkeypatch.chdir(sample_folder(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def machine(samples):
    """An environment in which `python -m onnxfim` and `onnxfim` are this checkout."""
    folder = samples / "bin"
    folder.mkdir()
    for name, rest in (("onnxfim", "-m onnxfim "), ("python", ""), ("pip", "-c pass ")):
        script = folder / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {rest}"$@"\n', "utf-8")
        script.chmod(0o755)
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": path, "ONNXFIM_SAMPLES": "12"}


def test_readme_has_commands():
    assert {words[0] for words in commands()} >= {"inspect", "audit", "compare"}


@pytest.mark.slow
def test_commands_of_the_readme_run(samples):
    """All in order in one folder, as a reader would try them."""
    for words in commands():
        few = (
            ["--samples", "12"]
            if words[0] in ("audit", "compare") and not {"--samples", "--baseline", "--plan"} & set(words)
            else []
        )
        result = CliRunner().invoke(main, [*words, *few])
        assert result.exit_code in ((0, 1) if "--fail-on" in words else (0,)), f"{words}: {result.output}"


@pytest.mark.slow
@pytest.mark.untraced
def test_python_of_the_readme_runs(samples):
    plain = blocks("python")
    assert plain
    for block in plain:
        done = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_options_that_the_readme_names_exist():
    text = (ROOT / "README.md").read_text("utf-8")
    named = set(re.findall(r"`(?:onnxfim \w+ )?(--[a-z][a-z0-9-]+)", text))
    known = {o for command in (main, *main.commands.values()) for p in command.params for o in (*p.opts, *p.secondary_opts)}
    assert named <= known | {"--help"}


# The action, with the host's files and variables made up.


def action():
    return yaml.safe_load((ROOT / "action.yml").read_text("utf-8"))


def run_action(machine, folder, **inputs):
    """Run the action's steps as a runner would; the exit code, what was printed, its outputs and the summary."""
    host = Host(folder, folder.parent / f"{folder.name}-host")
    host.variables |= machine
    done = host.action(pull=False, **inputs)
    return done, done.outputs, done.summary


needs_bash = BASH.unless(shutil.which("bash") is not None)


@pytest.mark.slow
@pytest.mark.untraced
@needs_bash
def test_action_writes_its_reports(machine, samples):
    done, outputs, summary = run_action(
        machine, samples, model="model.onnx", data="samples.npz", options="--budget=40\n\n--no-cache\n", install="skip"
    )
    assert done.code == 0, done.output
    assert outputs == {"exit-code": "0", "reports": "onnxfim-reports"}
    assert summary.startswith("## ℹ️ onnxfim: measured `model.onnx`")
    record = json.loads((samples / "onnxfim-reports" / "report.json").read_text("utf-8"))
    assert (record["settings"]["budget"], len(record["samples"])) == (40, 12)
    named = re.findall(r"[\w-]+\.(?:html|json|csv|xml|sarif|md)\b", action()["outputs"]["reports"]["description"])
    assert {*named, "summary.md"} == {p.name for p in (samples / "onnxfim-reports").iterdir()}


@pytest.mark.slow
@pytest.mark.untraced
@needs_bash
def test_action_passes_the_exit_code_on(machine, samples):
    done, outputs, summary = run_action(machine, samples, model="no.onnx", data="samples.npz", install="skip")
    assert (done.code, outputs["exit-code"]) == (2, "2")
    assert "no.onnx" in done.output
    assert summary.startswith("## ⛔ onnxfim: did not run `no.onnx`")


@pytest.mark.slow
@pytest.mark.untraced
@needs_bash
def test_action_reads_nothing_as_shell(machine, samples):
    text = '$(touch pwned) `touch pwned`; touch pwned "'
    for name in ("model", "data", "options", "config"):
        run_action(machine, samples, install="skip", **{"model": "model.onnx", "data": "samples.npz", name: text})
        assert not (samples / "pwned").exists()
    scripts = " ".join(step["run"] for step in action()["runs"]["steps"])
    assert "${{" not in scripts


@pytest.mark.untraced
@needs_bash
@pytest.mark.parametrize(
    ("install", "taken"), [("", str(ROOT)), ("cpu", f"{ROOT}/onnxfim-core[cpu]"), ("onnxfim==9.9", "onnxfim==9.9"), ("skip", None)]
)
def test_action_installs_what_it_is_told(machine, samples, install, taken):
    python = samples / "bin" / "python"
    python.write_text(f'#!/bin/sh\necho "$@" >> "{samples}/calls"\n', "utf-8")
    done, _, _ = run_action(machine, samples, model="model.onnx", data="samples.npz", install=install)
    assert done.code == 0, done.output
    calls = (samples / "calls").read_text("utf-8").splitlines()
    installs = [c.removeprefix("-m pip install --quiet --disable-pip-version-check ") for c in calls if c.startswith("-m pip")]
    assert installs == ([] if taken is None else [taken])
    assert calls[-1].startswith("-m onnxfim audit")


def test_variables_of_the_action_are_options():
    variables = {v for step in action()["runs"]["steps"] for v in step.get("env", {}) if v.startswith("ONNXFIM_")}
    assert variables <= {variable_of(key) for key in AUDIT} | {"ONNXFIM_CONFIG"}


@pytest.mark.slow
@pytest.mark.untraced
@needs_bash
def test_action_fails_where_a_gate_does(machine, samples):
    gates = "lambda_max.p95 > 1e-9\nclean_accuracy < 1%"
    done, outputs, summary = run_action(
        machine, samples, model="model.onnx", data="samples.npz", install="skip", **{"fail-on": gates}
    )
    assert (done.code, outputs["exit-code"]) == (1, "1"), done.output
    assert "| `lambda_max.p95 > 1e-9` | ❌ fail |" in summary
    assert "| `clean_accuracy < 1%` | ✅ pass |" in summary
    suites = ElementTree.parse(samples / "onnxfim-reports" / "junit.xml")
    assert [c.get("name") for c in suites.iter("testcase") if c.find("failure") is not None] == ["verdict", "lambda_max.p95 > 1e-9"]


@pytest.mark.slow
@pytest.mark.untraced
@needs_bash
def test_pre_commit_hook_runs(machine, samples):
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text("utf-8"))
    recipe = yaml.safe_load(recipes()["pre-commit"])
    (use,) = recipe["repos"][0]["hooks"]
    assert use["id"] == hook["id"]
    assert re.search(hook["files"], "a/model.onnx")
    assert not re.search(hook["files"], "model.onnx.md")
    done = subprocess.run([*shlex.split(hook["entry"]), *use["args"]], env=machine, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# The pytest plugin.

# An installed package brings the plugin by its entry point; a bare checkout has to name it.
INSTALLED = any(e.value == "onnxfim.pytest_plugin" for e in entry_points(group="pytest11"))
PLUGIN = (*(() if INSTALLED else ("-p", "onnxfim.pytest_plugin")), "-p", "no:cacheprovider")


@pytest.fixture
def with_model(pytester):
    shutil.copy(MODELS / "digits_mlp.onnx", pytester.path / "model.onnx")
    shutil.copy(MODELS / "digits.npz", pytester.path / "samples.npz")
    return pytester


@pytest.mark.slow
@pytest.mark.parametrize(
    ("relation", "outcome", "line"),
    [
        ("lambda_max.median < 1e9", {"passed": 1}, None),
        ("clean_accuracy > 50%", {"passed": 1}, None),
        ("lambda_max.mean < 1e-9", {"failed": 1}, "*AssertionError: lambda_max.mean < 1e-9 does not hold: it is *"),
        ("lambda_max.mean > 15", {"failed": 1}, "*AssertionError: lambda_max.mean > 15 is not decided: it is *"),
        ("lambda_max.maen < 1", {"failed": 1}, "*SettingsError: *The nearest name is 'lambda_max.mean'*"),
        ("lambda_max.mean", {"failed": 1}, "*SettingsError: *nothing to compare lambda_max.mean with*"),
        ("findings.error", {"failed": 1}, "*SettingsError: *does not say what must hold*"),
        ("findings.error < 1", {"passed": 1}, None),
    ],
)  # fmt: skip
def test_fixture_checks_a_model(with_model, relation, outcome, line):
    with_model.makepyfile(f"""
        def test_model(onnxfim):
            onnxfim.audit("model.onnx", "samples.npz", samples=20).check({relation!r})
    """)
    result = with_model.runpytest(*PLUGIN)
    result.assert_outcomes(**outcome)
    if line is not None:
        result.stdout.fnmatch_lines([line])


def test_fixture_fails_on_an_unsound_audit_unless_told_otherwise(with_model):
    with_model.makepyfile("""
        import numpy as np

        WRONG = np.zeros(40, int)

        def test_closed(onnxfim):
            data = np.load("samples.npz")
            onnxfim.audit("model.onnx", data["inputs"][:40], WRONG).check("lambda_max.median < 1e9")

        def test_open(onnxfim):
            data = np.load("samples.npz")
            audited = onnxfim.audit("model.onnx", data["inputs"][:40], WRONG)
            audited.check("lambda_max.median < 1e9", "lambda_max.mean > 15", allow_inconclusive=True)
    """)
    result = with_model.runpytest(*PLUGIN)
    result.assert_outcomes(failed=1, passed=1, warnings=2)
    result.stdout.fnmatch_lines(["*AssertionError: the audit is unsound: *"])


def test_fixture_takes_arrays_and_chains(with_model):
    with_model.makepyfile("""
        import numpy as np

        def test_model(onnxfim):
            data = np.load("samples.npz")
            audited = onnxfim.audit("model.onnx", data["inputs"][:20], data["labels"][:20], budget=40, seed=3)
            assert audited.check("lambda_max.p95 >= 0").check("boundary_distance.median > 0") is audited
            assert audited.result.settings.seed == 3
    """)
    with_model.runpytest(*PLUGIN).assert_outcomes(passed=1)


def test_example_of_the_cookbook_runs(with_model):
    with_model.makepyfile(next(block for block in blocks("python", "docs/ci.md") if "def test_" in block))
    with_model.runpytest(*PLUGIN).assert_outcomes(passed=1)


def test_plugin_is_registered():
    record = toml.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert record["project"]["entry-points"]["pytest11"] == {"onnxfim": "onnxfim.pytest_plugin"}
