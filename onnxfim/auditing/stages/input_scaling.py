"""Whether the inputs are in the model's units: what the graph says about them, and which usual change of them the labels prefer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from onnxfim.auditing.batch_statistics import batch_statistics
from onnxfim.auditing.context import Ground
from onnxfim.auditing.stages import stage
from onnxfim.data.lazy_rows import part_of, rows_in_blocks
from onnxfim.data.usual_scalings import InputChange, usual_changes
from onnxfim.graph.ends import Normalisation, normalisation
from onnxfim.record.data_info import ScalingCheck
from onnxfim.record.statistics import binomial_at_least
from onnxfim.slopes.flips import margins
from onnxfim.slopes.spread import deviation_of_all

Array: TypeAlias = np.ndarray[Any, Any]

#: Accuracy from which no change can lift it by a tenth.
RIGHT = 0.9

_FIRST, _WORSE = 4, 4.0  # samples, and nats over them above the data as given, by which a change is out at once
_ROUNDS = ((8, 8), (16, 4), (48, 3))  # on so many samples, so many changes are left
_PART = (
    0.5  # of the audit's other passes, as far as they are foreseen, that trying all changes on the first round's samples may take
)
_MOST = 200  # labelled samples on which the last ones are compared
_WINS = 0.9  # of the log-loss as given, that the best change must be below on the way, or all are given up
_ALIKE = 1.15  # times the best one's log-loss: changes that are not told apart
_LEAST = 8  # labelled samples without which nothing is told apart
_LOSS = 20.0  # nats in all: less cannot be won by a change
_TOGETHER = 2**24  # bytes of inputs that are changed and held at a time
_FILLED = 0.1  # of the quantiser's range, that the data must reach over
_CLIPPED = 0.1  # of the values, that may lie beyond it
_NORMALISED = (0.02, 4.0)  # deviation of inputs after the graph's own normalisation


@stage("checking the scaling", instead=lambda ground, reason: None)
def check(ground: Ground) -> ScalingCheck | None:
    """The usual changes of the inputs compared on labelled samples, and what the graph says against the data.

    A change is tried only where it could matter: not where the model is right on nine samples of ten at a loss that leaves nothing
    to win. Fewer and fewer changes are compared on more and more samples by their log-loss, until none is below that of the data
    as given: 20·4 to 20·8 passes where they are right; 8·8 + 4·32 more, and 3·152 for those that win, where they are not. Where the
    first of these would be more than half of what measuring is expected to take, no change is tried, and the check says so.
    None for synthetic data, for several inputs together, and for outputs without classes.
    """
    if ground.samples.synthetic or ground.joint or not ground.reader.has_classes or ground.base.shape[2] != 1:
        return None
    found = ScalingCheck(0, 0, contradiction=_contradiction(ground), margin=_margin(ground))
    labels, usable = ground.samples.labels, ground.clean.usable
    if labels is None or len(usable) < _LEAST or ground.subject.info.at is not None:  # nobody scales a value inside the file
        return found
    # The first few of this order are spread over the data, whatever its own order is.
    few = usable[np.linspace(0, len(usable) - 1, min(_MOST, len(usable))).astype(int)]
    few = np.concatenate([few[k::13] for k in range(13)])
    given = _Answers.of(ground, ground.base[few], labels[few])
    if given.right.mean() >= RIGHT and given.log_loss * len(few) < _LOSS:
        return found
    changes = list(usual_changes(ground.X[few]))
    if not changes:
        return found
    cost = len(changes) * min(_ROUNDS[0][0], len(few))
    if cost > _PART * ground.foreseen:
        tries = f"trying {len(changes)} usual changes of the inputs takes {cost:,} forward passes"
        return replace(found, unchecked=f"{tries}, and measuring about {ground.foreseen:,}")
    return _compared(ground, found, few, given, changes)


@dataclass(frozen=True)
class _Answers:
    """Which samples the model is right on, (N,), and its mean log-loss in nats."""

    right: Array
    log_loss: float

    @classmethod
    def of(cls, ground: Ground, outputs: Array, labels: Array) -> _Answers:
        if not np.isfinite(outputs).all():
            return cls(np.zeros(len(labels), bool), float("inf"))
        return cls(ground.reader.predictions(outputs) == labels, float(ground.reader.log_losses(outputs, labels, 1.0).mean()))


def _compared(ground: Ground, found: ScalingCheck, few: Array, given: _Answers, changes: Sequence[InputChange]) -> ScalingCheck:
    """The check with the change that the labels prefer, compared with the data as given on the samples ``few``."""
    labels = ground.samples.labels
    assert labels is not None
    outputs: dict[int, Array] = {}
    left = list(range(len(changes)))

    def answers(some: Sequence[int], count: int) -> dict[int, _Answers]:
        """Of these changes, which came through the same rounds, on the first samples; rows of several changes share their calls."""
        at = few[len(outputs.get(some[0], ())) : count]
        X = ground.X[at]
        together = max(1, _TOGETHER // max(X.nbytes, 1))
        for start in range(0, len(some) if len(X) else 0, together):
            part = some[start : start + together]
            new = ground.forward.outputs(np.concatenate([changes[c].apply(X) for c in part]), np.tile(at, len(part)))
            for c, z in zip(part, np.split(new, len(part)), strict=True):
                outputs[c] = np.concatenate([outputs[c], z]) if c in outputs else z
        return {c: _Answers.of(ground, outputs[c][:count], labels[few[:count]]) for c in some}

    ground.say("checking the scaling")
    begun = min(_FIRST, len(few))
    clearly = _Answers.of(ground, ground.base[few[:begun]], labels[few[:begun]]).log_loss + _WORSE / begun
    left = [change for change, of in answers(left, begun).items() if of.log_loss <= clearly]
    if not left:
        return replace(found, tried=len(changes), samples=begun)
    for count, keep in _ROUNDS:
        so_far = min(count, len(few))
        losses = {change: of.log_loss for change, of in answers(left, so_far).items()}
        left = sorted(left, key=losses.__getitem__)[:keep]
        wanted = (_WINS if count == _ROUNDS[-1][0] else 1.0) * _Answers.of(
            ground, ground.base[few[:so_far]], labels[few[:so_far]]
        ).log_loss
        if losses[left[0]] > wanted:
            return replace(found, tried=len(changes), samples=so_far)
    near = [change for change in left if losses[change] <= _ALIKE * losses[left[0]]]
    losses = {change: of.log_loss for change, of in answers(near, len(few)).items()}
    left = sorted(losses, key=losses.__getitem__)
    best = answers(left[:1], len(few))[left[0]]
    gained, lost = int((best.right & ~given.right).sum()), int((given.right & ~best.right).sum())
    p = binomial_at_least(gained, gained + lost, 0.5)
    return ScalingCheck(
        tried=len(changes), samples=len(few), change=_words([changes[c] for c in left if losses[c] <= _ALIKE * losses[left[0]]]),
        options=changes[left[0]].options,
        accuracy=float(given.right.mean()), accuracy_changed=float(best.right.mean()), log_loss=given.log_loss,
        log_loss_changed=best.log_loss if np.isfinite(best.log_loss) else None, gained=gained, lost=lost,
        p=min(1.0, p * len(changes)), contradiction=found.contradiction, margin=found.margin,
    )  # fmt: skip


def _words(alike: Sequence[InputChange]) -> str:
    """What the best change means, and which others do nearly as well."""
    others = [c.target for c in alike[1:] if c.target and c.target != alike[0].target]
    return alike[0].words + (f" (nearly as well: {', '.join(dict.fromkeys(others))})" if others else "")


def _margin(ground: Ground) -> float:
    """Median over the usable samples of the largest logit above the next; a single logit's distance from zero."""
    base = ground.base[ground.clean.usable]
    return float(np.median(np.abs(margins(ground.reader, base, ground.reader.predictions(base)))))


def _contradiction(ground: Ground) -> str | None:
    """What the graph's input quantiser, first normalisation or first BatchNormalization says against the data, in words."""
    limits, file = ground.subject.limits, ground.subject.file
    if ground.X.dtype.kind != "f":
        return None
    entry = ground.subject.info.at
    if entry is not None and entry.kind != "levels":
        return None
    if limits is not None and entry is None:
        return _outside(part_of(ground.X, ground.clean.audited), *limits)
    known = None if file is None else normalisation(file.graph, ground.subject.info.input)
    if known is not None and (words := _not_normalised(part_of(ground.X, ground.clean.audited), known)) is not None:
        return words
    statistics = batch_statistics(ground)
    return None if statistics is None else statistics.contradiction


def _outside(X: Array, low: float, high: float) -> str | None:
    slack = 0.01 * (high - low)
    beyond = sum(int(np.count_nonzero((x < low - slack) | (x > high + slack))) for x in rows_in_blocks(X)) / X.size
    reach = "the file's input quantiser takes"
    if beyond > _CLIPPED:
        return f"{reach} {low:.4g} to {high:.4g}, and {beyond:.0%} of the input values lie beyond that range and are clipped"
    over = float(X.max() - X.min())
    if over < _FILLED * (high - low):
        return f"{reach} {low:.4g} to {high:.4g}, and the inputs reach only from {X.min():.4g} to {X.max():.4g}"
    return None


def _not_normalised(X: Array, known: Normalisation) -> str | None:
    """The deviation that the inputs have after the graph's normalisation, where no training could have had it."""
    std = np.abs(np.array(known.std))
    spread = float(deviation_of_all(X) / np.median(std))
    least, most = _NORMALISED
    if least <= spread <= most or (spread > most and np.all(std == 1)):  # a mere shift tells nothing about the size
        return None
    return (
        f"the file's own first nodes subtract {np.median(known.mean):.4g} and divide by {np.median(std):.4g}, which leaves the "
        f"inputs (from {X.min():.4g} to {X.max():.4g}) with a deviation of {spread:.3g} where about 1 is meant"
    )
