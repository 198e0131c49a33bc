"""What was measured of a part of a plan's samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from onnxfim.errors import OutputError
from onnxfim.record.audit import Thumbnail
from onnxfim.record.coherence import require_measured
from onnxfim.record.fitting import Misfit, from_plain
from onnxfim.record.json_text import uncollected, versioned
from onnxfim.record.json_writing import as_json
from onnxfim.record.layout import UNSAID, no_nulls
from onnxfim.record.limits import ALWAYS, Count, NotNegative, Positive, closed
from onnxfim.record.running import FailedStage, Restart
from onnxfim.record.sample import SampleResult, Skipped

#: Of the layout.
SHARD_VERSION = "1"


@closed
@dataclass(frozen=True)
class Shard:
    """Results of a part of a plan's samples.

    Attributes:
        plan: The plan's id.
        samples: Their results, in the order of the data, with the values of all replicates; outputs are not kept.
        skipped: Those that could not be measured, and why.
        ratios: Of sketched values to those of gradients, by a sample's index, where they were checked against each other.
        evaluations: Forward passes that these results rest on.
        thumbnails: Pictures of those that a report may show.
        failed_stages: Stages that failed where nobody foresaw it.
        restarts: How often the process ended that ran the model, and why.
        part: Which shard of how many it is, counted from 1; None where samples were dealt otherwise.
        provider: Where the model ran.
        platform: On which machine and Python.
        versions: Of the packages that computed it.
        seconds: How long it took.
        batch: Rows of a call.
    """

    plan: str
    samples: tuple[SampleResult, ...]
    skipped: tuple[Skipped, ...]
    ratios: tuple[tuple[Count, float], ...]
    evaluations: Count
    thumbnails: tuple[Thumbnail, ...]
    failed_stages: tuple[FailedStage, ...]
    provider: str
    platform: str
    versions: Mapping[str, str]
    seconds: NotNegative
    batch: Positive
    restarts: tuple[Restart, ...] = field(default=(), metadata=ALWAYS)
    part: tuple[Positive, Positive] | None = field(default=None, metadata=ALWAYS)
    version: str = field(default=SHARD_VERSION, metadata=ALWAYS)

    @property
    def indices(self) -> frozenset[int]:
        """Of the samples that it tells of."""
        return frozenset((*(s.index for s in self.samples), *(s.index for s in self.skipped)))

    @property
    def name(self) -> str:
        """What messages call it."""
        return "a shard" if self.part is None else f"shard {self.part[0]} of {self.part[1]}"

    def to_json(self) -> str:
        """The shard as JSON text."""
        head = {"shard_version": self.version, "plan": self.plan, "part": self.part}
        rest = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in ("version", "plan", "part")}
        return as_json({**head, **rest}, unsaid=UNSAID)

    @staticmethod
    def from_json(text: str | bytes, *, where: str = "shard") -> Shard:
        """The shard that `to_json` wrote.

        Raises:
            OutputError: no shard, one of another version, or fields that do not fit.
        """
        what = "a shard. Give files that `onnxfim audit --plan PLAN --shard i/n` wrote."
        record = versioned(text, where=where, field="shard_version", version=SHARD_VERSION, what=what)
        try:
            no_nulls(record.get("samples"))
            with uncollected():
                found: Shard = from_plain(Shard, {**record, "version": SHARD_VERSION})
                require_measured(found.samples, found.thumbnails)
        except Misfit as misfit:
            raise OutputError(f"{where}: {str(misfit).rstrip('.')}. Measure this shard again.") from None
        return found
