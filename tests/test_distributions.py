"""What pip installs: two distributions of one tree, one ONNX Runtime in an environment, and nothing left out, in fresh environments."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from onnxfim.runtime.doctor import _EXTRAS
from tests.support.places import DEV, REGISTRY, ROOT, SAMPLES

if sys.version_info >= (3, 11):
    import tomllib as toml
else:
    import tomli as toml

DEV.load("packaging")
from packaging.requirements import Requirement  # noqa: E402

spec = importlib.util.spec_from_file_location("core_backend", ROOT / "onnxfim-core/core_backend.py")
core_backend = importlib.util.module_from_spec(spec)
spec.loader.exec_module(core_backend)

TEXT = (ROOT / "pyproject.toml").read_text("utf-8")
WHOLE = toml.loads(TEXT)
CORE = toml.loads(core_backend.core_project(TEXT))

PLATFORMS = {
    ("linux", "x86_64"): "onnxruntime-gpu",
    ("win32", "AMD64"): "onnxruntime-gpu",
    ("linux", "aarch64"): "onnxruntime",
    ("darwin", "arm64"): "onnxruntime",
    ("win32", "ARM64"): "onnxruntime",
}


def runtimes(requirements, system, machine):
    here = {"sys_platform": system, "platform_machine": machine, "python_version": "3.12", "extra": ""}
    parsed = map(Requirement, requirements)
    return [r for r in parsed if r.name.startswith("onnxruntime") and (r.marker is None or r.marker.evaluate(here))]


# One home: everything of onnxfim-core is made of onnxfim's own pyproject.toml.


def test_core_has_the_dependencies_of_the_whole_but_for_the_runtime():
    whole = WHOLE["project"]["dependencies"]
    assert CORE["project"]["dependencies"] == [r for r in whole if not r.startswith("onnxruntime")]
    assert len(whole) - len(CORE["project"]["dependencies"]) == 2


def test_nothing_else_differs():
    whole, core = WHOLE["project"], CORE["project"]
    assert core["name"] == "onnxfim-core"
    assert core["description"].startswith(whole["description"])
    assert core["optional-dependencies"] == {"cpu": ["onnxruntime>=1.20,<2"], **whole["optional-dependencies"]}
    assert {k for k in {*whole, *core} if whole.get(k) != core.get(k)} == {
        "name", "description", "dependencies", "optional-dependencies"
    }  # fmt: skip
    assert CORE["tool"] == WHOLE["tool"]
    built = toml.loads((ROOT / "onnxfim-core/pyproject.toml").read_text("utf-8"))
    assert built["build-system"]["requires"] == WHOLE["build-system"]["requires"]


@pytest.mark.parametrize("old", ['name = "onnxfim"', "dependencies = [", "[project.optional-dependencies]"])
def test_a_project_that_cannot_be_rewritten_is_refused(old):
    with pytest.raises(ValueError, match="0 places fit"):
        core_backend.core_project(TEXT.replace(f"\n{old}\n", f"\n{old} # \n"))


@pytest.mark.parametrize(("system", "machine"), PLATFORMS)
def test_each_platform_gets_one_runtime(system, machine):
    (runtime,) = runtimes(WHOLE["project"]["dependencies"], system, machine)
    assert runtime.name == PLATFORMS[system, machine]
    # The extra adds no second build where the plain one is taken.
    extra = runtimes(WHOLE["project"]["optional-dependencies"]["cuda"], system, machine)
    assert [r.name for r in extra] == (["onnxruntime-gpu"] if runtime.name == "onnxruntime-gpu" else [])
    assert runtimes(CORE["project"]["dependencies"], system, machine) == []


def test_builds_that_cannot_be_imported_are_refused():
    wanted = [*WHOLE["project"]["dependencies"], *WHOLE["project"]["optional-dependencies"]["cuda"]]
    for requirement in (r for r in map(Requirement, wanted) if r.name == "onnxruntime-gpu"):
        assert "1.27.0" not in requirement.specifier
        assert {"1.26.0", "1.28.0", "1.31.1"} <= {v for v in ("1.26.0", "1.28.0", "1.31.1") if v in requirement.specifier}
    (cuda,) = [Requirement(r) for r in WHOLE["project"]["optional-dependencies"]["cuda"]]
    assert cuda.extras == {"cuda", "cudnn"}  # cuBLAS comes with cuDNN alone
    assert "1.20.2" not in cuda.specifier  # has no such extras


def test_every_extra_is_told():
    extras = WHOLE["project"]["optional-dependencies"]
    told = set(re.findall(r"`(\w+)`|onnxfim\[(\w+)\]", (ROOT / "docs/install.md").read_text("utf-8")))
    assert set(extras) <= {name for names in told for name in names}
    # Those of developers, and what `doctor` tells of by itself.
    ours = {"cuda", "dev", "train", "docs", "exporters", "peers", "paper"}
    assert set(_EXTRAS) == {Requirement(r).name for name, wanted in extras.items() if name not in ours for r in wanted}
    for name, purpose in _EXTRAS.items():
        (extra,) = [e for e, wanted in extras.items() if e not in ours and name in {Requirement(r).name for r in wanted}]
        assert purpose.endswith(f": pip install 'onnxfim[{extra}]'")


# In fresh environments.


class Environment:
    """A new virtual environment, which sees nothing of the one that runs the tests."""

    def __init__(self, folder):
        venv.create(folder, with_pip=True, symlinks=os.name != "nt")
        self.folder = folder
        self.bin = folder / ("Scripts" if os.name == "nt" else "bin")
        self.env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV", "COVERAGE_PROCESS_CONFIG")}
        # What is compiled here runs a few times.
        self.env |= {
            "PIP_NO_COMPILE": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "OMP_NUM_THREADS": "1",
            "XDG_CACHE_HOME": str(folder / "cache"),
        }

    def run(self, name, *arguments):
        done = subprocess.run(
            [str(self.bin / name), *map(str, arguments)], cwd=self.folder, env=self.env, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout, done.stderr

    def pip(self, *arguments):
        code, said, failed = self.run("python", "-m", "pip", *arguments)
        assert code == 0, failed
        return said

    def versions(self):
        told = "import importlib.metadata as m, json; print(json.dumps({d.name: d.version for d in m.distributions()}))"
        return json.loads(self.run("python", "-c", told)[1])

    def audit(self):
        model = SAMPLES / "digits_mlp.onnx"
        options = ("--samples", "8", "--no-cache", "-o", "json=a.json")
        code, said, failed = self.run("onnxfim", "audit", model, "--data", SAMPLES / "digits.npz", *options)
        return code, said + failed

    def doctor(self):
        return json.loads(self.run("onnxfim", "doctor", "--json")[1])

    def resolve(self, requirement):
        """What pip would install, and nothing is downloaded but metadata: names with versions, as in an empty environment."""
        report = self.folder / "report.json"
        self.pip("install", "--dry-run", "--ignore-installed", "--quiet", "--report", report, requirement)
        found = json.loads(report.read_text("utf-8"))["install"]
        return {item["metadata"]["name"].lower().replace("_", "-"): item["metadata"]["version"] for item in found}


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    environment = Environment(tmp_path_factory.mktemp("fresh") / "env")
    # An older pip fetches the wheels themselves in a dry run. The one in the environment is its own. With it comes what builds.
    wanted = ("-U", "pip>=24", "build", *WHOLE["build-system"]["requires"])
    if environment.run("python", "-m", "pip", "install", "-q", "--timeout", "20", "--retries", "0", *wanted)[0] != 0:
        REGISTRY.skip()
    return environment


@pytest.fixture(scope="module")
def wheels(fresh, tmp_path_factory):
    """Both wheels, each built from its source archive."""
    folder = tmp_path_factory.mktemp("dist")
    for source in (ROOT, ROOT / "onnxfim-core"):
        code, _, failed = fresh.run("python", "-m", "build", "--no-isolation", "--outdir", folder, source)
        assert code == 0, failed
    return {re.sub(r"-.*", "", p.name): p for p in folder.glob("*.whl")}


def files_of(wheel: Path):
    with zipfile.ZipFile(wheel) as opened:
        return {i.filename: i.CRC for i in opened.infolist() if ".dist-info/" not in i.filename}


@pytest.mark.slow
def test_both_wheels_hold_the_same_files(wheels):
    assert set(wheels) == {"onnxfim", "onnxfim_core"}
    assert files_of(wheels["onnxfim"]) == files_of(wheels["onnxfim_core"])


@pytest.mark.slow
def test_what_the_extra_for_cuda_would_install(fresh, wheels):
    found = fresh.resolve(f"{wheels['onnxfim']}[cuda]")
    builds = {name: version for name, version in found.items() if re.fullmatch(r"onnxruntime(-gpu)?", name)}
    assert len(builds) == 1
    if "onnxruntime-gpu" in builds:
        assert builds["onnxruntime-gpu"] != "1.27.0"
        for library in ("cuda-runtime", "cublas", "cudnn", "cufft", "curand"):
            assert any(name.startswith(f"nvidia-{library}") for name in found), library


@pytest.mark.slow
def test_one_environment_through_its_life(fresh, wheels):
    """Beside a build that is there; without any; with two over one another; mended by the command that was said; and the lean way."""
    fresh.pip("install", "-q", "onnxruntime")
    before = fresh.versions()
    fresh.pip("install", "-q", wheels["onnxfim_core"])
    assert before["onnxruntime"] == fresh.versions()["onnxruntime"], "the build that was there is another now"
    assert "No broken requirements" in fresh.pip("check")
    code, said = fresh.audit()
    assert code == 0, said
    assert "CUDA" not in said
    found = fresh.doctor()["installation"]
    assert [p["name"] for p in found["runtimes"]] == ["onnxruntime"]
    assert [p["name"] for p in found["ours"]] == ["onnxfim-core"]

    fresh.pip("uninstall", "-q", "-y", "onnxruntime")
    code, said = fresh.audit()
    assert code == 2
    assert re.search(r"ONNX Runtime is not installed.*Install one: pip install onnxruntime", said)
    assert fresh.doctor()["cuda"]["state"] == "not-importable"

    fresh.pip("install", "-q", f"{wheels['onnxfim_core']}[cpu]")
    assert fresh.versions()["onnxruntime"]
    fresh.pip("install", "-q", "--no-deps", wheels["onnxfim"])
    code, said = fresh.audit()
    assert code == 0
    (command,) = set(re.findall(r"To mend it: (pip .*)", said))
    assert command == fresh.doctor()["cuda"]["command"]
    uninstall, install = command.split(" && ")
    fresh.pip(*uninstall.split()[1:])
    fresh.pip(*install.split()[1:], "--no-index", "--find-links", wheels["onnxfim"].parent)
    assert fresh.doctor()["cuda"]["state"] != "two-builds"
    assert "To mend it" not in fresh.audit()[1]
