"""The plan of an audit whose samples are measured apart: all that couples them, and which they are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from onnxfim.errors import OutputError
from onnxfim.record.audit import Audit
from onnxfim.record.fitting import Misfit, from_plain
from onnxfim.record.input_pictures import InputKind
from onnxfim.record.json_text import versioned
from onnxfim.record.json_writing import as_json
from onnxfim.record.layout import audit_from_dict, audit_text
from onnxfim.record.limits import ALWAYS, AboveZero, Count, NotNegative, Positive, closed
from onnxfim.record.packed_array import PackedArray
from onnxfim.record.reading_data import DataReading

#: Of the layout, and of what a plan means: shards of another one do not go with it.
PLAN_VERSION = "1"


@closed
@dataclass(frozen=True)
class PlannedSpread:
    """How far the inputs spread, `slopes.spread.Spread`."""

    pooled: float
    deviation: PackedArray
    steps: PackedArray | None
    features: Count | None
    guessed: PackedArray | None


@closed
@dataclass(frozen=True)
class PlannedRange:
    """The valid range of inputs: its ends at each coordinate, (d,) each, and where it is from, in words."""

    low: PackedArray
    high: PackedArray
    source: str


@closed
@dataclass(frozen=True)
class LadderBlock:
    """Outputs along a sample's first directions, (rows, K, P), by which the step was chosen: they are not measured again."""

    index: Count
    step: NotNegative
    dither: float | None
    rows: PackedArray


@closed
@dataclass(frozen=True)
class Plan:
    """What all samples together decide of an audit, and which samples are to be measured: the contract of its shards.

    Attributes:
        version: `PLAN_VERSION`.
        way: How samples are measured: not at all, by gradients, along all coordinates, or along random directions.
        draft: The audit as it is known before a sample is measured, in its own layout: model, data, settings, temperature, step,
            bound, versions, and the forward passes so far.
        audited: Indices in the data of the samples that are to be measured, increasing.
        beside: Indices of those that every shard reads beside its own: they tell how far inputs go, and where other classes lie.
        digests: Hash of each sample of either, in the order of their indices: 16 hexadecimal digits.
        batch: Rows of a call.
        one_shape: Whether all calls have so many rows, for a row alone has another answer.
        low, high: Smallest and largest number of all inputs.
        box: In which flips are looked for.
        kind: What the inputs are.
        spread: How far they spread.
        moves: By how much each coordinate is moved, where all are, (*shape).
        grain: What rounding leaves of such moves, relative to the inputs' size.
        step_error: What rounding leaves of derivatives, relative.
        added: Pairs of a sample's index and the directions that refining adds to those of the first round.
        tied: Indices of the samples that stand on ties of the graph.
        ladder: What was measured already as the step was chosen.
        foreseen: Forward passes of the whole audit, about.
        reading: How the command line read model and data; None where it did not.
    """

    way: Literal["none", "gradient", "exact", "sketch"]
    draft: Mapping[str, Any]
    audited: tuple[Count, ...]
    beside: tuple[Count, ...]
    digests: tuple[str, ...]
    batch: Positive
    one_shape: bool
    low: float
    high: float
    box: PlannedRange
    kind: InputKind
    spread: PlannedSpread
    moves: PackedArray | None
    grain: float
    step_error: AboveZero | None
    added: tuple[tuple[Count, Positive], ...]
    tied: tuple[Count, ...]
    ladder: tuple[LadderBlock, ...]
    foreseen: Count
    reading: DataReading | None = field(default=None, metadata=ALWAYS)
    version: str = field(default=PLAN_VERSION, metadata=ALWAYS)

    @cached_property
    def id(self) -> str:
        """SHA-256 of all that moves a number: where files lie, and when and how long it took to plan, does not."""
        plain = json.loads(self.to_json())
        del plain["reading"]
        run, identity = plain["draft"]["run"], plain["draft"].get("identity") or {}
        for name in ("seconds", "times"):
            run.pop(name, None)
        for name in ("date", "command", "title", "note", "meta", "host", "files"):
            identity.pop(name, None)
        plain["draft"]["model"].pop("path", None)
        plain["draft"]["data"].pop("source", None)
        text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    @cached_property
    def audit(self) -> Audit:
        """The draft."""
        return audit_from_dict(dict(self.draft), where="plan")

    @cached_property
    def read(self) -> tuple[int, ...]:
        """Indices of all samples that have a digest, increasing."""
        return tuple(sorted({*self.audited, *self.beside}))

    @cached_property
    def digest_of(self) -> Mapping[int, str]:
        """The digest of each sample that has one, by its index."""
        return dict(zip(self.read, self.digests, strict=True))

    def lot(self, part: int, parts: int) -> tuple[int, ...]:
        """Indices of the samples of one shard of several, counted from 1: every so many-th of those that are audited."""
        return self.audited[part - 1 :: parts]

    def to_json(self) -> str:
        """The plan as JSON text."""
        return as_json({"plan_version": self.version, **{name: getattr(self, name) for name in _NAMES}}, indent=1)

    @staticmethod
    def from_json(text: str | bytes, *, where: str = "plan") -> Plan:
        """The plan that `to_json` wrote.

        Raises:
            OutputError: no plan, one of another version, or fields that do not fit.
        """
        what = "a plan. Give a file that `onnxfim plan` wrote."
        record = versioned(text, where=where, field="plan_version", version=PLAN_VERSION, what=what)
        try:
            found: Plan = from_plain(Plan, {**record, "version": PLAN_VERSION})
        except Misfit as misfit:
            raise OutputError(f"{where}: {str(misfit).rstrip('.')}. Make the plan again.") from None
        if len(found.digests) != len(found.read):
            raise OutputError(f"{where}: {len(found.digests)} digests of {len(found.read)} samples. Make the plan again.")
        found.audit  # noqa: B018 - what cannot be is told now
        return found


_NAMES = tuple(name for name in Plan.__dataclass_fields__ if name != "version")


def draft_of(audit: Audit) -> Mapping[str, Any]:
    """An audit as plans hold it."""
    found: Mapping[str, Any] = json.loads(audit_text(audit))
    return found
