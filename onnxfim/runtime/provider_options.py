"""The chain of providers that a session is opened with: each with its options, ours beside those given, and what came of them."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from onnxfim.errors import ProviderError
from onnxfim.runtime import plugins
from onnxfim.runtime.failures import plain
from onnxfim.runtime.hardware import Hardware
from onnxfim.runtime.providers import _CUDA, _TENSORRT, CPU, OptionSet, _preload_cuda, available_providers

_RTX = "NvTensorRTRTXExecutionProvider"
_OPENVINO = "OpenVINOExecutionProvider"
#: Read by CUDA's libraries when they are loaded; TensorRT has no option of its own.
TF32_VARIABLE = "NVIDIA_TF32_OVERRIDE"
_CUDA_LIBRARIES = re.compile(r"libcudart|libcublas|libcudnn|libnvinfer")
_ABOUT_OPTIONS = re.compile(r"\boptions?\b", re.IGNORECASE)
_DEVICE_KEYS = ("device_id", "device_type")  # they choose a plug-in's device, which is then handed over by itself
_TRUE, _FALSE = frozenset({"1", "true", "on", "yes"}), frozenset({"0", "false", "off", "no"})


@dataclass(frozen=True)
class DefaultOption:
    """An option that we set where a person does not: its value on given hardware (None leaves the provider's own), and why."""

    key: str
    value: Callable[[Hardware], str | None]
    why: str


def _always(value: str) -> Callable[[Hardware], str | None]:
    return lambda _: value


def _profile(rows: Callable[[Any], int]) -> Callable[[Hardware], str | None]:
    return lambda h: None if h.profile is None else h.profile.of(rows(h.profile))


def _where_kept(value: Callable[[Path], str]) -> Callable[[Hardware], str | None]:
    def kept(hardware: Hardware) -> str | None:
        if hardware.engines is None:
            return None
        folder = engine_folder(hardware.engines, tf32=hardware.tf32)
        return value(folder) if _may_keep(folder) else None

    return kept


def _may_keep(folder: Path) -> bool:
    """Whether engines can be written into a folder, which may not be there yet: a compiler that cannot keep them would fail."""
    try:
        nearest = next(p for p in (folder, *folder.absolute().parents) if os.path.lexists(p))
        return nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)
    except (OSError, ValueError):
        return False


_SHAPES = "an engine is built for a range of shapes: without it each new batch size builds another, for seconds to minutes"
_KEPT = "an engine takes seconds to minutes to build, and is the same in the next audit"
#: By the provider's full name.
DEFAULTS: Mapping[str, tuple[DefaultOption, ...]] = {
    _CUDA: (
        DefaultOption("use_tf32", lambda h: str(int(h.tf32)), "10 bits of mantissa drown small differences; its own default is on"),
        DefaultOption(
            "cudnn_conv_algo_search", _always("HEURISTIC"),
            "EXHAUSTIVE, ONNX Runtime's own, times every algorithm at every new shape: 0.3 to 1.3 s each against 2 to 5 ms",
        ),
        DefaultOption(
            "arena_extend_strategy", _always("kSameAsRequested"),
            "kNextPowerOfTwo, ONNX Runtime's own, reserves up to twice the memory that is used, which other sessions then lack",
        ),
    ),
    _TENSORRT: (
        DefaultOption("trt_engine_cache_enable", _where_kept(lambda _: "1"), _KEPT),
        DefaultOption("trt_engine_cache_path", _where_kept(str), _KEPT),
        DefaultOption("trt_timing_cache_enable", _where_kept(lambda _: "1"), "a kernel once timed is not timed again"),
        DefaultOption("trt_timing_cache_path", _where_kept(str), "beside the engines"),
        DefaultOption("trt_profile_min_shapes", _profile(lambda p: 1), _SHAPES),
        DefaultOption("trt_profile_opt_shapes", _profile(lambda p: p.usual), "most calls have as many rows as the batch"),
        DefaultOption("trt_profile_max_shapes", _profile(lambda p: p.most), _SHAPES),
    ),
    _OPENVINO: (
        DefaultOption(
            "precision", _always("ACCURACY"),
            "the file's own; OpenVINO's default computes in bfloat16 on CPUs that have it, and in float16 on GPUs",
        ),
    ),
    _RTX: (
        DefaultOption("nv_runtime_cache_path", _where_kept(str), _KEPT),
        DefaultOption("nv_profile_min_shapes", _profile(lambda p: 1), _SHAPES),
        DefaultOption("nv_profile_opt_shapes", _profile(lambda p: p.usual), "most calls have as many rows as the batch"),
        DefaultOption("nv_profile_max_shapes", _profile(lambda p: p.most), _SHAPES),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Link:
    """One provider of a chain.

    Attributes:
        provider: Its full name.
        options: What it is opened with.
        given: Keys of those that a person gave.
        plugin: The plug-in that brings it, or None where the build contains it.
        device: The plug-in's device, as ``onnxruntime.OrtEpDevice``.
        device_asked: The option that chose it, key and value, or None.
    """

    provider: str
    options: Mapping[str, str]
    given: frozenset[str] = frozenset()
    plugin: plugins.Plugin | None = None
    device: Any = None
    device_asked: tuple[str, str] | None = None


@dataclass(frozen=True)
class Chain:
    """The providers to open a session with.

    Attributes:
        links: In order of preference; the last is the CPU.
        missing: Why those that were asked for and are not among them are not, by full name.
        lost: Options given for these.
        tf32_doubt: Why TF32 may be on though it is not to be, or None.
    """

    links: tuple[Link, ...]
    missing: Mapping[str, str]
    lost: tuple[OptionSet, ...] = ()
    tf32_doubt: str | None = None

    def plugin_of(self, provider: str) -> str | None:
        """The plug-in that brings a provider, with its version, or None."""
        link = next((k for k in self.links if k.provider == provider and k.plugin is not None), None)
        if link is None or link.plugin is None:
            return None
        version = plugins.version_of(link.device)
        return f"{link.plugin.source}, library version {version}" if version else link.plugin.source


def provider_chain(hardware: Hardware) -> Chain:
    """What to open a session with on this hardware; plug-ins that it asks for are loaded.

    Raises:
        ProviderError: an unknown provider, an option of one that is not asked for, a library that is none.
    """
    asked, libraries = hardware.asked, plugins.named(hardware.libraries)
    links, missing = [], {}
    for name in hardware.names:
        given = asked.get(name, {})
        _agrees_with_tf32(name, given, hardware.tf32)
        ours = {d.key: value for d in DEFAULTS.get(name, ()) if (value := d.value(hardware)) is not None}
        try:
            plugin = _plugin(name, libraries)
            if plugin is None and name not in available_providers():
                continue
            device, chosen = None, None
            if plugin is not None:
                chosen = next(((key, given[key]) for key in _DEVICE_KEYS if key in given), None)
                device = next(iter(plugins.devices(name, chosen and chosen[1])), None)
                if device is None:
                    missing[name] = f"the plug-in {plugin.source} finds no device of its own on this machine"
                    continue
                given = {key: value for key, value in given.items() if key not in _DEVICE_KEYS}
                ours = ours if name == _RTX else {}  # a plug-in of that name may know other keys
        except plugins.PluginFailed as error:
            missing[name] = f"its plug-in cannot be loaded: {error}"
            continue
        links.append(Link(name, {**ours, **given}, frozenset(given), plugin, device, chosen))
        if name == CPU:  # it takes every node: nothing is left for those after it
            break
    else:
        links.append(Link(CPU, {}))
    there = {k.provider for k in links}
    doubt = _without_tf32() if there & {_TENSORRT, _RTX} and not hardware.tf32 else None
    if _CUDA in there or _TENSORRT in there:
        _preload_cuda()
    return Chain(tuple(links), missing, lost_options(asked, there), doubt)


def lost_options(asked: Mapping[str, Mapping[str, str]], there: Collection[str]) -> tuple[OptionSet, ...]:
    """The options given for providers that do not run."""
    return tuple(
        OptionSet(name, key, value, None, taken=False, ours=False)
        for name, options in asked.items() if name not in there for key, value in options.items()
    )  # fmt: skip


def refused_option(links: Sequence[Link], error: BaseException) -> None:
    """Raise ProviderError where an error says that a provider does not take an option that a person gave."""
    text = " ".join(str(error).split())
    asked = [f"{k.provider}: {key}={k.options[key]}" for k in links for key in sorted(k.given)]
    if asked and _ABOUT_OPTIONS.search(text):
        raise ProviderError(
            f"provider option {', '.join(asked)}: not taken ({plain(text)[:300]}). The provider's documentation tells its options."
        ) from error


def added(options: Any, links: Sequence[Link]) -> list[tuple[str, dict[str, str]]] | None:
    """The argument ``providers`` of a session; None where plug-ins alone run, which are added to the session's options."""
    others = [k for k in links if k.plugin is None and k.provider != CPU]
    if others or all(k.plugin is None for k in links):
        return [(k.provider, dict(k.options)) for k in links]  # from 1.24 on this takes plug-ins by their names too
    for link in links:
        if link.plugin is not None:
            options.add_provider_for_devices([link.device], dict(link.options))
    return None


def ran_with(chain: Chain, session: Any) -> tuple[OptionSet, ...]:
    """Every option of the chain, and what the session says that it runs with."""
    registered, told = tuple(session.get_providers()), session.get_provider_options()
    found = []
    for link in chain.links:
        says: Mapping[str, str] = told.get(link.provider, {})
        if link.device_asked is not None:
            ran = link.provider in registered
            found.append(OptionSet(link.provider, *link.device_asked, plugins.kind_of(link.device), taken=ran, ours=False))
        for key, value in link.options.items():
            ours = key not in link.given
            if ours and link.provider not in registered:
                continue
            running = says.get(key)
            taken: bool | None = None
            if link.provider not in registered or link.provider == CPU:  # the CPU provider reads none, and does not say so
                taken = False
            elif says:
                taken = running is not None and _same(value, running)
            found.append(OptionSet(link.provider, key, value, running, taken=taken, ours=ours))
    return (*found, *chain.lost)


def _same(asked: str, running: str) -> bool:
    """Whether two spellings of an option's value mean the same."""
    a, b = asked.strip().lower(), running.strip().lower()
    if a == b or {a, b} <= _TRUE or {a, b} <= _FALSE:
        return True
    try:
        return float(a) == float(b)
    except ValueError:
        return False


def _plugin(name: str, libraries: Sequence[plugins.Plugin]) -> plugins.Plugin | None:
    """The plug-in to use for a provider: one that a person named, or an installed one where the build has none of its own."""
    plugin = plugins.bringing(name, libraries) if libraries or name not in _built_in() else None
    if plugin is not None:
        plugins.register(plugin)
    return plugin if plugin is None or plugin.by_hand or name not in _built_in() else None


def _built_in() -> frozenset[str]:
    """Providers of the build itself, without those of plug-ins that were loaded."""
    import onnxruntime

    return frozenset(onnxruntime.get_available_providers()) - {
        d.ep_name for d in getattr(onnxruntime, "get_ep_devices", list)() if d.ep_metadata.get("library_path")
    }


def _agrees_with_tf32(provider: str, given: Mapping[str, str], tf32: bool) -> None:
    """Raise where an option contradicts the setting, which the report and every comparison tell."""
    value = given.get("use_tf32", "").lower()
    if provider == _CUDA and value and (value in _TRUE) != tf32:
        raise ProviderError(
            f"provider option use_tf32={value}: the setting tf32 is {'on' if tf32 else 'off'}. "
            "Say it with --tf32, which the report tells."
        )


def engine_folder(cache_dir: Path, *, tf32: bool) -> Path:
    """Where engines are kept below the cache: apart for TF32, of which their file names say nothing."""
    return cache_dir / ("tensorrt-tf32" if tf32 else "tensorrt")


@cache
def _without_tf32() -> str | None:
    """Turn TF32 off for libraries that have no option for it; why that may come too late, or None. Decided once in a process."""
    if os.environ.get(TF32_VARIABLE) == "0":
        return None
    late = _cuda_is_loaded()
    os.environ[TF32_VARIABLE] = "0"
    return f"CUDA's libraries were loaded before {TF32_VARIABLE}=0 could be set" if late else None


def _cuda_is_loaded() -> bool:
    """Whether this process has loaded CUDA's libraries: by its memory map, elsewhere by what we did."""
    if sys.platform == "linux":
        try:
            return _CUDA_LIBRARIES.search(Path("/proc/self/maps").read_text()) is not None
        except OSError:
            pass
    return _preload_cuda.cache_info().currsize > 0
