"""The recipes of docs/ci.md: valid by their hosts' own schemas, and run with the hosts' programs made up."""

from __future__ import annotations

import json
import re
import shutil
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner

from onnxfim.cli import main
from onnxfim.record.audit import Audit
from tests.support.checkers import audited, fits
from tests.support.places import BASH, DEV, ROOT
from tests.support.places import SAMPLES as MODELS

yaml = DEV.load("yaml")
from tests.support.recipes import MARK, Host, recipes  # noqa: E402 - it needs yaml
from tests.support.regressed import more_sensitive  # noqa: E402

pytestmark = [BASH.unless(shutil.which("bash") is not None)]
HOSTS = ("github", "gitlab", "jenkins")


@pytest.fixture
def host(tmp_path):
    folder = tmp_path / "checkout"
    folder.mkdir()
    shutil.copy(MODELS / "digits_mlp.onnx", folder / "model.onnx")
    shutil.copy(MODELS / "digits.npz", folder / "samples.npz")
    return Host(folder, tmp_path / "host")


def verdict(host):
    return Audit.load(host.folder / "onnxfim-reports" / "report.json").verdict


# Validity.


def test_recipes_fit_their_hosts_schemas(tmp_path):
    for schema, names in (("github-workflows", ("github", "github-comment")), ("gitlab-ci", ("gitlab",))):
        paths = [tmp_path / f"{name}.yml" for name in names]
        for name, path in zip(names, paths, strict=True):
            path.write_text(recipes()[name], "utf-8")
        done = fits(schema, *paths)
        assert done.returncode == 0, done.stdout + done.stderr


def test_workflows_pass_the_security_audit(tmp_path):
    folder = tmp_path / ".github" / "workflows"
    folder.mkdir(parents=True)
    for name in ("github", "github-comment"):
        (folder / f"{name}.yml").write_text(recipes()[name], "utf-8")
    # This project's own action is named by its version, which a reader fills in.
    (tmp_path / "zizmor.yml").write_text(
        'rules: {unpinned-uses: {config: {policies: {"OWNER/onnxfim": ref-pin, "*": hash-pin}}}}\n', "utf-8"
    )
    done = audited("--config", tmp_path / "zizmor.yml", folder)
    assert done.returncode == 0, done.stdout + done.stderr


def test_permissions_are_the_least():
    one, two = (yaml.safe_load(recipes()[name]) for name in ("github", "github-comment"))
    assert one["permissions"] == two["permissions"] == {}
    assert one["jobs"]["audit"]["permissions"] == {
        "actions": "read", "contents": "read", "pull-requests": "write", "security-events": "write",
    }  # fmt: skip
    assert two["jobs"]["comment"]["permissions"] == {"actions": "read", "pull-requests": "write"}
    assert not any("checkout" in s.get("uses", "") for s in two["jobs"]["comment"]["steps"]), "it runs nothing of the pull request"


def test_what_is_uploaded_need_not_be_there():
    steps = {s["uses"].partition("@")[0]: s for s in yaml.safe_load(recipes()["github"])["jobs"]["audit"]["steps"]}
    upload, sarif = steps["actions/upload-artifact"], steps["github/codeql-action/upload-sarif"]
    assert (upload["if"], upload["with"]["if-no-files-found"]) == ("always()", "ignore")
    assert "always()" in sarif["if"]
    assert "hashFiles('onnxfim-reports/report.sarif') != ''" in sarif["if"]
    assert yaml.safe_load(recipes()["gitlab"])["robustness"]["artifacts"]["when"] == "always"


def test_the_pipeline_of_jenkins_is_balanced():
    text = re.sub(r"'''.*?'''|'(?:[^'\\\n]|\\.)*'", "''", recipes()["jenkins"], flags=re.DOTALL)
    for opening, closing in ("{}", "()", "[]"):
        assert text.count(opening) == text.count(closing)
    assert re.search(r"post\s*{\s*always\s*{", text), "results are kept whatever becomes of the build"


# What each does.


@pytest.mark.slow
@pytest.mark.untraced
@pytest.mark.parametrize("name", HOSTS)
def test_a_model_goes_through_its_life(host, name):
    first = host.run(name, pull=True)
    assert first.code == 0, first.output
    assert verdict(host) == "pass"  # its gates alone
    assert "no-baseline" in (host.folder / "onnxfim-reports" / "comment.md").read_text("utf-8")
    assert len(host.comments) == 1

    pushed = host.run(name, pull=False)
    assert pushed.code == 0, pushed.output
    assert len(host.comments) == 1, "a push has no comment"
    host.keep_baseline()

    same = host.run(name, pull=True)
    assert (same.code, verdict(host)) == (0, "pass"), same.output
    assert len(host.comments) == 1, "it was changed, not added"
    assert "rose by more than 10\u00a0%" in host.comments[0]

    with np.load(MODELS / "digits.npz") as data:  # the same logits and accuracy: only a measure of sensitivity can see it
        more_sensitive(MODELS / "digits_mlp.onnx", host.folder / "model.onnx", data["inputs"], 20.0)
    worse = host.run(name, pull=True)
    assert (worse.code, verdict(host)) == (1, "fail"), worse.output
    assert host.comments[0].startswith(f"{MARK}\n## ❌ onnxfim: fail")
    notes = json.loads((host.state / "notes.json").read_text("utf-8"))
    assert [n["body"] for n in notes[:2]] == ["hello", f"{MARK} not mine"], "other people's comments are left alone"


@pytest.mark.slow
@pytest.mark.untraced
@pytest.mark.parametrize("name", HOSTS)
def test_what_could_not_run_is_told_and_does_not_pass(host, name):
    reports = host.folder / "onnxfim-reports"
    reports.mkdir()
    (reports / "junit.xml").write_text("<testsuites name='of another day'/>", "utf-8")
    (host.folder / "model.onnx").write_bytes(b"no model")
    done = host.run(name, pull=True)
    assert done.code == 2, done.output
    (comment,) = host.comments
    assert comment.startswith(f"{MARK}\n## ⛔ onnxfim: did not run `model.onnx`")
    case = ElementTree.parse(reports / "junit.xml").find(".//testcase")
    assert case.find("error").get("message").startswith("did not run: model.onnx")
    if name == "github":
        assert done.summary.startswith("## ⛔ onnxfim: did not run `model.onnx`")


@pytest.mark.untraced
@pytest.mark.parametrize("name", ["github", "gitlab"])
def test_a_host_that_does_not_answer_is_no_first_run(host, name):
    (host.state / "down").touch()
    done = host.run(name, pull=True)
    assert done.code != 0
    assert not (host.folder / "onnxfim-reports" / "report.json").exists()


@pytest.mark.untraced
def test_an_artefact_that_is_gone_is_no_first_run(host):
    (host.state / "ran").touch()
    done = host.github(pull=True)
    assert done.code == 2
    assert "run the workflow there again" in done.output


@pytest.mark.slow
@pytest.mark.untraced
def test_a_token_that_may_only_read_changes_no_verdict(host):
    (host.state / "read-only").touch()
    done = host.github(pull=True)
    assert done.code == 0, done.output
    assert "::warning title=onnxfim::The comment could not be written" in done.output
    assert host.comments == []
    assert done.summary.startswith("## ✅ onnxfim: pass")


@pytest.mark.untraced
def test_an_option_that_cannot_be_read_is_told_in_the_summary(host):
    done = host.github(pull=False, options="--samples=many")
    assert done.code == 2
    assert done.summary.startswith("## ⛔ onnxfim: did not run")
    assert "many" in done.summary


@pytest.mark.untraced
def test_the_second_workflow_writes_the_comment(host):
    (step,) = yaml.safe_load(recipes()["github-comment"])["jobs"]["comment"]["steps"]
    (host.state / "comment.md").write_text(f"{MARK}\nfirst", "utf-8")
    variables = {"RUN": "9", "HEAD": "someone:change", "GITHUB_REPOSITORY": "OWNER/MODEL"}
    for text in ("first", "second"):
        shutil.rmtree(host.folder / "reports", ignore_errors=True)
        (host.state / "comment.md").write_text(f"{MARK}\n{text}", "utf-8")
        done = host.shell(step["run"], variables, "-eo", "pipefail")
        assert done.returncode == 0, done.stderr
        assert host.comments == [f"{MARK}\n{text}"]
    shutil.rmtree(host.folder / "reports")
    (host.state / "comment.md").write_text("something else", "utf-8")
    assert host.shell(step["run"], variables, "-eo", "pipefail").returncode != 0
    assert host.comments == [f"{MARK}\nsecond"]


@pytest.mark.slow
def test_commands_of_the_page_run(host, monkeypatch):
    monkeypatch.chdir(host.folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(host.state / "cache"))
    (block,) = re.findall(
        r"^<!-- run -->\n```bash\n(.*?)^```", (ROOT / "docs" / "ci.md").read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    for line in block.splitlines():
        program, *words = line.split()
        assert program == "onnxfim"
        result = CliRunner().invoke(main, words)
        assert result.exit_code == 0, result.output
    assert "gate pass: clean_accuracy" in result.output
