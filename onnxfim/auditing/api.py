"""The functions of `import onnxfim` that put wings together: read samples, describe a file, bound it, decide on an audit."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from onnxfim.auditing.common_step import Candidate
from onnxfim.auditing.description import Description, describe
from onnxfim.auditing.entry import unread
from onnxfim.auditing.inputs import with_feeds
from onnxfim.auditing.isolation import QUIET, Isolation, isolated_audit
from onnxfim.auditing.jobs import AuditJob
from onnxfim.auditing.meter import Report
from onnxfim.auditing.run import samples_of
from onnxfim.data import Preprocessing, Samples, load
from onnxfim.graph.choosing_inputs import batch_first, choose_input
from onnxfim.graph.load import load_model, sample_shape
from onnxfim.record.audit import Audit
from onnxfim.record.decision import Scope
from onnxfim.record.settings import Settings
from onnxfim.spectral.reading import GraphReading, read_graph
from onnxfim.verdict.expect import required
from onnxfim.verdict.gates import parse_gate
from onnxfim.verdict.judge import judge

Array: TypeAlias = np.ndarray[Any, Any]


def load_samples(
    data: str | Path,
    model: str | Path | None = None,
    *,
    input: str | Sequence[str] | None = None,
    limit: int | None = None,
    preprocessing: Preprocessing | None = None,
    inputs_key: str = "inputs",
    labels_key: str = "labels",
    labels_path: str | Path | None = None,
    label_column: str | None = None,
    feature_columns: Sequence[str] = (),
    class_names: str | Sequence[str] | None = None,
) -> Samples:
    """Read samples and labels from a file, or a folder of images or of a data set.

    Args:
        data: An ``.npz`` or ``.npy`` file; a table, ``.csv``, ``.tsv``, ``.parquet`` or ``.arrow``; a folder of images, with a
            sub-folder for each class or a ``labels.csv``; a folder that ``datasets.save_to_disk`` wrote; shards as WebDataset
            writes them, a ``.tar``, a folder of them or ``name-{000..012}.tar``. Data of more than 256 MiB stay where they are.
        model: The ONNX file that will take them: they are then checked against its input, and get its element type.
        input: Name of the model's input to perturb where it has several; what an ``.npz`` file holds under the names of the others
            is read too. Several names: those that are perturbed together.
        limit: Read this many at most.
        preprocessing: What is done to raw values (`onnxfim.data.Preprocessing`); None leaves arrays as they are.
        inputs_key: Key of the samples in an ``.npz`` file.
        labels_key: Key of the labels there.
        labels_path: An ``.npy`` file of labels, where they are apart, or a ``.csv`` file for a folder of images.
        label_column: Column of a table that holds the labels, by name or place; by default one that is called label.
        feature_columns: Columns that are the model's input, in its order; by default all others.
        class_names: Names of the classes in the order of the model's outputs, or a file of them; labels may be such names.

    Returns:
        The samples, (N, *shape), with labels where there are any; what could not be read is listed in ``skipped``.

    Raises:
        InputError: the data cannot be read, or do not fit the model.

    Examples:
        >>> import onnxfim
        >>> samples = onnxfim.load_samples("digits.npz", "digits_mlp.onnx", limit=100)
        >>> samples.inputs.shape, len(samples)
        ((100, 1, 8, 8), 100)
    """
    shape, dtype = None, np.dtype(np.float32)
    name: str | None = None
    together = () if isinstance(input, str) else tuple(input or ())[1:]
    held: tuple[str, ...] = ()
    if model is not None:
        file = load_model(model)
        into = choose_input(file, input)
        batch_first(file, into.name)
        shape, dtype = sample_shape(into), np.dtype(into.dtype)
        name, held = into.name, tuple(i.name for i in file.graph.inputs if i.name != into.name)
    return load(
        data, shape=shape, dtype=dtype, preprocessing=preprocessing, inputs_key=inputs_key, labels_key=labels_key,
        labels_path=labels_path, limit=limit, input_name=name, held=held, moved=together, label_column=label_column,
        feature_columns=feature_columns, class_names=class_names,
    )  # fmt: skip


def audit_isolated(
    model: str | Path,
    inputs: Array | Mapping[str, Array] | Samples | Iterable[Any],
    labels: Array | None = None,
    settings: Settings | None = None,
    *,
    progress: Report | None = None,
    cache_dir: str | Path | None = None,
    timeout: float | None = None,
    max_memory: int | None = None,
    call_timeout: float = QUIET,
) -> Audit:
    """The same as `audit`, with ONNX Runtime in a process of its own: a crash of it, or a hang, ends that process alone.

    It is started again, without the sample at fault where one is; ``run.restarts`` tells of it. The process is a fresh interpreter,
    which takes the time of its imports, once for each start.

    Args:
        model: An ONNX file.
        inputs: As for `audit`.
        labels: As for `audit`.
        settings: As for `audit`.
        progress: As for `audit`.
        cache_dir: As for `audit`.
        timeout: Seconds after which the audit ends with what was finished, or None.
        max_memory: Bytes of resident memory that the process may hold (Linux), or None.
        call_timeout: Seconds that a call of ONNX Runtime may take, or 100 times the longest call before it.

    Raises:
        OnnxFimError: as `audit`; or the process ended and no sample is at fault, or nothing was measured in time.

    Examples:
        >>> import onnxfim
        >>> samples = onnxfim.load_samples("digits.npz", "digits_mlp.onnx", limit=12)
        >>> audit = onnxfim.audit_isolated("digits_mlp.onnx", samples, settings=onnxfim.Settings(replay=0), timeout=600)
        >>> len(audit.samples), audit.run.restarts
        (12, ())
    """
    file, settings = load_model(model), settings or Settings()
    samples = inputs if isinstance(inputs, Samples) else samples_of(file, inputs, labels, settings)
    deadline = None if timeout is None else time.monotonic() + timeout
    job = AuditJob(Candidate(file, samples, settings), None if cache_dir is None else Path(cache_dir))
    show = None if progress is None else lambda: nullcontext(progress)
    return isolated_audit(
        job, Isolation(max_memory, deadline, call_timeout), show=show, level=logging.getLogger("onnxfim").getEffectiveLevel(),
        fork=False,
    )  # fmt: skip


def inspect(model: str | Path) -> Description:
    """What an ONNX file takes and gives, without running it.

    Args:
        model: An ONNX file.

    Raises:
        ModelError: the file cannot be read.

    Examples:
        >>> import onnxfim
        >>> found = onnxfim.inspect("digits_resnet_softmax.onnx")
        >>> found.inputs[0].name, found.output_kind
        ('images', 'probabilities')
    """
    return describe(load_model(model))


def bounds(
    model: str | Path, *, input: str | Sequence[str] | None = None, output: str | None = None, at: str | None = None,
    feed: Sequence[str] = (), shape: Sequence[str] = (),
) -> GraphReading:  # fmt: skip
    """A model's architecture class and the upper bound of its Fisher information, from the weights alone; no data needed.

    Args:
        model: An ONNX file.
        input: Name, where the model has several; the first floating-point one by default. Several are one vector.
        output: Name, where the model has several; the first by default.
        at: Inner value to bound from; by default the input, or the embedding behind one of whole numbers.
        feed: What other inputs are held at, ``NAME=VALUE`` each, as of `Settings`; the bound holds for any value of those left out.
        shape: Sizes that the file leaves open, as of `Settings`.

    Returns:
        ``architecture`` (family and evidence), ``bound`` (log10 of the Lipschitz constant of the logits, L2, and of
        ``‖F‖ ≤ ½L²``; or why there is none) and ``closed_forms``.

    Raises:
        ModelError: the file cannot be read, or has no such input or output. InputError: it has no value to bound from.

    Examples:
        >>> import onnxfim
        >>> found = onnxfim.bounds("digits_resnet.onnx")
        >>> found.architecture.family, found.bound.available
        ('resnet', True)
    """
    names = (input,) if isinstance(input, str) else tuple(input or ())
    file, name = with_feeds(load_model(model), names, output, feed, shape)
    graph, into = unread(file, input_name=name, output_name=output, at=at)
    return read_graph(graph, input_name=into, output_name=output)


def check(
    audit: Audit,
    *relations: str,
    fail_on: Sequence[str] = (),
    baseline: Audit | None = None,
    max_regression: float = 0.1,
    scope: Scope = "samples",
) -> Audit:
    """Decide on an audit: the same with its gates, its comparison with a baseline, and the verdict that follows.

    Args:
        audit: What was measured.
        relations: What must hold: ``lambda_max.p95 < 12.5``, ``clean_accuracy >= 90%``.
        fail_on: The other way round, as ``--fail-on`` takes them: what must not hold.
        baseline: An audit of the same samples to compare with.
        max_regression: Largest rise of the mean that passes, as a share of the baseline's; a usual sample beyond it fails too.
        scope: Whether the comparison is about these very samples, or about the population they come from.

    Returns:
        A new audit; ``gates``, ``comparison`` and ``verdict`` tell what was decided.

    Raises:
        SettingsError: a relation that cannot be read. InputError: a baseline that does not compare.

    Examples:
        >>> import onnxfim
        >>> samples = onnxfim.load_samples("digits.npz", "digits_mlp.onnx", limit=40)
        >>> audit = onnxfim.audit("digits_mlp.onnx", samples, settings=onnxfim.Settings(replay=0))
        >>> onnxfim.check(audit, "clean_accuracy >= 50%").gates[0].verdict
        'pass'
    """
    gates = [*(required(relation) for relation in relations), *(parse_gate(text) for text in fail_on)]
    return judge(audit, gates, baseline=baseline, max_regression=max_regression, scope=scope)
