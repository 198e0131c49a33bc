"""What the `doctor` command shows."""

from __future__ import annotations

import json
from collections.abc import Iterator

from onnxfim.cli.console import Console
from onnxfim.record.plain import to_plain
from onnxfim.runtime.doctor import Machine, Provider, examine
from onnxfim.runtime.nvidia import NvidiaGpu
from onnxfim.runtime.providers import _CUDA, CPU
from onnxfim.runtime.shared_libraries import Library

_GIB = 2**30


def doctor_command(as_json: bool, console: Console) -> None:
    """Print what this machine has for an audit."""
    machine = examine()
    if as_json:
        console.document(json.dumps(to_plain(machine), indent=1, allow_nan=False))
        return
    for name, value in _answer(machine):
        console.line(f"{name}: {value}", copied=value == machine.cuda.command)
    console.table((), _lines(machine), folded=True)


def _answer(machine: Machine) -> Iterator[tuple[str, str]]:
    """Where audits run on this machine, what is amiss, and the command that mends it."""
    loading = [p.name for p in machine.providers if p.loads]
    if not machine.runtime:
        yield "answer", f"no audit can run: ONNX Runtime cannot be imported. {machine.cuda.text}"
    elif not loading:
        yield "answer", "no audit can run: no provider of this ONNX Runtime loads"
    else:
        memory = "" if machine.available is None else f", {_size(machine.available)} of memory"
        cores = f"{machine.cores} core{'' if machine.cores == 1 else 's'}"
        first = next((name for name in (_CUDA, CPU) if name in loading), loading[0])  # as --provider auto takes them
        yield "answer", f"audits run on {first}: ONNX Runtime {machine.runtime}, {cores}{memory}"
        yield "CUDA", machine.cuda.text
    if machine.cuda.command:
        yield "to mend it", machine.cuda.command


def _lines(machine: Machine) -> list[tuple[str, str]]:
    lines = [
        ("Python", machine.python),
        ("platform", machine.platform),
        ("ONNX Runtime", machine.runtime or "cannot be imported"),
        ("installed", ", ".join(map(str, (*machine.installation.ours, *machine.installation.runtimes))) or "from a folder"),
    ]
    if machine.runtime:
        lines += [
            ("build", machine.build or "not told by this version"),
            ("needs", f"{machine.needs}, for a GPU" if machine.needs else "nothing: this build has no CUDA"),
        ]
    lines += [(" " if i else "providers", _provider(p)) for i, p in enumerate(machine.providers)]
    lines += [("NVIDIA GPU", _gpu(machine.gpu)), *((library.name, _library(library)) for library in machine.libraries)]
    lines += [
        ("TF32", machine.tf32),
        ("cores", str(machine.cores)),
        ("memory", f"{_size(machine.memory)}; {_size(machine.available)} available to a process"),
        ("packages", ", ".join(f"{name} {version}" for name, version in machine.packages)),
    ]
    lines += [(e.name, e.version or f"not installed; for {e.purpose}") for e in machine.extras]
    return lines


def _size(bytes_: int | None) -> str:
    return "not known" if bytes_ is None else f"{bytes_ / _GIB:.1f} GiB"


def _provider(provider: Provider) -> str:
    return f"{provider.name}: " + ("loads" if provider.loads else f"does not load: {provider.reason}")


def _gpu(gpu: NvidiaGpu) -> str:
    runs = "" if gpu.cuda is None else f", CUDA up to {gpu.cuda[0]}.{gpu.cuda[1]}"
    return f"{gpu.state}: {gpu.why}" if gpu.why else f"found, driver {gpu.driver or 'of unknown version'}{runs}"


def _library(library: Library) -> str:
    return f"{library.version or 'found'} ({library.file})" if library.reason is None else f"not found: {library.reason}"
