"""What failed in an audit where nobody foresaw it: each failure in one line, its traceback in the log."""

from __future__ import annotations

import logging
import traceback
from dataclasses import dataclass, field

from onnxfim.errors import in_one_line
from onnxfim.graph.graph import Node
from onnxfim.record.running import FailedStage

_NAMES = ("node", "n")  # what the code that goes through a graph calls the node it is at

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Faults:
    """The stages that failed, as they are noted."""

    stages: list[FailedStage] = field(default_factory=list)

    def note(self, stage: str, error: BaseException) -> str:
        """Note that a stage failed; its traceback goes to the log. Returns the reason of what is missing now."""
        failed = FailedStage(stage, type(error).__name__, in_one_line(error), _node_of(error))
        if failed not in self.stages:  # once, where it fails at every sample
            self.stages.append(failed)
        _log.info("%s failed", stage, exc_info=error)
        return f"{stage} failed unexpectedly ({type(error).__name__})"


def _node_of(error: BaseException) -> str | None:
    """The node that the innermost code which goes through a graph was at, its operator and name; None where there is none."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    for frame in reversed(frames):
        for name in _NAMES:
            if isinstance(node := frame.f_locals.get(name), Node):
                return f"{node.op} {node.name or next(iter(node.outputs), '')!r}"
    return None
