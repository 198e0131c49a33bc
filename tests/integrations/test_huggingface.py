"""An audit in a model card that is there already."""

from __future__ import annotations

from dataclasses import replace

import pytest

from onnxfim.errors import OutputError
from onnxfim.integrations.huggingface import update_card
from tests.support.audits import make_audit
from tests.support.places import DEV

hub = DEV.load("huggingface_hub")

CARD = """---
license: mit
tags:
- vision
model-index:
- name: mine
  results:
  - task:
      type: image-classification
    dataset:
      type: cifar10
      name: CIFAR-10
    metrics:
    - type: accuracy
      value: 0.91
---
# Mine

Words of mine.

## Robustness

Old words.

### And more of them

## Use

As you like.
"""


def test_the_card_keeps_what_it_says(tmp_path):
    path = tmp_path / "README.md"
    path.write_text(CARD, "utf-8")
    update_card(path, make_audit(20), dataset="digits")
    card = hub.ModelCard.load(path)
    assert (card.data.license, card.data.tags, card.data.model_name) == ("mit", ["vision"], "mine")
    assert {(r.dataset_type, r.metric_type) for r in card.data.eval_results} >= {
        ("cifar10", "accuracy"),
        ("digits", "accuracy"),
        ("digits", "lambda_max"),
    }
    assert "Words of mine." in card.text
    assert "As you like." in card.text
    assert "Old words" not in card.text
    assert card.text.count("## Robustness") == 1
    assert card.text.index("## Robustness") < card.text.index("## Use")


def test_an_earlier_audit_is_replaced(tmp_path):
    path = tmp_path / "README.md"
    path.write_text(CARD, "utf-8")
    update_card(path, make_audit(20), dataset="digits")
    once = path.read_text("utf-8")
    update_card(path, make_audit(20), dataset="digits")
    assert path.read_text("utf-8") == once
    other = make_audit(20)
    update_card(path, replace(other, calibration=replace(other.calibration, accuracy=0.5)), dataset="digits")
    values = [
        r.metric_value
        for r in hub.ModelCard.load(path).data.eval_results
        if (r.dataset_type, r.metric_type) == ("digits", "accuracy")
    ]
    assert values == [0.5]


def test_a_card_is_made_where_there_is_none(tmp_path):
    update_card(tmp_path / "README.md", make_audit(5), name="new")
    card = hub.ModelCard.load(tmp_path / "README.md")
    assert card.data.model_name == "new"
    assert "## Robustness" in card.text


def test_a_card_that_cannot_be_read_is_left_alone(tmp_path, told):
    path = tmp_path / "README.md"
    path.write_text("---\na: [\n---\n", "utf-8")
    with pytest.raises(OutputError, match=told("README.md: is no model card", "Mend it")):
        update_card(path, make_audit(5))
    assert path.read_text("utf-8") == "---\na: [\n---\n"
