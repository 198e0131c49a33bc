"""Devices of one machine among which an audit is divided: which each is, and how a process of its own is told."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onnxfim.errors import SettingsError
from onnxfim.record.foreign_text import clipped
from onnxfim.record.settings import Settings

_NAME = re.compile(r"[A-Za-z0-9_.]{1,40}", re.ASCII)
_SPAN = re.compile(r"(\d{1,4})-(\d{1,4})", re.ASCII)
_OPTIONS = ("device_id", "device_type")  # what a device stands for
_NVIDIA, _AMD = "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"
#: The variable by which a driver shows a process some of its cards. Each process then has one, its first: nothing of the audit's
#: settings, of its plan or of its report tells on which card a sample was measured.
_SHOWN = {"cuda": _NVIDIA, "tensorrt": _NVIDIA, "nvtensorrtrtx": _NVIDIA, "rocm": _AMD, "migraphx": _AMD}


@dataclass(frozen=True)
class Device:
    """One of several devices.

    Attributes:
        name: As a person named it: ``0``, ``GPU.1``.
        shown: Variable and value of the environment by which a process sees this device alone, where there is one.
        providers: What its process asks ONNX Runtime for, where that tells the device; None for the settings' own.
        cores: Those of the machine's cores that its process keeps to; empty for all.
    """

    name: str
    shown: tuple[str, str] | None = None
    providers: tuple[str, ...] | None = None
    cores: tuple[int, ...] = ()


def devices_of(
    text: str, settings: Settings, *, cores: Sequence[int] = (), gpu: bool = False, environ: Mapping[str, str] | None = None
) -> tuple[Device, ...]:
    """The devices that ``--devices`` names.

    On the CPU a device is a share of the cores; with more devices than cores, several share one.

    Args:
        text: Names with commas between them: ``0,1,2``, ``0-7``, ``GPU.0,GPU.1``.
        settings: Of the audit; the first of its providers has these devices.
        cores: The machine's cores that this process may run on.
        gpu: Whether there is an NVIDIA GPU, which ``auto`` then stands for.
        environ: The environment, which may show this process some cards only.

    Raises:
        SettingsError: no names, one that is none or comes twice, or a device that is told otherwise as well.
    """
    names = _names(text)
    first, *others = settings.providers
    kind, _, told = first.partition(":")
    options = [o for o in settings.provider_options if o.partition("=")[0].rpartition(":")[2] in _OPTIONS]
    if told or options:
        also = f"--provider {first}" if told else f"--provider-option {options[0]}"
        raise SettingsError(f"--devices {text}: {also} names a device too; one of the two was expected. Drop one.")
    short = kind.lower().removesuffix("executionprovider")
    short = "cuda" if short == "auto" and gpu else short
    if short in ("auto", "cpu"):
        if wrong := next((n for n in names if not n.isdecimal()), None):
            raise SettingsError(f"--devices {text}: {wrong!r} is no device of the CPU; numbers were expected. Give such as 0,1.")
        return tuple(Device(n, cores=_share(cores, k, len(names))) for k, n in enumerate(names))
    if variable := _SHOWN.get(short):
        return tuple(Device(n, (variable, _card(n, variable, environ or {}, text))) for n in names)
    return tuple(Device(n, providers=(f"{kind}:{n}", *others)) for n in names)


def _card(name: str, variable: str, environ: Mapping[str, str], text: str) -> str:
    """The driver's own name of a card: where some are shown to this process, a number counts among them."""
    if not name.isdecimal():
        raise SettingsError(f"--devices {text}: {name!r} is no card; numbers were expected. Give such as 0,1.")
    shown = [card.strip() for card in environ.get(variable, "").split(",") if card.strip()]
    if not shown:
        return name
    if int(name) >= len(shown):
        raise SettingsError(
            f"--devices {text}: {variable} shows {len(shown)} of them, counted from 0, and {name} is none. "
            "Name others, or unset it."
        )
    return shown[int(name)]


def _names(text: str) -> tuple[str, ...]:
    """The devices' names, spans written out."""
    found: list[str] = []
    for part in text.split(","):
        word = part.strip()
        span = _SPAN.fullmatch(word)
        if span is None and _NAME.fullmatch(word):
            found.append(word)
        elif span is not None and int(span[1]) <= int(span[2]):
            found += map(str, range(int(span[1]), int(span[2]) + 1))
        else:
            raise SettingsError(
                f"--devices {clipped(text, 60)!r}: {clipped(word, 40)!r} is no device; names with commas between them were "
                "expected. Give such as 0,1 or 0-7."
            )
    if twice := next((n for n in found if found.count(n) > 1), None):
        raise SettingsError(f"--devices {clipped(text, 60)}: {twice} comes twice; each device once was expected. Drop one.")
    return tuple(found)


def _share(cores: Sequence[int], k: int, n: int) -> tuple[int, ...]:
    """Cores of device k of n (k from 0): neighbours, for they share what lies near."""
    if not cores:
        return ()
    if n >= len(cores):
        return (cores[k % len(cores)],)
    return tuple(cores[k * len(cores) // n : (k + 1) * len(cores) // n])


__all__ = ["Device", "devices_of"]
