"""Options of providers through a whole audit: echoed, told where they had no effect, part of what is kept by."""

from __future__ import annotations

import numpy as np
import pytest

from onnxfim.auditing import opening
from onnxfim.auditing.run import audit
from onnxfim.record.audit import Audit
from onnxfim.record.provider_option import ProviderOption
from onnxfim.record.redacting import REDACTED
from onnxfim.record.settings import Settings
from onnxfim.report.dossier import render_dossier
from onnxfim.report.formats import FORMATS
from onnxfim.runtime.hardware import InputProfile
from tests.support.models import Linear

CPU = "CPUExecutionProvider"
LINEAR = Linear.draw(3, 4)
X = LINEAR.samples(4)


def settings(*options, **changes):
    return Settings(providers=("cpu",), provider_options=options, replay=0, flip=False, method="sketch", budget=12, **changes)


def test_one_without_effect_is_echoed_and_found(saved):
    found = audit(saved(LINEAR.onnx()), X, settings=settings("use_arena=0"))
    assert found.settings.provider_options == ("use_arena=0",)
    assert found.run.provider_options == (ProviderOption(CPU, "use_arena", "0", None, taken=False, ours=False),)
    messages = {f.id: f.message for f in found.findings}
    assert "use_arena=0 of CPUExecutionProvider, which did not take it" in messages["provider-option"]


def test_no_report_holds_the_secret_of_one(saved):
    secret = "s3cr3tValue9"
    path = saved(LINEAR.onnx())
    found = audit(path, X, settings=settings(f"azure_auth_key={secret}", "use_arena=0"))
    assert found.settings.provider_options == (f"azure_auth_key={REDACTED}", "use_arena=0")
    assert {o.key: o.value for o in found.run.provider_options} == {"azure_auth_key": REDACTED, "use_arena": "0"}
    for render in FORMATS.values():
        assert secret not in render(found)
    assert not any(secret in text for text in render_dossier(found).values())
    again = audit(path, X, settings=settings("azure_auth_key=another", "use_arena=0"))
    assert again.identity.report_id == found.identity.report_id, "the id is a hash of what is printed"


def test_it_goes_through_json(saved):
    found = audit(saved(LINEAR.onnx()), X, settings=settings("a=b=c"))
    again = Audit.from_json(found.to_json())
    assert again.run.provider_options == found.run.provider_options
    assert again.settings == found.settings


def test_values_are_kept_by_the_options_too(saved, tmp_path):
    path = saved(LINEAR.onnx())

    def looked_up(*options):
        return audit(path, X, settings=settings(*options), cache_dir=tmp_path / "cache").run.times["cached_rows"]

    assert looked_up() == 0
    assert looked_up() > 0
    assert looked_up("a=1") == 0, "another option is another way of running"
    assert looked_up("a=1") > 0
    assert looked_up("a=2") == 0


@pytest.mark.parametrize("batch", [2, None])
def test_a_compiler_is_told_the_shapes_and_where_to_keep_its_work(saved, tmp_path, monkeypatch, batch):
    asked = []
    opened = opening.OnnxForward

    def noted(*args, hardware, **kwargs):
        asked.append(hardware)
        return opened(*args, hardware=hardware, **kwargs)

    monkeypatch.setattr(opening, "OnnxForward", noted)
    audit(saved(LINEAR.onnx()), X, settings=settings(batch=batch), cache_dir=tmp_path)
    assert asked[0].engines == tmp_path
    assert asked[0].profile == (InputProfile("x", (4,), 64, 1024) if batch is None else InputProfile("x", (4,), 2, 8))
    asked.clear()
    audit(saved(LINEAR.onnx()), X, settings=settings(batch=batch))
    assert asked[0].engines is None


def test_a_file_of_one_batch_size_has_no_range_of_shapes(saved, monkeypatch):
    asked = []
    opened = opening.OnnxForward
    monkeypatch.setattr(
        opening, "OnnxForward", lambda *a, **k: asked.append((k["fixed"], k["hardware"].profile)) or opened(*a, **k)
    )
    fixed = LINEAR.onnx()
    for value in (*fixed.graph.input, *fixed.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    audit(saved(fixed), X.astype(np.float32), settings=settings())
    assert asked[0] == (1, None)
    assert all((rows is None) == (profile is not None) for rows, profile in asked)
