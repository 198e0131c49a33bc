"""What is missing for CUDA, and the one command that mends it: every row of the table, by machines that are made up."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from onnxfim.runtime import cuda
from onnxfim.runtime.cuda import BUILDS, RULES, CudaFacts, advise, build_for, cuda_facts, cuda_libraries
from onnxfim.runtime.installation import Installation, Package
from onnxfim.runtime.nvidia import NvidiaGpu
from onnxfim.runtime.shared_libraries import Library
from tests.support.places import ROOT

PAGE = (ROOT / "docs/install.md").read_text("utf-8")
ALL = tuple(name for name, *_ in cuda._LIBRARIES)


def build(name="onnxruntime-gpu", version="1.31.1", *others):
    return Installation((Package(name, version), *others), ())


GPU = NvidiaGpu("found", (13, 1), "590.44.01")
GOOD = CudaFacts(build(), "1.31.1", contained=True, cuda=13, gpu=GPU, loads=True)
OLD = replace(GOOD, installation=build(version="1.26.0"), version="1.26.0", cuda=12)
FAILS = {"loads": False, "failure": "libcublasLt.so.13: cannot open shared object file"}
CPU_BUILD = replace(GOOD, installation=build("onnxruntime", "1.32.0"), version="1.32.0", contained=False, cuda=None, loads=None)
TWO = (Package("onnxruntime", "1.32.0"), Package("onnxruntime-gpu", "1.31.1"))

MACHINES = [
    ("fine", GOOD, "CUDA 13 works with NVIDIA's driver 590.44.01 (for CUDA 13.1).", None),
    ("no-gpu", replace(GOOD, gpu=NvidiaGpu("none", why="no driver"), missing=ALL, **FAILS), "There is no NVIDIA GPU", None),
    ("no-gpu", replace(CPU_BUILD, gpu=NvidiaGpu("none", why="no driver")), "There is no NVIDIA GPU", None),
    ("gpu-hidden", replace(GOOD, gpu=NvidiaGpu("hidden", (13, 0), why="no device (error 100)"), **FAILS), "no device (error 100)", None),
    ("gpu-hidden", replace(GOOD, gpu=NvidiaGpu("hidden", why="a container", command="docker run --gpus all …"), **FAILS), "a container",
     "docker run --gpus all …"),
    ("driver-fails", replace(GOOD, gpu=NvidiaGpu("failing", why="error 803: restart the machine"), **FAILS), "restart the machine", None),
    ("driver-old", replace(GOOD, gpu=NvidiaGpu("found", (12, 8), "570.86.15"), **FAILS),
     "driver 570.86.15 (for CUDA 12.8) is too old for ONNX Runtime 1.31.1, which needs CUDA 13 with cuDNN 9, and a driver from 580.65.06",
     "pip install 'onnxruntime-gpu[cuda,cudnn]>=1.21,<1.27'"),
    ("driver-old", replace(OLD, gpu=NvidiaGpu("found", (11, 4), "470.57.02"), **FAILS), "a driver from 525.60.13 (Windows: 528.33)", None),
    ("libraries-missing", replace(GOOD, missing=ALL, **FAILS), "missing: CUDA runtime, cuBLAS, cuRAND, cuFFT, cuDNN",
     "pip install 'onnxruntime-gpu[cuda,cudnn]==1.31.1'"),
    ("libraries-missing", replace(GOOD, missing=("CUDA runtime",), **FAILS), "missing: CUDA runtime.",
     "pip install 'onnxruntime-gpu[cuda]==1.31.1'"),
    ("libraries-missing", replace(OLD, missing=("cuDNN",), **FAILS), "CUDA 12 is not complete; missing: cuDNN.",
     "pip install 'onnxruntime-gpu[cudnn]==1.26.0'"),
    ("libraries-missing", replace(GOOD, missing=("cuBLAS",), **FAILS), "missing: cuBLAS.",
     "pip install 'onnxruntime-gpu[cudnn]==1.31.1'"),
    # 1.20 has no extras, and does not look into NVIDIA's packages.
    ("libraries-missing", replace(OLD, version="1.20.2", missing=("cuDNN",), **FAILS), "cuDNN",
     "pip install -U 'onnxruntime-gpu[cuda,cudnn]!=1.27.0'"),
    ("cudnn-missing", replace(GOOD, missing=("cuFFT", "cuDNN")), "convolutions fail", "pip install 'onnxruntime-gpu[cuda,cudnn]==1.31.1'"),
    ("fine", replace(GOOD, missing=("cuFFT",)), "works", None),  # loaded at need, by DFT alone
    ("no-cuda-in-build", CPU_BUILD, "An NVIDIA GPU is here, and onnxruntime 1.32.0 has no CUDA",
     "pip uninstall -y onnxruntime && pip install 'onnxruntime-gpu[cuda,cudnn]!=1.27.0'"),
    ("no-cuda-in-build", replace(CPU_BUILD, gpu=NvidiaGpu("found", (12, 2), "535.1")), "has no CUDA",
     "pip uninstall -y onnxruntime && pip install 'onnxruntime-gpu[cuda,cudnn]>=1.21,<1.27'"),
    ("does-not-load", replace(GOOD, loads=False, failure="CUDA failure 46"), "the provider does not load: CUDA failure 46",
     "pip install --force-reinstall --no-deps onnxruntime-gpu==1.31.1"),
    ("two-builds", replace(GOOD, installation=Installation(TWO, ())), "2 builds of ONNX Runtime lie over one another",
     "pip uninstall -y onnxruntime onnxruntime-gpu && pip install --no-deps onnxruntime-gpu==1.31.1"),
    ("not-importable", CudaFacts(Installation((), ()), None, False, None, GPU), "ONNX Runtime is not installed",
     "pip install 'onnxruntime-gpu[cuda,cudnn]!=1.27.0'"),
    ("not-importable", CudaFacts(Installation((), ()), None, False, None, NvidiaGpu("none")), "ONNX Runtime is not installed",
     "pip install onnxruntime (or another build: onnxruntime-gpu[cuda,cudnn], onnxruntime-openvino, onnxruntime-directml)"),
    ("not-importable", CudaFacts(build(version="1.27.0"), None, False, None, NvidiaGpu("none"), failure="libcudart.so.13: cannot open"),
     "onnxruntime-gpu 1.27.0 cannot be imported: libcudart.so.13: cannot open.", "pip install 'onnxruntime-gpu!=1.27.0'"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("state", "facts", "words", "command"), MACHINES, ids=lambda v: v if isinstance(v, str) and " " not in v else ""
)
def test_each_machine_gets_its_advice(state, facts, words, command):
    advice = advise(facts)
    assert (advice.state, advice.command) == (state, command)
    assert words in advice.text
    assert "\n" not in advice.line
    assert advice.line.endswith(command or advice.text)


def test_every_rule_has_a_machine():
    assert {state for state, *_ in MACHINES} == {rule.state for rule in RULES}


@pytest.mark.parametrize(
    ("version", "told", "major"),
    [
        ("1.31.1", "13.0", 13),
        ("1.26.0", "12.8", 12),
        ("1.28.0", "", 13),
        ("1.27.0", "", 13),
        ("1.26.0", "", 12),
        ("1.20.2", "", 12),
    ],
)
def test_the_build_tells_its_cuda_else_the_table_does(version, told, major):
    assert cuda._cuda_of(version, told) == major


def test_the_files_looked_for_are_those_of_the_builds_cuda(monkeypatch):
    asked = {}
    monkeypatch.setattr(
        cuda, "find_library", lambda name, files, _: asked.setdefault(name, files) and Library(name, None, None, "no")
    )
    cuda_libraries(12)
    assert asked["cuBLAS"] == ("libcublas.so.12", "cublas64_12.dll")
    assert asked["cuFFT"] == ("libcufft.so.11", "cufft64_11.dll")
    asked.clear()
    cuda_libraries(None)
    assert asked["CUDA runtime"] == ("libcudart.so.13", "cudart64_13.dll", "libcudart.so.12", "cudart64_12.dll")


def test_what_is_missing_is_asked_only_where_there_is_a_gpu(monkeypatch):
    monkeypatch.setattr(
        cuda, "cuda_libraries", lambda _: (Library("cuDNN", None, None, "no"), Library("cuBLAS", "1", "file", None))
    )
    for gpu, missing in ((NvidiaGpu("none"), ()), (GPU, ("cuDNN",))):
        monkeypatch.setattr(cuda, "gpu_here", lambda gpu=gpu: gpu)
        facts = cuda_facts(False, "reason")
        assert facts.failure == "reason"
        assert facts.missing == (missing if facts.contained else ())


def test_newer_cuda_than_the_table_is_taken_for_its_newest():
    assert build_for(99) is BUILDS[0]
    assert [b.since for b in BUILDS] == sorted((b.since for b in BUILDS), reverse=True)


def test_the_table_of_the_page_is_the_one_that_is_used():
    rows = re.findall(r"^\| (?:from|up to) 1\.(\d+)(?: on)? \| (\d+) \| 9 \| (\S+) \| (\S+) \|$", PAGE, re.MULTILINE)
    newer, older = BUILDS
    minor = newer.since[1]
    assert rows == [
        (str(minor), str(newer.cuda), newer.linux, newer.windows),
        (str(minor - 1), str(older.cuda), older.linux, older.windows),
    ]


def test_the_page_has_every_state():
    states = PAGE[PAGE.index("| state |") :]
    assert {rule.state for rule in RULES} == set(
        re.findall(r"`([a-z]+(?:-[a-z]+)*)`", "".join(re.findall(r"^\|[^|]*\|", states, re.MULTILINE)))
    )
