"""Whether a served model answers as it did when it was last asked: its weights have no hash, so a few rows are asked again."""

from __future__ import annotations

import hashlib
import logging
from typing import Any, TypeAlias

import numpy as np

from onnxfim.auditing.context import Context, Found, Ground
from onnxfim.errors import OnnxFimError

Array: TypeAlias = np.ndarray[Any, Any]

#: Rows that are asked again.
ROWS = 8
_SAME = 1e-5  # of the outputs' scale: what rows differ by in other batches, or on another machine of the same service
_CHANCE = 4.0  # times the most that one and the same row differs by when it is asked twice
_MOST_TROUBLES = 8  # that are told
_log = logging.getLogger(__name__)


def keep_answers(context: Context) -> None:
    """Keep what a served model answers, request by request, under a name that a few rows asked now agree with.

    What was kept of other weights, or of a server that computes otherwise, is left where it is and not used. Two requests; none
    without a cache, or of a model that is a file.

    Raises:
        OnnxFimError: the model does not answer.
    """
    info, forward = context.subject.info, context.subject.forward
    if info.served is None or not hasattr(forward, "keep"):
        return
    _foretell(context)
    identity = {"served": info.sha256, "input": info.input, "output": info.output}
    store = context.memory.store({**identity, "what": "a few rows"})
    if store is None:
        return
    X = context.X[:ROWS]
    first, again = (forward.outputs(X, np.arange(len(X))) for _ in range(2))
    noise = float(np.nanmax(np.abs(again - first), initial=0.0))
    asked = hashlib.sha256(f"{X.dtype.str}{X.shape}".encode() + np.ascontiguousarray(X).tobytes()).hexdigest()[:32]
    count, apart = 0, 0.0
    while (kept := store.get(f"{asked}:{count}")) is not None:
        apart = _apart(kept, first)
        if apart <= max(_CHANCE * noise, _SAME * _scale(first)):
            break
        count += 1
    else:
        if count:
            _log.warning(
                "%s: answers otherwise than when it was asked before (by up to %.3g): other weights, or another machine? Nothing "
                "that was kept of it is used.", info.name, apart,
            )  # fmt: skip
        store.put(f"{asked}:{count}", first)
    kept_by = context.memory.store({**identity, "asked": asked, "weights": count})
    if kept_by is not None:
        forward.keep(kept_by)


def _foretell(context: Context) -> None:
    """Say how many requests are to come, before they are made; as a warning where a limit ends the audit before."""
    from onnxfim.auditing import planning
    from onnxfim.auditing.served_cost import all_requests

    name, reach = context.subject.info.name, getattr(context.subject.forward, "reach", None)
    count = all_requests(context, planning.by_sketch(context))
    if reach is not None and reach.max_queries is not None and reach.max_queries < count:
        _log.warning("%s: about %d requests are to come, and the audit ends after %d (max_queries)", name, count, reach.max_queries)
    else:
        _log.info("%s: about %d requests of up to %d rows are to come", name, count, context.subject.forward.batch)


def changed_meanwhile(ground: Ground, found: Found) -> bool:
    """Whether a served model answers otherwise at the end of an audit than at its beginning; one request.

    None where the audit ended early.
    """
    forward = ground.subject.forward
    if ground.subject.info.served is None or not hasattr(forward, "anew") or found.interrupted or ground.meter.stop.asked:
        return False
    X, before = ground.X[:ROWS], ground.base[:ROWS]
    noise = ground.rows.repeated if ground.rows is not None else 0.0
    try:
        after = forward.anew(X)
    except (OnnxFimError, KeyboardInterrupt):  # it said already that it does not answer any more
        return False
    # The rms of repeated rows, of which the largest of many may be several times as large.
    largest = 2 * _CHANCE * max(noise, 0.0 if ground.rows is None else ground.rows.largest or 0.0)
    return _apart(before, after) > max(largest, _SAME * _scale(before))


def traffic_times(ground: Ground) -> dict[str, Any]:
    """What asking took, as a run's ``times`` have it; nothing of a model that is not asked over a wire."""
    traffic = getattr(ground.subject.forward, "traffic", None)
    if traffic is None:
        return {}
    most = sorted(traffic.troubles.items(), key=lambda told: -told[1])[:_MOST_TROUBLES]
    return {
        "requests": traffic.requests,
        "requests_repeated": traffic.repeated,
        "requests_given_up": traffic.given_up,
        "rows_answered": traffic.rows,
        "cached_rows": min(traffic.kept, ground.meter.passes),
        "bytes_sent": traffic.sent,
        "bytes_received": traffic.received,
        "request_seconds": traffic.seconds,
        "client_seconds": traffic.own_seconds,
        "request_troubles": [f"{count} × {said}" for said, count in most],
    }


def _apart(one: Array, other: Array) -> float:
    if one.shape != other.shape:
        return np.inf
    return float(np.nanmax(np.abs(one - other), initial=0.0))


def _scale(z: Array) -> float:
    return float(np.nanmax(np.abs(z), initial=0.0))
