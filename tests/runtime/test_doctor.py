import json
import re

import onnx
import pytest
from click.testing import CliRunner

from onnxfim.cli import main
from onnxfim.errors import ModelError, ProviderError
from onnxfim.runtime import cuda, doctor
from onnxfim.runtime.installation import Installation
from onnxfim.runtime.nvidia import NvidiaGpu
from onnxfim.runtime.providers import ProviderReport, available_providers, runtime_version


@pytest.fixture(scope="module")
def machine():
    return doctor.examine()


def test_the_model_that_makes_providers_load_is_one():
    onnx.checker.check_model(onnx.load_from_string(doctor._TINY), full_check=True)


def test_every_provider_of_the_build_is_tried(machine):
    assert tuple(p.name for p in machine.providers) == available_providers()
    assert [p.loads for p in machine.providers if p.name == "CPUExecutionProvider"] == [True]
    assert all(p.loads == (p.reason is None) for p in machine.providers)


def test_a_provider_that_does_not_load_gives_the_reason(monkeypatch):
    report = ProviderReport(("CUDAExecutionProvider",), "CPUExecutionProvider", ("CPUExecutionProvider",), "libx.so: no", True)
    monkeypatch.setattr(doctor, "open_session", lambda *_, **__: (None, report))
    assert doctor._provider("CUDAExecutionProvider") == doctor.Provider("CUDAExecutionProvider", False, "libx.so: no")


def test_a_provider_that_fails_gives_the_error(monkeypatch):
    def fail(*_, **__):
        raise ModelError("model: no kernel")

    monkeypatch.setattr(doctor, "open_session", fail)
    assert doctor._provider("XExecutionProvider") == doctor.Provider("XExecutionProvider", False, "model: no kernel")


def test_the_machine_is_plausible(machine):
    assert machine.runtime == runtime_version()
    assert 1 <= machine.cores <= 4096
    assert machine.memory is None or 2**27 < machine.memory < 2**46
    assert machine.needs is None or "driver from" in machine.needs
    assert dict(machine.packages)["numpy"]
    assert "onnxfim" in dict(machine.packages)


def test_a_missing_extra_tells_how_to_get_it(monkeypatch):
    monkeypatch.setattr(doctor, "_EXTRAS", {"onnxfim-no-such-package": "nothing: pip install it"})
    result = CliRunner().invoke(main, ["doctor"])
    assert re.search(r"^onnxfim-no-such-package +not installed; for nothing: pip install it$", result.output, re.MULTILINE)


def test_doctor_prints_and_its_json_says_the_same(machine):
    text = CliRunner().invoke(main, ["doctor"])
    record = json.loads(CliRunner().invoke(main, ["doctor", "--json"]).stdout)
    assert text.exit_code == 0
    assert set(record) == set(doctor.Machine.__dataclass_fields__)
    for provider in record["providers"]:
        said = "loads" if provider["loads"] else f"does not load: {provider['reason']}"
        assert f"{provider['name']}: {said}" in text.output
    assert record["runtime"] in text.output
    assert record["cuda"]["text"] in text.output
    assert (record["cuda"]["command"] or "") in text.output


def test_doctor_answers_without_an_onnx_runtime(monkeypatch):
    def none():
        raise ProviderError("ONNX Runtime is not installed")

    monkeypatch.setattr(doctor, "available_providers", none)
    monkeypatch.setattr(cuda, "import_runtime", none)
    monkeypatch.setattr(cuda, "installed", lambda: Installation((), ()))
    monkeypatch.setattr(cuda, "gpu_here", lambda: NvidiaGpu("none"))
    done = CliRunner().invoke(main, ["doctor"])
    assert done.exit_code == 0
    assert re.search(r"^ONNX Runtime +cannot be imported$", done.output, re.MULTILINE)
    first, second, *_ = done.output.splitlines()
    assert first.startswith("answer: no audit can run: ONNX Runtime cannot be imported. ")
    assert second.startswith("to mend it: pip install onnxruntime")
