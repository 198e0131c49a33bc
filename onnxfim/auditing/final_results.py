"""What no further pass changes, kept on disk as it is: results of samples by differences, flips, certificates.

An audit that goes on takes them and measures what is missing. What a result depends on is in its store's name or its key, so
that one of other settings is another.

A result takes 3 kB, however many classes there are. Of outputs along random directions nothing smaller serves other settings:
slopes need float64, so that m×K of them take as much as both ends of each step in float32; and sums over all directions tell
neither the intervals nor the values at another temperature to the last bit.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from onnxfim.auditing.cache import Measured, RememberedJacobian
from onnxfim.auditing.context import Found, Ground
from onnxfim.auditing.guaranteeing import asks_for_brackets
from onnxfim.record.guarantees import Smoothed
from onnxfim.record.packed import layout_of, packed, unpacked
from onnxfim.record.sample import Estimate, FlipLengths, SampleResult
from onnxfim.record.smoothing_terms import ALPHA, CHOOSING
from onnxfim.slopes.differences import Differences, Request, Sample
from onnxfim.slopes.measurer import Measurer

Array: TypeAlias = np.ndarray[Any, Any]


class FinalResults:
    """Results by differences of samples that get no more directions; without a cache it holds nothing.

    Args:
        ground: The audit's ground.
        jacobian: What they are measured with.
        measurer: What they are made by.
    """

    def __init__(self, ground: Ground, jacobian: Differences, measurer: Measurer) -> None:
        self._ground = ground
        self._jacobian = jacobian if isinstance(jacobian, RememberedJacobian) else None
        if self._jacobian is None:
            self._store = None
            return
        self._store = ground.store(
            results_of=self._jacobian.identity, by=fingerprint(measurer), logarithm=ground.subject.of_logarithm,
            leads=ground.settings.flip, layout=layout_of(Measured), predicted=asks_for_brackets(ground.settings),
        )  # fmt: skip
        self._keys = ground.memory.keys(ground.X, ground.samples.held)

    def known(
        self, requests: Sequence[Request], pieces: Callable[[int], tuple[int, ...] | None], kinked: frozenset[int]
    ) -> Iterator[tuple[Sample, SampleResult, Array | None]]:
        """Samples of the requests whose results are kept, with these and their leads; their passes count as remembered.

        Args:
            requests: The first of each sample.
            pieces: Directions that a sample gets in all, request by request; None where that is not known yet.
            kinked: Positions of the samples that stand on kinks.
        """
        if self._store is None or self._jacobian is None:
            return
        for request in requests:
            sample = request.sample
            counts = pieces(sample.position)
            if counts is None or counts[0] != request.count:
                continue
            kept = self._store.content(self._key(sample, counts, kinked), partial(unpacked, Measured))
            if kept is None:
                continue
            self._jacobian.settled.add(sample.position)
            starts = np.cumsum((0, *counts)).tolist()
            each = [Request(sample, start, count) for start, count in zip(starts, counts, strict=False)]
            self._ground.meter.remembered(sum(map(self._jacobian.passes, each)))
            result: SampleResult = replace(kept.result, name=sample.name, label=sample.label)
            yield sample, result, np.array(kept.lead) if kept.lead else None
            self._ground.meter.check()

    def keep(
        self, sample: Sample, counts: tuple[int, ...], kinked: frozenset[int], result: SampleResult, lead: Array | None
    ) -> None:
        """Keep the result of a sample from so many directions, request by request."""
        if self._store is None or self._jacobian is None:
            return
        told = () if lead is None else tuple(map(tuple, lead.tolist()))
        if (content := packed(Measured(result, lead=told))) is not None:  # None: not finite, so not kept
            self._store.put_later(self._key(sample, counts, kinked), content)
            self._jacobian.settled.add(sample.position)

    def flush(self) -> None:
        """Write what waits for that."""
        if self._store is not None:
            self._store.flush()

    def _key(self, sample: Sample, counts: tuple[int, ...], kinked: frozenset[int]) -> str:
        told = "+".join(map(str, counts)) + (":kinked" if sample.position in kinked else "")
        return f"{self._keys.of(sample)}:result:{told}"


@dataclass(frozen=True)
class _Flip:
    """What was found of a sample, and the passes that it took in all."""

    radius: Estimate
    lengths: FlipLengths | None
    passes: int


class FinalFlips:
    """Flips of samples, kept on disk; without a cache it holds nothing.

    Args:
        ground: The audit's ground.
        found: The results that they are looked for by.
        stretch: How much longer than its boundary distance a sample's way is expected to be.
        about: What all of them depend on beside.
    """

    def __init__(self, ground: Ground, found: Found, stretch: Callable[[SampleResult], float], about: Callable[[], object]) -> None:
        self._ground, self._found, self._stretch = ground, found, stretch
        known = (
            found.method, found.gradient.provider, ground.settings.surrogate, ground.settings.seed, ground.reader.identity,
            ground.scales.identity, layout_of(_Flip),
        )  # fmt: skip
        self._store = ground.store(flips=(*known, fingerprint(about()))) if ground.memory.keeps else None
        self._keys = ground.memory.keys(ground.X, ground.samples.held)

    def known(
        self, positions: Sequence[int], look_again: Callable[[Sequence[int]], object]
    ) -> dict[int, tuple[Estimate, FlipLengths | None]]:
        """Of those of the samples whose flips are kept, these by position; their passes count as remembered.

        Args:
            positions: Of the samples.
            look_again: Given those that are known, does what others take from their having been looked for; its passes are among
                those that were kept, and count once.
        """
        found: dict[int, tuple[Estimate, FlipLengths | None]] = {}
        if self._store is None:
            return found
        meter, passes = self._ground.meter, 0
        for p in positions:
            kept = self._store.content(self._key(p), partial(unpacked, _Flip))
            if kept is not None:
                passes += kept.passes
                found[p] = kept.radius, kept.lengths
        before = meter.passes
        look_again(list(found))
        meter.remembered(max(passes - (meter.passes - before), 0))
        return found

    def keep(self, positions: Sequence[int], radii: Sequence[tuple[Estimate, FlipLengths | None]], passes: int) -> None:
        """Keep the flips of these samples, which took so many passes together, in one write."""
        if self._store is None or not positions:
            return
        beside = passes - sum(radius.evaluations for radius, _ in radii)  # for all of them: for their directions
        each, odd = divmod(beside, len(positions))
        contents = []
        for k, (p, (radius, lengths)) in enumerate(zip(positions, radii, strict=True)):
            content = packed(_Flip(radius, lengths, radius.evaluations + each + (k < odd)))
            if content is not None:
                contents.append((self._key(p), content))
        self._store.put_contents(contents)

    def _key(self, position: int) -> str:
        """The sample, and what of its own result tells where its flip is looked for."""
        result, lead = self._found.results[position], self._found.leads.get(position)
        own = fingerprint((lead, result.boundary_distance.value, self._stretch(result), result.prediction))
        return f"{self._keys.of(self._ground.sample(position))}:flip:{own}"


@dataclass(frozen=True)
class _KeptCertificate:
    """A sample's certificate, and the passes that it took."""

    certificate: Smoothed
    passes: int


class FinalSmoothed:
    """Certificates of one smoothed classifier, kept on disk; without a cache it holds nothing.

    Args:
        ground: The audit's ground.
        sigma: Standard deviation of the noise.
    """

    def __init__(self, ground: Ground, sigma: float) -> None:
        self._ground, settings = ground, ground.settings
        known = (
            sigma, settings.certify_budget, CHOOSING, ALPHA, settings.input_scale, settings.seed, ground.reader.identity,
            layout_of(_KeptCertificate),
        )  # fmt: skip
        self._store = ground.store(smoothed=known) if ground.memory.keeps else None
        self._keys = ground.memory.keys(ground.X, ground.samples.held)

    def known(self, positions: Sequence[int]) -> dict[int, Smoothed]:
        """Of those of the samples whose certificates are kept, these by position; their passes count as remembered."""
        found: dict[int, Smoothed] = {}
        if self._store is not None:
            for p in positions:
                kept = self._store.content(self._key(p), partial(unpacked, _KeptCertificate))
                if kept is not None:
                    found[p] = kept.certificate
                    self._ground.meter.remembered(kept.passes)
        return found

    def keep(self, certificates: Mapping[int, Smoothed]) -> None:
        """Keep these certificates of samples, by position, in one write."""
        if self._store is not None:
            kept = [(self._key(p), packed(_KeptCertificate(c, CHOOSING + c.tries))) for p, c in certificates.items()]
            self._store.put_contents([(key, content) for key, content in kept if content is not None])

    def _key(self, position: int) -> str:
        return f"{self._keys.of(self._ground.sample(position))}:smoothed"


def fingerprint(value: object) -> str:
    """Hash of a value: of plain values, arrays, what reads outputs, and records and lists of these."""
    digest = hashlib.sha256()
    _add(digest.update, value)
    return digest.hexdigest()[:32]


def _add(update: Callable[[bytes], None], value: object) -> None:
    if isinstance(value, np.ndarray):
        update(f"{value.dtype.str}{value.shape}".encode())
        update(np.ascontiguousarray(value).tobytes())
    elif isinstance(identity := getattr(value, "identity", None), str):  # of what reads outputs
        update(identity.encode())
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            update(f"{field.name}=".encode())
            _add(update, getattr(value, field.name))
    elif isinstance(value, (tuple, list)):
        update(f"[{len(value)}".encode())
        for one in value:
            _add(update, one)
    elif value is None or isinstance(value, (str, int, float, np.number)):
        update(f"{type(value).__name__} {value!r};".encode())
    else:
        raise TypeError(f"no fingerprint of {type(value)}")
