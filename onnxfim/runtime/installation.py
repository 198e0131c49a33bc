"""Which distributions hold the onnxruntime and the onnxfim that are imported: one of each, or two over one another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxfim.errors import ProviderError

if TYPE_CHECKING:
    from importlib.metadata import Distribution

_PLAIN, _GPU = "onnxruntime", "onnxruntime-gpu"
#: What `pip` is told where no build of ONNX Runtime is there.
INSTALL_ONE = f"pip install {_PLAIN} (or another build: {_GPU}[cuda,cudnn], onnxruntime-openvino, onnxruntime-directml)"


@dataclass(frozen=True)
class Package:
    """An installed distribution."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


@dataclass(frozen=True)
class Mixture:
    """What is installed twice, and the command that mends it."""

    text: str
    command: str

    def __str__(self) -> str:
        return f"{self.text} To mend it: {self.command}"


@dataclass(frozen=True)
class Installation:
    """The distributions whose files are imported as ``onnxruntime`` and as ``onnxfim``."""

    runtimes: tuple[Package, ...]
    ours: tuple[Package, ...]

    @property
    def mixture(self) -> Mixture | None:
        """Builds of ONNX Runtime, or distributions of onnxfim, that lie over one another; None where there is one of each."""
        if len(self.runtimes) > 1:
            return _mixture(self.runtimes, "builds of ONNX Runtime", self._kept())
        if len(self.ours) > 1:
            kept = next((p for p in self.ours if p.name != "onnxfim-core"), self.ours[0])
            return _mixture(self.ours, "distributions of onnxfim", kept)
        return None

    def _kept(self) -> Package:
        """The build that somebody chose; else the GPU build, which runs on the CPU too."""
        chosen = [p for p in self.runtimes if p.name != _PLAIN]
        return next((p for p in chosen if p.name != _GPU), chosen[0] if chosen else self.runtimes[0])


def _mixture(packages: Sequence[Package], what: str, kept: Package) -> Mixture:
    return Mixture(
        f"{len(packages)} {what} lie over one another: {' and '.join(map(str, packages))}.",
        f"pip uninstall -y {' '.join(p.name for p in packages)} && pip install --no-deps {kept.name}=={kept.version}",
    )


def installed(path: Sequence[str] | None = None) -> Installation:
    """What is installed on ``path`` (``sys.path`` where it is None): by the files that each distribution lists, not by its name."""
    from importlib.metadata import distributions

    found = [(d, d.read_text("RECORD") or "") for d in (distributions() if path is None else distributions(path=list(path)))]
    return Installation(_holders(found, "onnxruntime"), _holders(found, "onnxfim"))


def _holders(found: Iterable[tuple[Distribution, str]], package: str) -> tuple[Package, ...]:
    """Distributions with files of this package, in the first folder that has any: that is what Python imports."""
    file = f"{package}/__init__.py,"
    folders: dict[Path, dict[str, Package]] = {}
    for distribution, record in found:
        if record.startswith(file) or f"\n{file}" in record:
            folder, name = Path(str(distribution.locate_file(package))).resolve(), distribution.metadata["Name"]
            folders.setdefault(folder, {}).setdefault(name.lower(), Package(name, distribution.version))
    first = next(iter(folders.values()), {})
    return tuple(first[name] for name in sorted(first))


def import_runtime() -> Any:
    """The module ``onnxruntime``.

    Raises:
        ProviderError: no build is installed, or the one that is cannot be imported.
    """
    try:
        import onnxruntime
    except ImportError as error:
        text, command = not_importable(installed().runtimes, str(error))
        raise ProviderError(f"{text} Install one: {command}") from error
    if not hasattr(onnxruntime, "InferenceSession"):  # a folder that an uninstalled build left is imported as an empty package
        text, command = not_importable(installed().runtimes, "files are missing")
        raise ProviderError(f"{text} Install one: {command}")
    return onnxruntime


def not_importable(runtimes: Sequence[Package], reason: str) -> tuple[str, str]:
    """In words, that there is no ONNX Runtime or that it cannot be imported; and the command that installs one that can."""
    if not runtimes:
        return "ONNX Runtime is not installed, and a model runs on it.", INSTALL_ONE
    build, reason = runtimes[0], " ".join(reason.split())
    command = f"pip install '{_GPU}!=1.27.0'" if (build.name, build.version) == (_GPU, "1.27.0") else None
    return (
        f"{build} cannot be imported: {reason}.",
        command or f"pip install --force-reinstall --no-deps {build.name}=={build.version}",
    )
