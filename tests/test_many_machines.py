"""The recipes of docs/howto/many-machines.md: valid by their hosts' own schemas, and run with the schedulers made up or local."""

from __future__ import annotations

import ast
import copy
import importlib
import re
import shutil
import subprocess
import sys

import pytest

from tests.support.checkers import audited, fits, run
from tests.support.places import ACTIONLINT, BASH, DEV, ROOT, SAMPLES
from tests.support.snippets import blocks_of

yaml = DEV.load("yaml")
from tests.support.recipes import recipes  # noqa: E402 - it needs yaml
from tests.support.schedulers import PAGE, Machines, Pipeline, pods, scrubbed  # noqa: E402

pytestmark = [BASH.unless(shutil.which("bash") is not None)]

FEW = "12"  # samples
NAMES = {"slurm", "slurm-submit", "submitit", "kubernetes", "github-matrix", "gitlab-parallel"}


# Validity.


def test_every_recipe_is_looked_at():
    assert set(recipes(PAGE)) == NAMES


def test_the_workflow_fits_githubs_schema_and_is_safe(tmp_path):
    folder = tmp_path / ".github" / "workflows"
    folder.mkdir(parents=True)
    path = folder / "matrix.yml"
    path.write_text(recipes(PAGE)["github-matrix"], "utf-8")
    done = fits("github-workflows", path)
    assert done.returncode == 0, done.stdout + done.stderr
    done = audited(folder)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_workflow_passes_actionlint(tmp_path):
    if shutil.which("actionlint") is None:
        ACTIONLINT.skip()
    path = tmp_path / "matrix.yml"
    path.write_text(recipes(PAGE)["github-matrix"], "utf-8")
    done = run("actionlint", path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_workflow_may_do_little_and_pins_what_it_uses():
    record = yaml.safe_load(recipes(PAGE)["github-matrix"])
    assert record["permissions"] == {}
    assert all(job["permissions"] == {"contents": "read"} and job["timeout-minutes"] for job in record["jobs"].values())
    ours = (ROOT / ".github" / "workflows" / "release.yml").read_text("utf-8") + recipes()["github"]
    for step in (s for job in record["jobs"].values() for s in job["steps"] if "uses" in s):
        assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", step["uses"])
        assert step["uses"] in ours, "one version of an action"


def test_the_pipeline_fits_gitlabs_schema(tmp_path):
    path = tmp_path / "gitlab.yml"
    path.write_text(recipes(PAGE)["gitlab-parallel"], "utf-8")
    done = fits("gitlab-ci", path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def manifest():
    return yaml.safe_load(recipes(PAGE)["kubernetes"])


@pytest.mark.parametrize("version", ["1.29", "1.31", "1.33", "1.35", "1.37"])
def test_the_job_fits_the_schema_of_kubernetes(manifest, version):
    """From the first version in which failures are counted by index without being asked for."""
    DEV.load("kubernetes_validate").validate(manifest, version, strict=True)


@pytest.mark.parametrize(
    ("where", "name", "wrong"),
    [((), "backoffLimitPerIndx", 3), ((), "completions", "eight"), (("template", "spec"), "runAsNonRoot", True),
     (("podFailurePolicy",), "rules", [{"action": "FailIndex", "onExitCodes": {"operator": "In"}}])],
)  # fmt: skip
def test_a_wrong_job_does_not_fit_it(manifest, where, name, wrong):
    kubernetes_validate = DEV.load("kubernetes_validate")
    changed = copy.deepcopy(manifest)
    place = changed["spec"]
    for key in where:
        place = place[key]
    place[name] = wrong
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(changed, "1.33", strict=True)


def test_the_job_starts_as_many_pods_as_there_are_shards(manifest):
    spec = manifest["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    assert spec["completionMode"] == "Indexed"
    assert f"--shard=auto/{spec['completions']}" in container["command"]
    assert spec["parallelism"] <= spec["completions"]
    assert spec["template"]["spec"]["restartPolicy"] == "Never", "a policy of failures asks for it"
    (codes,) = [r["onExitCodes"] for r in spec["podFailurePolicy"]["rules"] if "onExitCodes" in r]
    assert codes["containerName"] == container["name"]
    assert spec["maxFailedIndexes"] <= spec["completions"]


def test_the_pods_may_do_little(manifest):
    """What the standard `restricted` asks of pods, and no token beside."""
    pod = manifest["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    assert set(container["resources"]["requests"]) == {"cpu", "memory"}
    assert container["resources"]["limits"]["memory"] == container["resources"]["requests"]["memory"]
    assert {v["name"] for v in pod["volumes"]} == {m["name"] for m in container["volumeMounts"]}


@pytest.mark.parametrize("name", ["slurm", "slurm-submit"])
def test_scripts_are_sound_bash(tmp_path, name):
    path = tmp_path / "script.sh"
    text = recipes(PAGE)[name]
    path.write_text(text if text.startswith("#!") else f"#!/bin/bash\n{text}", "utf-8")
    done = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    done = run("shellcheck", path)
    assert done.returncode == 0, done.stdout


def test_slurm_reads_every_line_of_its_options():
    """It stops at the first line that is neither a comment nor empty, and takes no option that it does not know."""
    lines = recipes(PAGE)["slurm"].splitlines()
    assert lines[0] == "#!/bin/bash"
    first = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    told = [line for line in lines if line.startswith("#SBATCH")]
    assert told == [line for line in lines[:first] if line.startswith("#SBATCH")]
    known = {"job-name", "cpus-per-task", "mem", "time", "requeue", "output"}
    assert {re.match(r"#SBATCH --([a-z-]+)", line)[1] for line in told} == known


def test_the_table_of_schedulers_is_that_of_the_code():
    from onnxfim.fleet.shard_of import SCHEDULERS

    text = (ROOT / "docs" / PAGE).read_text("utf-8")
    section = text[text.index("## Which shard am I?") : text.index("## Several devices")]
    rows = [
        [c.strip() for c in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("| ") and "`" in line
    ]
    named = {v for row in rows for v in re.findall(r"`([A-Z_]+)`", " ".join(row))}
    checks = {"SLURM_ARRAY_TASK_MAX", "LSB_JOBINDEX_STEP"}  # they tell no shard, but whether there are gaps
    assert named == {v for s in SCHEDULERS for v in (s.index, s.count, s.lowest, s.highest, s.step) if v} - checks
    firsts = {v: row[2] for row in rows for v in re.findall(r"`([A-Z_]+)`", row[1])}
    assert {s.index: str(s.first) for s in SCHEDULERS if not s.lowest} == {v: f for v, f in firsts.items() if f.isdecimal()}


# What each does.


def made(folder):
    """A folder as machines share it: the model, its samples, few of them asked for."""
    shared = folder / "shared"
    shared.mkdir()
    shutil.copy(SAMPLES / "digits_mlp.onnx", shared / "model.onnx")
    shutil.copy(SAMPLES / "digits.npz", shared / "samples.npz")
    # A batch that is found by trying may be another one each time, and rows round otherwise in it.
    return Machines(shared, folder / "host", {"ONNXFIM_SAMPLES": FEW, "ONNXFIM_BATCH": "32", "SOURCE_DATE_EPOCH": "1700000000"})


@pytest.fixture
def machines(tmp_path):
    return made(tmp_path)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The audit of one process, without what depends on the clock."""
    alone = made(tmp_path_factory.mktemp("plain"))
    done = alone.shell("onnxfim audit model.onnx --data samples.npz -o json=plain.json")
    assert done.code == 0, done.output
    return scrubbed(alone.folder / "plain.json")


@pytest.mark.slow
@pytest.mark.untraced
def test_the_three_commands(machines, plain):
    (block,) = [b.text for b in blocks_of(f"docs/{PAGE}") if b.needs == "a shell"]
    (shard,) = [line for line in block.splitlines() if "1/4" in line]
    text = block.replace(shard, "\n".join(shard.replace("1/4", f"{i}/4") for i in (3, 1, 4, 2)))
    done = machines.shell(text)
    assert done.code == 0, done.output
    assert scrubbed(machines.folder / "report.json") == plain
    assert {p.name for p in machines.folder.glob("shard-*")} == {f"shard-{i}-of-4.json" for i in range(1, 5)}


def slurm(machines):
    """Submit the recipe; its submission, with fewer tasks."""
    (machines.folder / "audit.sbatch").write_text(recipes(PAGE)["slurm"], "utf-8")
    text = recipes(PAGE)["slurm-submit"]
    assert "--array=1-16" in text
    return machines.shell(text.replace("--array=1-16", "--array=1-3"))


@pytest.mark.slow
@pytest.mark.untraced
def test_slurm_plans_measures_and_merges(machines, plain):
    done = slurm(machines)
    assert done.code == 0, done.output
    assert scrubbed(machines.folder / "report.json") == plain, machines.log
    assert [p.name for p in sorted((machines.folder / "shards").iterdir())] == [f"shard-{i}-of-3.json" for i in (1, 2, 3)]


@pytest.mark.slow
@pytest.mark.untraced
def test_a_task_of_slurm_that_fails_is_run_again(machines, plain):
    (machines.state / "fail-2").touch()
    assert slurm(machines).code == 0
    assert not (machines.folder / "report.json").exists()
    assert "['merge'] None 3" in machines.log
    assert "2/3" in machines.log, "the merge says which is missing"
    before = (machines.folder / "shards" / "shard-1-of-3.json").stat().st_mtime_ns
    text = recipes(PAGE)["slurm-submit"].replace("--array=1-16", "--array=1-3").replace('--dependency="afterok:${plan%%;*}" ', "")
    again = machines.shell("\n".join(text.splitlines()[1:]))
    assert again.code == 0, again.output
    assert (machines.folder / "shards" / "shard-1-of-3.json").stat().st_mtime_ns == before, "it was there, and whole"
    assert scrubbed(machines.folder / "report.json") == plain, machines.log


@pytest.mark.untraced
def test_a_plan_that_fails_calls_slurms_shards_off(machines):
    (machines.folder / "model.onnx").write_bytes(b"no model")
    assert slurm(machines).code == 0
    assert "['plan'] None 2" in machines.log
    assert "['shard']" not in machines.log
    assert not (machines.folder / "report.json").exists()


@pytest.mark.slow
@pytest.mark.untraced
def test_submitit_runs_the_shards_here(machines, plain):
    """Its executor for Slurm and the local one have one interface."""
    DEV.load("submitit")
    text = recipes(PAGE)["submitit"]
    ast.parse(text)
    for before, after in (('cluster="slurm"', 'cluster="local"'), ("n = 16", "n = 3"), ("timeout_min=240", "timeout_min=5")):
        assert before in text
        text = text.replace(before, after)
    done = subprocess.run(
        [sys.executable, "-c", text], cwd=machines.folder, env=machines.variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert scrubbed(machines.folder / "report.json") == plain


@pytest.mark.slow
@pytest.mark.untraced
def test_slurms_script_runs_through_submitit(machines, plain):
    """The script itself, with the variables that a task of an array has, in processes that another program starts."""
    submitit = DEV.load("submitit")
    importlib.import_module("submitit.helpers")
    (machines.folder / "audit.sbatch").write_text(recipes(PAGE)["slurm"], "utf-8")
    assert machines.shell("bash audit.sbatch plan").code == 0
    executor = submitit.LocalExecutor(folder=machines.state / "submitit")
    executor.update_parameters(timeout_min=5)
    jobs = []
    for task in (7, 8, 9):  # an array need not begin at 1
        told = {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in (("ID", task), ("COUNT", 3), ("MIN", 7), ("MAX", 9))}
        command = submitit.helpers.CommandFunction(
            ["bash", "audit.sbatch", "shard"], cwd=str(machines.folder), env={**machines.variables, **told}, verbose=False
        )
        jobs.append(executor.submit(command))
    for job in jobs:
        job.result()
    assert machines.shell("bash audit.sbatch merge").code == 0
    assert scrubbed(machines.folder / "report.json") == plain


@pytest.mark.slow
@pytest.mark.untraced
def test_the_pods_write_their_shards_and_nothing_else(machines, plain, manifest, tmp_path):
    assert machines.shell("onnxfim plan model.onnx --data samples.npz -o plan.json").code == 0
    roots = {"audit": machines.folder, "shards": tmp_path / "claim", "tmp": tmp_path / "tmp"}
    for folder in roots.values():
        folder.mkdir(exist_ok=True)
    few = copy.deepcopy(manifest)
    few["spec"]["completions"] = 3
    (container,) = few["spec"]["template"]["spec"]["containers"]
    container["command"] = [w.replace("auto/8", "auto/3") for w in container["command"]]
    before = {p: p.stat().st_mtime_ns for p in machines.folder.rglob("*")}
    steps = pods(few, machines, roots)
    assert [s.code for s in steps] == [0, 0, 0], steps
    assert {p: p.stat().st_mtime_ns for p in machines.folder.rglob("*")} == before, "the claim is read only"
    assert {p.name for p in roots["shards"].glob("shard-*")} == {f"shard-{i}-of-3.json" for i in (1, 2, 3)}
    done = machines.shell(f"onnxfim merge {roots['shards']}/shard-* -o json=report.json")
    assert done.code == 0, done.output
    assert scrubbed(machines.folder / "report.json") == plain


@pytest.mark.slow
@pytest.mark.untraced
@pytest.mark.parametrize("host", ["github", "gitlab"])
def test_pipelines_plan_measure_and_merge(machines, plain, host):
    pipeline = Pipeline(machines)
    ended = getattr(pipeline, host)()
    assert {name: step.code for name, step in ended.items() if step.code} == {}, ended
    assert len(ended) == 6
    assert scrubbed(report(pipeline))["samples"] == plain["samples"]
    assert scrubbed(report(pipeline))["aggregates"] == plain["aggregates"]
    if host == "github":
        assert pipeline.summary.startswith("## ✅ onnxfim: pass")


@pytest.mark.slow
@pytest.mark.untraced
@pytest.mark.parametrize("host", ["github", "gitlab"])
def test_a_shard_that_fails_is_named_by_the_merge(machines, host):
    ended = getattr(Pipeline(machines), host)(failing=(3,))
    assert ended["merge"].code == 3, ended["merge"].output
    assert "3/4" in ended["merge"].output


def report(pipeline):
    """The JSON report among the artefacts of a pipeline."""
    found = [p for folder in pipeline.artefacts.values() for p in folder.rglob("report.json")]
    (path,) = found
    return path
