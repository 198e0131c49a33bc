"""What `audit` takes for samples in Python, and whose order of classes counts."""

from __future__ import annotations

import numpy as np
import pytest

from onnxfim.auditing.run import audit
from onnxfim.errors import InputError
from tests.support import headed
from tests.support.headed import X


@pytest.fixture
def audited(saved, cpu):
    return lambda made, inputs, labels=None: audit(saved(made), inputs, labels, settings=cpu(replay=0))


def test_an_iterable_is_audited_as_its_arrays_are(audited):
    made, labels = headed.zipped((0, 1, 2)), np.arange(len(X)) % 3
    whole = audited(made, X, labels)
    for steps in (
        zip(X, labels, strict=True),
        [(X[:2], labels[:2]), (X[2:], labels[2:])],
        ({"x": x, "label": k} for x, k in zip(X, labels, strict=True)),
    ):
        found = audited(made, steps)
        assert found.data.sha256 == whole.data.sha256
        assert [s.lambda_max for s in found.samples] == [s.lambda_max for s in whole.samples]
        assert [s.label for s in found.samples] == labels.tolist()


@pytest.mark.parametrize("guess", [True, False])
def test_words_are_of_the_models_own_order(audited, guess):
    names = ("dog", "eel", "cat") if guess else ("dog", "eel", "fox")
    words = np.array(["cat", "dog", "dog", "eel"] * len(X))[: len(X)]
    found = audited(headed.zipped(names), X, words)
    assert found.data.classes_guessed == (not guess)
    order = names if guess else ("cat", "dog", "eel")
    assert [s.label for s in found.samples] == [order.index(word) for word in words]
    assert found.data.class_names == order


def test_what_are_no_samples(audited, told):
    with pytest.raises(InputError, match=told("'data.npz' is a path", "onnxfim.load_samples")):
        audited(headed.zipped(), "data.npz")
    with pytest.raises(InputError, match=told("labels: stand beside an iterable", "(x, y)")):
        audited(headed.zipped(), iter(X), [0] * len(X))
