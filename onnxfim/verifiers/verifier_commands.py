"""How a verifier is called: a command with places for its files, or one of the tools that are known by name."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Formatter

from onnxfim.errors import SettingsError
from onnxfim.record.foreign_text import visible
from onnxfim.verifiers.properties import NETWORK, Version

#: What may stand in braces, and what for.
PLACES = {
    "onnx": "the network's file", "vnnlib": "the property's file, in VNN-LIB 1.0", "vnnlib2": "the same in VNN-LIB 2.0",
    "timeout": "seconds that it may take", "result": "a file that it writes its answer to; without it its output is read",
}  # fmt: skip
_NEEDED = ("onnx",)
#: Where α,β-CROWN lies, the Python that runs it, and more options for it.
ABCROWN_HOME, ABCROWN_PYTHON, ABCROWN_OPTIONS = "ABCROWN_HOME", "ABCROWN_PYTHON", "ABCROWN_OPTIONS"


@dataclass(frozen=True)
class VerifierCommand:
    """A verifier's command.

    Attributes:
        name: What it is called in a report.
        parts: The program and its arguments, with places.
        own_python: Whether it runs in this Python, with what this one finds.
    """

    name: str
    parts: tuple[str, ...]
    own_python: bool = False

    @property
    def version(self) -> Version:
        """Version of VNN-LIB that it reads."""
        return 2 if "vnnlib2" in self.places else 1

    @property
    def writes(self) -> bool:
        """Whether it writes its answer to a file."""
        return "result" in self.places

    @property
    def places(self) -> frozenset[str]:
        """The places in it."""
        return frozenset(name for part in self.parts for name in _places(part))

    def filled(self, values: Mapping[str, str]) -> list[str]:
        """The command with these values in its places; each part stays one argument, whatever the values hold."""
        return [_filled(part, values) for part in self.parts]


def verifier_command(text: str) -> VerifierCommand:
    """The command that a text names: one of the known tools, or a command line with places.

    It is split as a shell splits it, and no shell runs it.

    Raises:
        SettingsError: it cannot be split, a place is not known or missing, or the program is not there.
    """
    known = _KNOWN.get(text.strip())
    if known is not None:
        return known()
    try:
        parts = tuple(shlex.split(text))
    except ValueError as error:
        raise SettingsError(f"--verifier: {visible(text)!r} cannot be split into arguments ({error}). Close its quotes.") from error
    if not parts:
        raise SettingsError(f"--verifier: is empty, expected {_offered()}. Name one.")
    try:
        found = {name for part in parts for name in _places(part)}
    except ValueError as error:
        raise SettingsError(
            f"--verifier: {visible(text)!r} has a brace without its partner ({error}). Write a brace of your own twice: {{{{ }}}}."
        ) from error
    if unknown := sorted(found - set(PLACES)):
        shown = ", ".join(f"{{{visible(name)}}}" for name in unknown)
        raise SettingsError(
            f"--verifier: {shown} is no place, expected {_all_places()}. Write a brace of your own twice: {{{{ }}}}."
        )
    if len(parts) == 1 and not found:
        raise SettingsError(f"--verifier: {visible(text)!r} is no known verifier, expected {_offered()}. Name one.")
    missing = [name for name in _NEEDED if name not in found]
    if missing or not found & {"vnnlib", "vnnlib2"}:
        lacking = " and ".join(f"{{{name}}}" for name in (*missing, *(() if found & {"vnnlib", "vnnlib2"} else ("vnnlib",))))
        raise SettingsError(f"--verifier: {visible(text)!r} has no place for {lacking}, expected both files in it. Put it in.")
    if {"vnnlib", "vnnlib2"} <= found:
        raise SettingsError("--verifier: names both {vnnlib} and {vnnlib2}, expected the version that it reads. Drop one.")
    return VerifierCommand(Path(parts[0]).name, (_program(parts[0]), *parts[1:]))


def _places(part: str) -> list[str]:
    found = []
    for _, name, form, conversion in Formatter().parse(part):
        if name is None:
            continue
        if form or conversion or not name.isidentifier():
            found.append(f"{name}{'!' + conversion if conversion else ''}{':' + form if form else ''}")
        else:
            found.append(name)
    return found


def _filled(part: str, values: Mapping[str, str]) -> str:
    return "".join(literal + ("" if name is None else values[name]) for literal, name, _, _ in Formatter().parse(part))


def _program(name: str) -> str:
    """The program behind a name, as a shell would find it; a path of its own is taken from where the command is given."""
    found = shutil.which(name)
    if found is None:
        told = "is no program that can be run" if os.path.exists(name) else "is not installed, or not on the PATH"
        raise SettingsError(f"--verifier: {visible(name)!r} {told}. Install it, or give its whole path.")
    return os.path.abspath(found)


def _all_places() -> str:
    return ", ".join(f"{{{name}}}" for name in PLACES)


def _offered() -> str:
    return f"{', '.join(_KNOWN)}, or a command with the places {{onnx}}, {{vnnlib}} and {{timeout}}"


def _vibecheck() -> VerifierCommand:
    """vibecheck-nn by the standard's own interface (VNN-LIB 2.0, chapter 5)."""
    asks = ("verify", "{vnnlib2}", "--network", f"{NETWORK}={{onnx}}", "--timeout", "{timeout}")
    if (program := shutil.which("vibecheck")) is not None:
        return VerifierCommand("vibecheck", (os.path.abspath(program), *asks))
    raise SettingsError(
        "--verifier vibecheck: the program is not there. Install it beside (it brings PyTorch, and pins ONNX Runtime): "
        "pipx install vibecheck-nn."
    )


def _marabou() -> VerifierCommand:
    """Marabou by its Python interface, in a process of its own."""
    if importlib.util.find_spec("maraboupy") is None:
        raise SettingsError("--verifier marabou: maraboupy is not installed. Install it: pip install 'onnxfim[verify]'.")
    runner = "onnxfim.verifiers.marabou_runner"
    return VerifierCommand(
        "marabou", (sys.executable, "-m", runner, "{onnx}", "{vnnlib}", "{timeout}", "{result}"), own_python=True
    )


def _abcrown() -> VerifierCommand:
    """α,β-CROWN by its documented command line; its options beside the files are the user's."""
    home = os.environ.get(ABCROWN_HOME, "")
    if not home:
        raise SettingsError(
            f"--verifier abcrown: {ABCROWN_HOME} is not set, expected the folder of α,β-CROWN. Get it from "
            f"https://github.com/Verified-Intelligence/alpha-beta-CROWN, and set {ABCROWN_HOME}, "
            f"and {ABCROWN_PYTHON} to its Python."
        )
    script = next((p for p in (Path(home, "complete_verifier", "abcrown.py"), Path(home, "abcrown.py")) if p.is_file()), None)
    if script is None:
        raise SettingsError(f"--verifier abcrown: no abcrown.py below {ABCROWN_HOME}={visible(home)}. Set it to the cloned folder.")
    try:
        more = [part.replace("{", "{{").replace("}", "}}") for part in shlex.split(os.environ.get(ABCROWN_OPTIONS, ""))]
    except ValueError as error:
        raise SettingsError(f"{ABCROWN_OPTIONS}: cannot be split into arguments ({error}). Close its quotes.") from error
    python = _program(os.environ.get(ABCROWN_PYTHON) or "python3")
    path = str(script.resolve()).replace("{", "{{").replace("}", "}}")
    asks = ("--onnx_path", "{onnx}", "--vnnlib_path", "{vnnlib}", "--timeout", "{timeout}", "--results_file", "{result}")
    return VerifierCommand("abcrown", (python, path, *asks, "--save_adv_example", *more))


_KNOWN = {"vibecheck": _vibecheck, "marabou": _marabou, "abcrown": _abcrown}
#: Verifiers that are known by name.
KNOWN = tuple(_KNOWN)
