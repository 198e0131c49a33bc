"""Plug-in providers: libraries that bring an execution provider to an ONNX Runtime that was built without it.

None is loaded before somebody asks for it: an installed package by the provider's name, any other library by its path.

Source: onnxruntime.ai, "Plugin execution providers" (`register_execution_provider_library`, `get_ep_devices`,
`SessionOptions.add_provider_for_devices`).
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from onnxfim.errors import ProviderError

_ENDING = "executionprovider"
_TELL_PATH = ("get_library_path", "library_path")
_TELL_NAMES = ("get_ep_names", "get_ep_name")


@dataclass(frozen=True)
class Plugin:
    """A library with one or more execution providers.

    Attributes:
        name: What it is registered as.
        path: The library.
        source: The package that brought it, with its version, or the path.
        by_hand: Whether a person named the path.
    """

    name: str
    path: str
    source: str
    by_hand: bool = False


class PluginFailed(Exception):
    """ONNX Runtime did not take a library; the message says why, in one line."""


def named(libraries: Sequence[tuple[str, str]]) -> tuple[Plugin, ...]:
    """The libraries that a person named.

    Raises:
        ProviderError: a path that is no file.
    """
    found = []
    for name, path in libraries:
        if not os.path.isfile(path):  # also where the system takes no such name
            raise ProviderError(
                f"provider library {name}={path}: there is no such file. Give the path of the plug-in's shared library."
            )
        found.append(Plugin(name, str(Path(path).resolve()), path, by_hand=True))
    return tuple(found)


def packages() -> tuple[str, ...]:
    """Installed packages that may bring a plug-in, by name and version; none of them is imported."""
    return tuple(sorted(f"{name} {version}" for name, version, _ in _installed()))


def provider_of(name: str, libraries: Sequence[Plugin]) -> str | None:
    """The provider that a person means by ``name``, among those of the libraries named; these are loaded for it.

    Raises:
        ProviderError: ONNX Runtime does not take one of them.
    """
    for plugin in libraries:
        try:
            provided = register(plugin)
        except PluginFailed as error:
            raise ProviderError(
                f"provider library {plugin.name}={plugin.source}: {error}. Give a plug-in for this ONNX Runtime."
            ) from error
        if _plain(name) == _plain(plugin.name):
            if not provided:
                raise ProviderError(
                    f"provider library {plugin.name}={plugin.source}: it was loaded and found no device of its own on this "
                    "machine. Run it where there is one, or ask for another provider."
                )
            return provided[0]
        if (match := next((p for p in provided if _plain(p) == _plain(name)), None)) is not None:
            return match
    return None


def installed_provider(name: str) -> str | None:
    """The provider that an installed package of that name brings, or None; its library is not loaded yet."""
    return next((p for _, p in _found(name)), None)


def bringing(provider: str, libraries: Sequence[Plugin]) -> Plugin | None:
    """The plug-in that brings a provider: of the libraries named, else of an installed package; None where none does."""
    for plugin in libraries:
        if provider in register(plugin):
            return plugin
    return next((plugin for plugin, name in _found(provider) if name == provider), None)


@cache
def register(plugin: Plugin) -> tuple[str, ...]:
    """Load a library, once in a process; the providers for which it found a device.

    Raises:
        PluginFailed: ONNX Runtime does not take it.
    """
    import onnxruntime

    load: Callable[[str, str], None] | None = getattr(onnxruntime, "register_execution_provider_library", None)
    if load is None:
        raise PluginFailed(f"ONNX Runtime {onnxruntime.__version__} takes no plug-ins; 1.24 or later does")
    before = {d.ep_name for d in onnxruntime.get_ep_devices()}
    try:
        load(plugin.name, plugin.path)
    except Exception as error:
        if "already registered" not in str(error):  # by the caller of this library, who may do that
            raise PluginFailed(re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", " ".join(str(error).split()))[:300]) from error
    its = (
        d.ep_name
        for d in onnxruntime.get_ep_devices()
        if d.ep_name not in before or d.ep_metadata.get("library_path") == plugin.path
    )
    return tuple(dict.fromkeys(its))


def devices(provider: str, asked: str | None = None) -> list[Any]:
    """The device of a plug-in's provider that is to be used, as ``onnxruntime.OrtEpDevice``; empty where it has none.

    Args:
        provider: Its full name.
        asked: A number among its devices, or a kind such as ``gpu``; the first device where None.

    Raises:
        ProviderError: it has no such device.
    """
    import onnxruntime

    found = [d for d in onnxruntime.get_ep_devices() if d.ep_name == provider]
    if asked is None or not found:
        return found[:1]
    kinds = [kind_of(d) for d in found]
    fitting = [d for i, (d, kind) in enumerate(zip(found, kinds, strict=True)) if asked.lower() in (str(i), kind.lower())]
    if not fitting:
        there = ", ".join(f"{i} ({kind})" for i, kind in enumerate(kinds))
        raise ProviderError(f"provider {provider} has no device {asked!r}; it has {there}. Ask for one of these.")
    return fitting[:1]


def kind_of(device: Any) -> str:
    """Kind of a device: CPU, GPU or NPU."""
    return str(device.device.type).rpartition(".")[2]


def version_of(device: Any) -> str:
    """Version of the plug-in that a device belongs to, as the plug-in tells it; empty where it does not."""
    told: Mapping[str, str] = device.ep_metadata
    return str(told.get("version", ""))


def _found(name: str) -> Iterator[tuple[Plugin, str]]:
    """Plug-in and provider of the installed packages that are called like a provider; they are imported, no library is loaded."""
    for package, version, module in _installed():
        if _plain(module) != _plain(name):
            continue
        try:
            told = importlib.import_module(module)
            path = next(getattr(told, tell)() for tell in _TELL_PATH if hasattr(told, tell))
        except (StopIteration, ImportError, OSError, RuntimeError):  # not a plug-in after all, or a broken one
            continue
        tell = next((getattr(told, t) for t in _TELL_NAMES if hasattr(told, t)), None)
        names = tell() if tell is not None else [getattr(told, "EP_NAME", _plain(module))]
        for provided in [names] if isinstance(names, str) else names:
            yield Plugin(provided, str(path), f"{package} {version}"), provided


@cache
def _installed() -> tuple[tuple[str, str, str], ...]:
    """Name, version and module of the installed packages ``onnxruntime-…`` that have a module of their own."""
    from importlib.metadata import distributions

    found = []
    for package in distributions():
        name = package.metadata["Name"] or ""
        if re.match(r"onnxruntime[-_.]", name, re.IGNORECASE):
            modules = {
                Path(str(f)).parts[0]
                for f in package.files or ()
                if len(Path(str(f)).parts) == 2 and str(f).endswith("__init__.py")
            }
            found += [(name, package.version, m) for m in sorted(modules) if m.startswith("onnxruntime_")]
    return tuple(dict.fromkeys(found))


def _plain(name: str) -> str:
    """A provider's, package's or module's name without what they differ in: ``onnxruntime_ep_open_vino`` is ``openvino``."""
    plain = re.sub(r"[^a-z0-9]", "", re.sub(r"^onnxruntime[-_](ep[-_])?", "", name.lower()))
    return plain.removesuffix(_ENDING)
