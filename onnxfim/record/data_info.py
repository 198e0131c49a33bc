"""What a model was audited on, and whether it was in the model's units."""

from __future__ import annotations

from dataclasses import dataclass, field

from onnxfim.record.input_pictures import InputKind
from onnxfim.record.limits import ALWAYS, Count, NotNegative, Part


@dataclass(frozen=True)
class ScalingCheck:
    """Whether the inputs are in the units that the model was made for, as far as the usual changes of them tell.

    ``tried`` changes were compared on a few labelled samples, the best of them on ``samples``: ``change`` says what it is and
    ``options`` how to ask for it. ``accuracy`` and ``log_loss`` are those as the data were given, ``…_changed`` those after it;
    ``gained`` and ``lost`` count the samples that are right only after and only before, ``p`` is McNemar's exact test of the two,
    corrected for all that was tried. ``contradiction`` is what the graph itself says against the data. ``margin`` is the median
    over the samples of the logit of the predicted class above the next, in nats. ``unchecked`` says why no change was tried where
    labels are there and one might matter.
    """

    tried: Count
    samples: Count
    change: str | None = field(default=None, metadata=ALWAYS)
    options: str | None = field(default=None, metadata=ALWAYS)
    accuracy: Part | None = field(default=None, metadata=ALWAYS)
    accuracy_changed: Part | None = field(default=None, metadata=ALWAYS)
    log_loss: float | None = field(default=None, metadata=ALWAYS)
    log_loss_changed: float | None = field(default=None, metadata=ALWAYS)
    gained: Count = field(default=0, metadata=ALWAYS)
    lost: Count = field(default=0, metadata=ALWAYS)
    p: Part | None = field(default=None, metadata=ALWAYS)
    contradiction: str | None = field(default=None, metadata=ALWAYS)
    margin: float | None = field(default=None, metadata=ALWAYS)
    unchecked: str | None = None


@dataclass(frozen=True)
class DataInfo:
    """What the model was audited on.

    ``labelled`` samples have a label and outputs; ``chance`` is the accuracy that predictions with the same shares of the classes
    have where they tell nothing about the labels, 1/K at least. ``scaling`` is None where no such check was made.
    ``classes_guessed``: labels were words, and their order, which gives each its index, is the alphabet's for want of another.
    ``feature_names`` are those of the input's numbers, in their order, where the data name them.
    ``input_kind`` is what the inputs are shown as.
    ``apart`` is how far each sample lies from the first, L2 in raw input units: the same samples scaled for another model have the
    same.
    """

    source: str
    sha256: str
    count: Count
    shape: tuple[int, ...]
    labels: bool
    synthetic: bool
    class_names: tuple[str, ...] | None = field(default=None, metadata=ALWAYS)
    input_min: float = field(default=0.0, metadata=ALWAYS)
    input_max: float = field(default=0.0, metadata=ALWAYS)
    input_std: float = field(default=0.0, metadata=ALWAYS)
    labelled: Count = 0
    chance: Part | None = None
    scaling: ScalingCheck | None = None
    classes_guessed: bool = False
    feature_names: tuple[str, ...] | None = None
    input_kind: InputKind | None = None
    apart: tuple[NotNegative, ...] = ()
