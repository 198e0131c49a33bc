"""What this machine has for an audit: the runtime, the providers that really load, CUDA, cores, memory, extras."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from dataclasses import dataclass

from onnxfim import __version__
from onnxfim.errors import OnnxFimError, ProviderError
from onnxfim.runtime.available_memory import available_memory, total_memory
from onnxfim.runtime.cuda import CudaAdvice, advise, build_for, cuda_facts, cuda_libraries
from onnxfim.runtime.hardware import Hardware
from onnxfim.runtime.installation import Installation
from onnxfim.runtime.nvidia import NvidiaGpu
from onnxfim.runtime.providers import _CUDA, available_providers, build_info, runtime_version
from onnxfim.runtime.session import open_session
from onnxfim.runtime.shared_cores import usable_cores
from onnxfim.runtime.shared_libraries import Library

# One Identity node on one float, opset 13: enough to make a provider load. Written out, so that no ONNX library has to.
_TINY = (
    b'\x08\x08:7\n\x10\n\x01x\x12\x01y"\x08Identity\x12\x01g'
    b"Z\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\r"
)
_PACKAGES = ("onnx", "numpy", "scipy", "click", "jinja2", "rich")
#: Optional packages, and what each is for.
_EXTRAS = {
    "pillow": "folders of images: pip install 'onnxfim[images]'",
    "cyclonedx-python-lib": "a dossier's ML-BOM held against its schema: pip install 'onnxfim[dossier]'",
    "in-toto-attestation": "a dossier's statement held against its format: pip install 'onnxfim[dossier]'",
    "pyarrow": "Parquet files and Hugging Face data sets: pip install 'onnxfim[tables]'",
    "pandas": "frames in Python: pip install 'onnxfim[notebook]'",
    "matplotlib": "plots in Python: pip install 'onnxfim[notebook]'",
    "mlflow-skinny": "audits in MLflow's runs: pip install 'onnxfim[mlflow]'",
    "huggingface_hub": "audits in model cards: pip install 'onnxfim[huggingface]'",
    "urllib3": "models served at an address: pip install 'onnxfim[served]'",
    "maraboupy": "certified radii, audit --verifier marabou: pip install 'onnxfim[verify]'",
    "vnnlib": "properties in VNN-LIB 2.0 read back by its own parser: pip install 'onnxfim[verify]'",
    "ray": "audits on a cluster, audit --ray: pip install 'onnxfim[ray]'",
}


@dataclass(frozen=True)
class Provider:
    """An execution provider of this build: whether it loads, and the loader's reason where it does not."""

    name: str
    loads: bool
    reason: str | None


@dataclass(frozen=True)
class Extra:
    """An optional package: its version, or None and what it would be good for."""

    name: str
    version: str | None
    purpose: str


@dataclass(frozen=True)
class Machine:
    """The machine as an audit finds it; ``memory`` is in bytes, the container's limit where that is less,
    ``available`` what the process may still take of it.

    ``runtime`` is ONNX Runtime's version, None where it cannot be imported; ``installation`` the distributions that brought it and
    onnxfim; ``needs`` what its CUDA takes; ``cuda`` how it stands with CUDA and what mends it.
    """

    python: str
    platform: str
    packages: tuple[tuple[str, str], ...]
    installation: Installation
    runtime: str | None
    build: str | None
    needs: str | None
    providers: tuple[Provider, ...]
    gpu: NvidiaGpu
    libraries: tuple[Library, ...]
    cuda: CudaAdvice
    tf32: str
    cores: int
    memory: int | None
    extras: tuple[Extra, ...]
    available: int | None = None


def examine() -> Machine:
    """Everything that `doctor` shows; opens one tiny session per provider."""
    try:
        providers = tuple(_provider(name) for name in available_providers())
        runtime, build = runtime_version(), build_info()
    except ProviderError:  # no ONNX Runtime, or one that cannot be imported: `cuda` says so
        providers, runtime, build = (), None, None
    on_cuda = next((p for p in providers if p.name == _CUDA), None)
    facts = cuda_facts(None if on_cuda is None else on_cuda.loads, None if on_cuda is None else on_cuda.reason)
    return Machine(
        python=f"{platform.python_version()} ({sys.executable})",
        platform=f"{platform.system()} {platform.release()} {platform.machine()}",
        packages=(("onnxfim", __version__), *((name, v) for name in _PACKAGES if (v := _version(name)) is not None)),
        installation=facts.installation,
        runtime=runtime,
        build=build,
        needs=None if facts.cuda is None else build_for(facts.cuda).needs,
        providers=providers,
        gpu=facts.gpu,
        libraries=cuda_libraries(facts.cuda),
        cuda=advise(facts),
        tf32="off unless --tf32 is given (ONNX Runtime's own default is on)",
        cores=usable_cores(),
        memory=total_memory(),
        available=available_memory(),
        extras=tuple(Extra(name, _version(name), purpose) for name, purpose in _EXTRAS.items()),
    )


def _provider(name: str) -> Provider:
    """Whether a session on this provider runs on it."""
    try:
        report = open_session(_TINY, Hardware((name,)))[1]
    except OnnxFimError as error:
        return Provider(name, False, str(error))
    # A provider loads whether or not it takes this one node.
    return Provider(name, name in report.registered, None if name in report.registered else report.reason)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
