"""How an audit was run: where, by which method, with what it was opened and what it cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from onnxfim.record.limits import ALWAYS, AboveZero, Count, NotNegative, closed
from onnxfim.record.placed import Placed
from onnxfim.record.provider_option import ProviderOption

#: Why there is no value of what an interrupted audit did not come to.
UNMEASURED = "interrupted before it was measured"
#: And of what an audit did not come to whose provider failed.
UNREACHED = "the provider failed before it was measured"
#: And of a sample whose shard was not given to a merge.
UNSHARDED = "its shard is missing"
#: Why samples that were to be measured were not, all three.
UNDONE = (UNMEASURED, UNREACHED, UNSHARDED)


@closed
@dataclass(frozen=True)
class FailedStage:
    """A stage of the audit that failed where nobody foresaw it; what it would have found is missing, all else is there.

    ``error`` is the exception's type and ``message`` what it said, in one line; ``node`` is the graph's node that was looked at,
    where that is known.
    """

    stage: str
    error: str
    message: str
    node: str | None = None


#: What ended an audit whose time was up, in the place of a signal's name.
TIME_LIMIT = "the time limit"
#: The same of one that had made as many requests of a served model as it may.
QUERY_LIMIT = "the limit of requests"
#: And what makes an audit partial that was merged of some of its shards.
MISSING_SHARDS = "missing shards"
#: What a person set, or knows of: what ends by one is inconclusive, and not interrupted.
OWN_LIMITS = (TIME_LIMIT, QUERY_LIMIT, MISSING_SHARDS)


@closed
@dataclass(frozen=True)
class Restart:
    """The process that ran the model ended, and was started again.

    Attributes:
        stage: The stage of the audit that it ended in.
        ended: How it ended, in words that follow "ONNX Runtime".
        sample: Index of the sample that it was laid to; None where none was.
        then: What was done about it.
    """

    stage: str
    ended: str
    sample: Count | None
    then: str


@closed
@dataclass(frozen=True)
class CustomLibrary:
    """A library of custom operators that was loaded; ``sha256`` is None where its file could not be read afterwards."""

    path: str
    sha256: str | None


@dataclass(frozen=True)
class Run:
    """How it was run. ``times`` holds all that depends on the clock; everything else repeats on the same machine.

    ``provider_missed`` is True where a provider that was named was not obtained; ``provider_remedy`` says what mends that;
    ``provider_plugin`` names the plug-in that brought the one that was. ``tf32_doubt`` tells why TF32 may be on though it was not
    allowed. ``installation`` says what is installed twice and what mends it; None where nothing is. ``placement`` tells which nodes
    each provider was given, None where that is not known: of a function, or from an ONNX Runtime before 1.24. ``stopped`` is the
    error of a provider that failed and so ended the audit early; ``partial`` is then set. ``interrupted_by`` names the signal that
    ended it early, or says that it was the time limit; None where nothing did. ``failed_stages`` are those that failed where nobody
    foresaw it. ``restarts`` tell how often the process that ran the model ended and was started again; ``custom_libraries`` are the
    libraries of custom operators that it had. ``model_changed`` is True where the model's file was another one at the end.
    ``providers_registered`` are those that the session was given, ``providers_available`` all that the ONNX Runtime has.
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
    interrupted_by: str | None = None
    failed_stages: tuple[FailedStage, ...] = ()
    restarts: tuple[Restart, ...] = ()
    custom_libraries: tuple[CustomLibrary, ...] = ()
    model_changed: bool = False
    providers_available: tuple[str, ...] = ()
    times: Mapping[str, Any] = field(default_factory=dict, metadata=ALWAYS)
