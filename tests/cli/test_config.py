import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from onnxfim.cli import config, main
from onnxfim.cli.config import configured, settable, template, variable_of
from onnxfim.cli.spelled import Floats, Percent
from tests.support.audits import make_audit

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@click.group()
def app():
    pass


@app.command()
@click.argument("model")
@configured
@click.option("--max-budget", type=click.IntRange(min=12), default=101)
@click.option("--labels", "labels_path")
@click.option("--precision", type=Percent())
@click.option("--mean", type=Floats())
@click.option("--fail-on", "gates", multiple=True)
@click.option("--provider", "providers", multiple=True, default=("auto",))
@click.option("--tf32", is_flag=True)
@click.option("--kind", type=click.Choice(["auto", "logits"]), default="auto")
def audit(**options):
    click.echo(repr(options))


@app.command()
@configured
@click.option("--max-budget", type=int, default=7)
@click.option("--only-here", default="")
def other(**options):
    click.echo(repr(options))


@app.command()
def inspect():
    pass


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*arguments, env=None):
    result = CliRunner().invoke(app, list(arguments), env=env)
    assert result.exit_code == 0, result.output
    return eval(result.stdout)


def refused(*arguments, env=None):
    result = CliRunner().invoke(app, list(arguments), env=env)
    assert result.exit_code == 2, result.output
    return " ".join(result.output.split())


def test_command_line_before_environment_before_file_before_default(here):
    assert call("audit", "m")["max_budget"] == 101
    Path("pyproject.toml").write_text("[tool.onnxfim]\nmax-budget = 200\n")
    assert call("audit", "m")["max_budget"] == 200
    Path("onnxfim.toml").write_text("max-budget = 300\n")
    assert call("audit", "m")["max_budget"] == 300
    env = {"ONNXFIM_MAX_BUDGET": "400"}
    assert call("audit", "m", env=env)["max_budget"] == 400
    assert call("audit", "m", "--max-budget", "500", env=env)["max_budget"] == 500


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("max_budget = 20", "max_budget", 20),
        ('labels = "y.npy"', "labels_path", "y.npy"),
        ('precision = "5%"', "precision", 0.05),
        ("precision = 0.05", "precision", 0.05),
        ("mean = [0.5, 0.25]", "mean", (0.5, 0.25)),
        ("mean = 0.5", "mean", (0.5,)),
        ('fail-on = ["a.mean > 1", "b.p95 > 2"]', "gates", ("a.mean > 1", "b.p95 > 2")),
        ('fail-on = "a.mean > 1"', "gates", ("a.mean > 1",)),
        ('provider = ["cuda", "cpu"]', "providers", ("cuda", "cpu")),
        ("tf32 = true", "tf32", True),
        ("tf32 = false", "tf32", False),
        ('kind = "logits"', "kind", "logits"),
        ("max-budget = 20\n[audit]\nmax-budget = 30", "max_budget", 30),
        ("max-budget = 20\n[other]\nmax-budget = 30", "max_budget", 20),
        ('[other]\nonly-here = "not of this command"', "max_budget", 101),
    ],
)
def test_values_of_a_file(here, text, name, value):
    Path("onnxfim.toml").write_text(text)
    assert call("audit", "m")[name] == value


@pytest.mark.parametrize(("text", "value"), [("max-budget = 20", 7), ("max-budget = 20\n[other]\nmax-budget = 30", 30)])
def test_another_command_has_a_table_of_its_own(here, text, value):
    Path("onnxfim.toml").write_text(text)
    assert call("other")["max_budget"] == value
    assert call("other", env={"ONNXFIM_MAX_BUDGET": "40"})["max_budget"] == 40


def test_the_model_may_stand_in_the_file(here):
    Path("onnxfim.toml").write_text('model = "m.onnx"')
    assert call("audit")["model"] == "m.onnx"
    assert call("audit", "other.onnx")["model"] == "other.onnx"


@pytest.mark.parametrize(
    ("variables", "name", "value"),
    [
        ({"ONNXFIM_FAIL_ON": "a.mean > 1\n\n b.p95 > 2\n"}, "gates", ("a.mean > 1", "b.p95 > 2")),
        ({"ONNXFIM_TF32": "true"}, "tf32", True),
        ({"ONNXFIM_LABELS": "y.npy"}, "labels_path", "y.npy"),
        ({"ONNXFIM_MAX_BUDGET": " "}, "max_budget", 101),
        ({"ONNXFIM_MODEL": "m2.onnx"}, "model", "m2.onnx"),
    ],
)
def test_values_of_the_environment(here, variables, name, value):
    assert call("audit", *([] if name == "model" else ["m"]), env=variables)[name] == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max-bugdet = 20", "onnxfim.toml: 'max-bugdet' is unknown. Did you mean 'max-budget'?"),
        ("zzz = 1", "onnxfim.toml: 'zzz' is unknown. `onnxfim init` writes a file with every key."),
        ("[adit]\nmax-budget = 20", "onnxfim.toml: table 'adit' is unknown. Did you mean 'audit'?"),
        ("[inspect]\nmax-budget = 20", "onnxfim.toml: table 'inspect' is unknown."),
        ("only-here = 1", "onnxfim.toml: 'only-here' is unknown."),
        ("audit = 1", "onnxfim.toml: 'audit' is unknown."),
        ("[other]\nmax-bugdet = 20", "onnxfim.toml: [other] 'max-bugdet' is unknown. Did you mean 'max-budget'?"),
        ('[other]\nlabels = "y"', "onnxfim.toml: [other] 'labels' is unknown."),
        ("max-budget = 3", "onnxfim.toml: max-budget = 3: 3 is not in the range x>=12."),
        ("max-budget = 20.5", "onnxfim.toml: max-budget = 20.5: '20.5' is not a valid integer"),
        ("max-budget = true", "onnxfim.toml: max-budget is True, expected a text, a number or a list of them."),
        ("tf32 = 1", "onnxfim.toml: tf32 is 1, expected true or false."),
        ("tf32 = [true]", "onnxfim.toml: tf32 is [True], expected true or false."),
        ('precision = "much"', "'much' is not a share such as 5% or 0.05."),
        ('kind = "other"', "onnxfim.toml: kind = 'other': 'other' is not one of 'auto', 'logits'."),
        ("[audit]\nmean = {a = 1}", "onnxfim.toml: [audit]: mean is {'a': 1}, expected a text"),
        ("max-budget =", "onnxfim.toml: is not TOML ("),
    ],
)
def test_what_is_wrong_in_a_file_is_told(here, text, message):
    Path("onnxfim.toml").write_text(text)
    assert message in refused("audit", "m")


@pytest.mark.parametrize(
    "text", ['provider-option = ["trt_extra_plugin_lib_paths=x.so"]', 'provider-option = "qnn:backend_path=x.so"']
)
def test_no_file_makes_a_provider_load_code(here, text):
    Path("onnxfim.toml").write_text(text)
    done = CliRunner().invoke(main, ["audit", "m.onnx", "--data", "random"])
    assert done.exit_code == 2
    assert "loads code, which no file may ask for. Give it as --provider-option" in " ".join(done.output.split())


def test_neither_file_nor_variable_names_a_library(here):
    assert "provider-library" not in settable(main.commands["audit"])
    assert "custom-op-library" not in settable(main.commands["audit"])
    assert "verifier" not in settable(main.commands["audit"])
    assert "provider-option" in settable(main.commands["audit"])


def test_what_is_wrong_in_the_environment_is_told(here):
    assert "ONNXFIM_MAX_BUDGET='3': 3 is not in the range x>=12." in refused("audit", "m", env={"ONNXFIM_MAX_BUDGET": "3"})


def test_a_variable_of_no_option_is_a_warning(here):
    result = CliRunner().invoke(app, ["audit", "m"], env={"ONNXFIM_MAX_BUGDET": "3"})
    assert result.exit_code == 0
    assert "warning: ONNXFIM_MAX_BUGDET: no option has this variable. Did you mean 'ONNXFIM_MAX_BUDGET'?" in result.stderr


def test_variables_of_no_option_that_are_known_are_none(here):
    result = CliRunner().invoke(app, ["audit", "m"], env={"ONNXFIM_MEMORY_LIMIT": "9" * 12, "ONNXFIM_CACHE_LIMIT": "0"})
    assert result.exit_code == 0
    assert "_LIMIT: no option" not in result.stderr


def test_a_file_elsewhere(here):
    Path("onnxfim.toml").write_text("max-budget = 300\n")
    (here / "x.toml").write_text("max-budget = 20\n")
    assert call("audit", "m", "--config", "x.toml")["max_budget"] == 20
    assert call("audit", "m", env={"ONNXFIM_CONFIG": "x.toml"})["max_budget"] == 20
    assert "no.toml: cannot be read (No such file or directory)" in refused("audit", "m", "--config", "no.toml")


@pytest.mark.parametrize("text", ["", "[tool.black]\nline-length = 1\n"])
def test_a_project_without_our_table(here, text):
    Path("pyproject.toml").write_text(text)
    assert call("audit", "m")["max_budget"] == 101


def test_our_table_must_be_one(here):
    Path("pyproject.toml").write_text("[tool]\nonnxfim = 3\n")
    assert "tool.onnxfim is 3, expected a table" in refused("audit", "m")


def test_help_needs_no_file(here):
    Path("onnxfim.toml").write_text("=")
    assert CliRunner().invoke(app, ["--help"]).exit_code == 0


# init


def _offered(command):
    """The keys that a file may have, without those that are taken for old files' sake."""
    return {key: p for key, p in settable(command).items() if not getattr(p, "hidden", False)}


def test_init_writes_every_key(here):
    result = CliRunner().invoke(main, ["init"])
    assert result.exit_code == 0, result.output
    lines = Path("onnxfim.toml").read_text("utf-8").splitlines()
    assert tomllib.loads("\n".join(lines)) == {}
    keys = tomllib.loads("\n".join(line[2:] for line in lines if " = " in line and line.startswith("# ")))
    assert set(keys) == set(_offered(main.commands["audit"]))


def test_every_key_that_init_writes_is_taken(here):
    command = main.commands["audit"]
    lines = template(command).splitlines()
    Path("onnxfim.toml").write_text("\n".join(line[2:] for line in lines if " = " in line), "utf-8")
    context = click.Context(command, parent=click.Context(main))
    config._configure(context, None, None)
    assert set(context.default_map) == {p.name for p in _offered(command).values()}
    for parameter in _offered(command).values():
        given = parameter.type_cast_value(context, context.default_map[parameter.name])
        default = parameter.get_default(context)
        if isinstance(default, (str, int, float)) and not isinstance(default, bool) and default != "auto":
            assert given == parameter.type_cast_value(context, default), parameter.name


def test_init_overwrites_only_when_told(here):
    Path("onnxfim.toml").write_text("# mine\n")
    result = CliRunner().invoke(main, ["init"])
    assert result.exit_code == 2
    assert "onnxfim.toml: is there already, expected a new file. Pass --force to overwrite it." in result.output
    assert Path("onnxfim.toml").read_text() == "# mine\n"
    assert CliRunner().invoke(main, ["init", "--force"]).exit_code == 0
    assert "max-budget" in Path("onnxfim.toml").read_text()


def test_keys_and_variables_are_one_to_one():
    keys = {key for c in main.commands.values() for key in settable(c)}
    assert len({variable_of(k) for k in keys}) == len(keys)


@pytest.mark.parametrize("arguments", [["init", "--force"], ["doctor"], ["convert", "a.json", "-o", "html=r.html"]])
@pytest.mark.slow
def test_small_commands_run_as_programs(here, arguments):
    Path("a.json").write_text(make_audit(200).to_json(), "utf-8")
    subprocess.run([sys.executable, "-m", "onnxfim", *arguments], check=True, capture_output=True)


@pytest.mark.parametrize("arguments", [["init", "--force"], ["convert", "a.json", "-o", "html=r.html"]])
def test_small_commands_wait_for_no_runtime(here, arguments):
    Path("a.json").write_text(make_audit(20).to_json(), "utf-8")
    code = (
        f"from onnxfim.cli import main; import sys; main({arguments!r}, standalone_mode=False); print('onnxruntime' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split()[-1] == "False"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"mean = " + b"[" * 20_000 + b"]" * 20_000, "is nested too deeply to be read"),
        (b"mean = " + b"{a=" * 5000 + b"1" + b"}" * 5000, "is nested too deeply to be read"),
        (b"max-budget = " + b"9" * 5000, "is not TOML"),
        (b'labels = "\xff"', "is not TOML"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n", "is a Git LFS pointer and not the file itself"),
        (b"max-budget = [" + b"{}, " * 500 + b"]", "…, expected a text, a number or a list of them"),
    ],
)  # fmt: skip
def test_files_that_are_no_configuration(here, content, words):
    (here / "c.toml").write_bytes(content)
    result = CliRunner().invoke(app, ["audit", "m.onnx", "--config", "c.toml"])
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert (result.exit_code, len(line) < 500) == (2, True)
    assert "c.toml: " in line
    assert words in line


def test_a_pipe_is_not_waited_for(here):
    os.mkfifo(here / "c.toml")
    result = CliRunner().invoke(app, ["audit", "m.onnx", "--config", "c.toml"])
    assert (result.exit_code, "c.toml: is no regular file" in result.stderr) == (2, True)
