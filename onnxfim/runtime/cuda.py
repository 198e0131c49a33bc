"""What this machine lacks for CUDA, and the one command that mends it: a table of rules on what was found."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from onnxfim.runtime.installation import Installation, Package, import_runtime, installed, not_importable
from onnxfim.runtime.nvidia import NvidiaGpu, gpu_here
from onnxfim.runtime.providers import _CUDA
from onnxfim.runtime.shared_libraries import Library, find_library

_GPU = "onnxruntime-gpu"
_HAS_EXTRAS = (1, 21)  # the first whose extras `cuda` and `cudnn` name NVIDIA's packages, and that looks into them


@dataclass(frozen=True)
class CudaBuild:
    """What onnxruntime-gpu needs from a version on: the CUDA it was built for, and the oldest drivers that run that.

    Sources: the wheels' own metadata and linked libraries; NVIDIA's table of minimum drivers for minor-version compatibility (for
    Windows it names none from CUDA 13 on).
    """

    since: tuple[int, int]
    cuda: int
    linux: str
    windows: str
    cufft: int

    @property
    def needs(self) -> str:
        """In words, what this CUDA takes."""
        return f"CUDA {self.cuda} with cuDNN 9, and a driver from {self.linux} (Windows: {self.windows}) on"


#: Newest first.
BUILDS = (
    CudaBuild((1, 27), 13, linux="580.65.06", windows="R580", cufft=12),
    CudaBuild((1, 19), 12, linux="525.60.13", windows="528.33", cufft=11),
)
#: A library, the extra of onnxruntime-gpu that brings it (cuBLAS is what cuDNN needs), files, the function that tells its version.
_LIBRARIES = (
    ("CUDA runtime", "cuda", "libcudart.so.{0.cuda}", "cudart64_{0.cuda}.dll", "cudaRuntimeGetVersion"),
    ("cuBLAS", "cudnn", "libcublas.so.{0.cuda}", "cublas64_{0.cuda}.dll", None),
    ("cuRAND", "cuda", "libcurand.so.10", "curand64_10.dll", None),
    ("cuFFT", "cuda", "libcufft.so.{0.cufft}", "cufft64_{0.cufft}.dll", None),
    ("cuDNN", "cudnn", "libcudnn.so.9", "cudnn64_9.dll", "cudnnGetVersion"),
)
_EXTRA = {name: extra for name, extra, *_ in _LIBRARIES}


@dataclass(frozen=True)
class CudaFacts:
    """What was found.

    Attributes:
        installation: The distributions.
        version: ONNX Runtime's; None where it cannot be imported, with the reason in ``failure``.
        contained: Whether the build contains the CUDA provider.
        cuda: CUDA that the build was made for; None where it has none.
        gpu: What the driver says.
        missing: Names of the libraries that were not found.
        loads: Whether the CUDA provider loads; None where it was not tried.
        failure: ONNX Runtime's own reason where it does not.
    """

    installation: Installation
    version: str | None
    contained: bool
    cuda: int | None
    gpu: NvidiaGpu
    missing: tuple[str, ...] = ()
    loads: bool | None = None
    failure: str | None = None


@dataclass(frozen=True)
class CudaAdvice:
    """How it stands with CUDA, and the command that mends it; None where there is nothing to mend, or no command does."""

    state: str
    text: str
    command: str | None = None

    @property
    def line(self) -> str:
        return self.text if self.command is None else f"{self.text} To mend it: {self.command}"


@dataclass(frozen=True)
class Rule:
    """A state of the machine, when it is there, what is said of it, and what mends it."""

    state: str
    applies: Callable[[CudaFacts], bool]
    text: Callable[[CudaFacts], str]
    command: Callable[[CudaFacts], str | None] = lambda _: None


def build_for(cuda: int) -> CudaBuild:
    """The newest row of `BUILDS` for a CUDA; the newest of all for one that is not in it."""
    return next((b for b in BUILDS if b.cuda == cuda), BUILDS[0])


def _needs(facts: CudaFacts) -> CudaBuild:
    return build_for(facts.cuda or BUILDS[0].cuda)


def _driver_is_old(facts: CudaFacts) -> bool:
    return facts.gpu.cuda is not None and facts.cuda is not None and facts.gpu.cuda[0] < facts.cuda


def _told_driver(facts: CudaFacts) -> str:
    gpu = facts.gpu
    runs = "of unknown version" if gpu.cuda is None else f"for CUDA {gpu.cuda[0]}.{gpu.cuda[1]}"
    return f"NVIDIA's driver {gpu.driver} ({runs})" if gpu.driver else f"NVIDIA's driver {runs}"


def _wheel(facts: CudaFacts, extras: str = "cuda,cudnn") -> str:
    """The requirement of a GPU build for this driver, with NVIDIA's libraries."""
    gpu, old = facts.gpu.cuda, BUILDS[0]
    if gpu is not None and gpu[0] < old.cuda:
        return f"'{_GPU}[{extras}]>={_dotted(_HAS_EXTRAS)},<{_dotted(old.since)}'"
    return f"'{_GPU}[{extras}]!=1.27.0'"


def _older_wheel(facts: CudaFacts) -> str | None:
    runs = facts.gpu.cuda
    fits = runs is not None and any(b.cuda <= runs[0] for b in BUILDS)
    return f"pip install {_wheel(facts)}" if fits else None


def _libraries(facts: CudaFacts) -> str:
    extras = ",".join(e for e in ("cuda", "cudnn") if e in {_EXTRA[name] for name in facts.missing} or not facts.missing)
    version = facts.version or ""
    if _numbers(version) < _HAS_EXTRAS:
        return f"pip install -U {_wheel(facts)}"
    return f"pip install '{_GPU}[{extras}]=={version}'"


def _exchange(facts: CudaFacts) -> str:
    names = " ".join(p.name for p in facts.installation.runtimes)
    return f"pip uninstall -y {names} && pip install {_wheel(facts)}" if names else f"pip install {_wheel(facts)}"


def _named(packages: tuple[Package, ...]) -> str:
    return " and ".join(map(str, packages)) or "this build of ONNX Runtime"


#: The first that applies is said.
RULES = (
    Rule(
        "two-builds",
        lambda f: f.installation.mixture is not None,
        lambda f: f.installation.mixture.text if f.installation.mixture else "",
        lambda f: f.installation.mixture.command if f.installation.mixture else None,
    ),
    Rule(
        "not-importable",
        lambda f: f.version is None,
        lambda f: not_importable(f.installation.runtimes, f.failure or "")[0],
        lambda f: _exchange(f) if f.gpu.here else not_importable(f.installation.runtimes, "")[1],
    ),
    Rule("no-gpu", lambda f: f.gpu.state == "none", lambda _: "There is no NVIDIA GPU: audits run on the CPU."),
    Rule(
        "gpu-hidden",
        lambda f: f.gpu.state == "hidden",
        lambda f: f"No NVIDIA GPU for this process: {f.gpu.why}. Audits run on the CPU.",
        lambda f: f.gpu.command,
    ),
    Rule(
        "driver-fails",
        lambda f: f.gpu.state == "failing",
        lambda f: f"The NVIDIA driver does not work: {f.gpu.why}.",
    ),
    Rule(
        "no-cuda-in-build",
        lambda f: not f.contained,
        lambda f: f"An NVIDIA GPU is here, and {_named(f.installation.runtimes)} has no CUDA: audits run without it.",
        _exchange,
    ),
    Rule(
        "driver-old",
        _driver_is_old,
        lambda f: (
            f"{_told_driver(f)} is too old for ONNX Runtime {f.version}, which needs {_needs(f).needs}. "
            "Update the driver, or take an older build."
        ),
        _older_wheel,
    ),
    Rule(
        "libraries-missing",
        lambda f: bool(f.missing) and not f.loads,
        lambda f: f"CUDA {f.cuda} is not complete; missing: {', '.join(f.missing)}.",
        _libraries,
    ),
    # From 1.28 on the provider loads without cuDNN, and the first convolution fails.
    Rule(
        "cudnn-missing",
        lambda f: "cuDNN" in f.missing,
        lambda _: "CUDA loads, and cuDNN is missing: convolutions fail.",
        _libraries,
    ),
    Rule(
        "does-not-load",
        lambda f: not f.loads,
        lambda f: f"The GPU, its driver and the libraries of CUDA {f.cuda} are here, and the provider does not load: {f.failure}.",
        lambda f: f"pip install --force-reinstall --no-deps {_GPU}=={f.version}",
    ),
    Rule("fine", lambda _: True, lambda f: f"CUDA {f.cuda} works with {_told_driver(f)}."),
)


def advise(facts: CudaFacts) -> CudaAdvice:
    """How it stands with CUDA on this machine, by the first rule that applies."""
    rule = next(r for r in RULES if r.applies(facts))
    return CudaAdvice(rule.state, rule.text(facts), rule.command(facts))


def why_not_cuda(reason: str, *, named: bool) -> tuple[str | None, str | None]:
    """The reason to tell why CUDA was not obtained, and what mends it.

    Both are None where CUDA was only looked for and no GPU is there: nothing is amiss then.

    Args:
        reason: ONNX Runtime's own.
        named: Whether a person named CUDA.
    """
    if not named and not gpu_here().here:
        return None, None
    return reason, _remedy(reason)


@lru_cache(maxsize=8)
def _remedy(reason: str) -> str:
    return advise(cuda_facts(False, reason)).line


def cuda_facts(loads: bool | None, failure: str | None = None) -> CudaFacts:
    """What is found here.

    Args:
        loads: Whether a session on CUDA was obtained.
        failure: ONNX Runtime's reason where it was not.
    """
    installation, gpu = installed(), gpu_here()
    try:
        runtime = import_runtime()
    except Exception as error:  # noqa: BLE001  a build that cannot be imported is a state, whatever it raises
        return CudaFacts(installation, None, False, None, gpu, loads=False, failure=str(error))
    contained = _CUDA in runtime.get_available_providers()
    version = str(runtime.__version__)
    cuda = _cuda_of(version, str(getattr(runtime, "cuda_version", "") or "")) if contained else None
    missing = tuple(library.name for library in cuda_libraries(cuda) if library.file is None) if cuda and gpu.here else ()
    return CudaFacts(installation, version, contained, cuda, gpu, missing, loads, failure)


def cuda_libraries(cuda: int | None) -> tuple[Library, ...]:
    """What of CUDA is found: of the version that a build was made for, or of any where that is None."""
    builds = BUILDS if cuda is None else (build_for(cuda),)
    return tuple(
        find_library(name, tuple(dict.fromkeys(f.format(b) for b in builds for f in (linux, windows))), symbol)
        for name, _, linux, windows, symbol in _LIBRARIES
    )


def _cuda_of(version: str, told: str) -> int:
    """CUDA's major version that a build was made for: as it says itself, else by the table."""
    if told[:2].isdigit():
        return int(told[:2])
    return next((b.cuda for b in BUILDS if _numbers(version) >= b.since), BUILDS[-1].cuda)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", version)[:2])


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"
