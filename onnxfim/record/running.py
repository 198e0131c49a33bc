"""How an audit was run: where, by which method, with what it was opened and what it cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from onnxfim.record.limits import ALWAYS, AboveZero, Count, NotNegative
from onnxfim.record.placed import Placed
from onnxfim.record.provider_option import ProviderOption


@dataclass(frozen=True)
class Run:
    """How it was run. ``times`` holds all that depends on the clock; everything else repeats on the same machine.

    ``provider_missed`` is True where a provider that was named was not obtained; ``provider_remedy`` says what mends that;
    ``provider_plugin`` names the plug-in that brought the one that was. ``tf32_doubt`` tells why TF32 may be on though it was not
    allowed. ``installation`` says what is installed twice and what mends it; None where nothing is. ``placement`` tells which nodes
    each provider was given, None where that is not known: of a function, or from an ONNX Runtime before 1.24. ``stopped`` is the
    error of a provider that failed and so ended the audit early; ``partial`` is then set.
    """

    provider: str
    providers_requested: tuple[str, ...]
    providers_registered: tuple[str, ...]
    provider_reason: str | None
    method: str
    step: NotNegative
    scheme: str
    temperature: AboveZero | None
    seed: int
    evaluations: Count
    seconds: NotNegative
    versions: Mapping[str, str]
    platform: str
    partial: bool
    provider_missed: bool = False
    provider_options: tuple[ProviderOption, ...] = ()
    provider_plugin: str | None = None
    tf32_doubt: str | None = None
    provider_remedy: str | None = None
    installation: str | None = None
    placement: tuple[Placed, ...] | None = None
    stopped: str | None = None
    times: Mapping[str, Any] = field(default_factory=dict, metadata=ALWAYS)
