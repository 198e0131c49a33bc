"""A verifier's answers as they are kept on disk: those of another verifier, network or timeout are others."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from onnxfim.auditing.cache import Memory
from onnxfim.record.fitting import from_plain
from onnxfim.verifiers.answers import Said
from onnxfim.verifiers.properties import StaysInBox
from onnxfim.verifiers.verifier_commands import VerifierCommand


@dataclass(frozen=True)
class _KeptAnswer:
    """An answer as it is kept on disk."""

    answer: str
    seconds: float
    note: str
    point: tuple[float, ...] = ()


class KeptAnswers:
    """The answers of one verifier about one network.

    Args:
        memory: Where things are kept.
        network: SHA-256 of the network.
        command: The verifier.
        seconds: Its timeout.
    """

    def __init__(self, memory: Memory, network: str, command: VerifierCommand, seconds: float) -> None:
        try:
            told = Path(command.parts[0]).stat()
            seen = [told.st_size, told.st_mtime_ns]
        except OSError:
            seen = []
        asks = {"command": command.parts, "program": seen, "timeout": seconds}
        self._version = command.version
        self._store = memory.store({"model": network, "verifier": asks})

    def of(self, about: StaysInBox) -> tuple[Said, float] | None:
        """What was said of a box before, and the seconds that it took; None where it was not asked about."""
        if self._store is None:
            return None
        kept = self._store.record(self._key(about), lambda record: from_plain(_KeptAnswer, record))
        if kept is None:
            return None
        point = np.array(kept.point, np.float64).reshape(about.low.shape) if kept.point else None
        return Said(kept.answer, point, kept.note), kept.seconds

    def keep(self, about: StaysInBox, said: Said, seconds: float) -> None:
        """Keep an answer; an error is none."""
        if self._store is not None and said.answer != "error":
            point = () if said.point is None else tuple(said.point.ravel().tolist())
            self._store.put_record(self._key(about), asdict(_KeptAnswer(said.answer, seconds, said.note, point)))

    def _key(self, about: StaysInBox) -> str:
        return hashlib.sha256(about.text(self._version).encode()).hexdigest()[:32]
