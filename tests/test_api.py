"""What `import onnxfim` offers: every name comes, is typed and documented, and its example runs."""

from __future__ import annotations

import doctest
import inspect
import json
import subprocess
import sys
import typing

import pytest

import onnxfim
from tests.support.audits import VARIANTS, make_audit
from tests.support.places import SAMPLES

FUNCTIONS = (
    "audit",
    "audit_isolated",
    "bounds",
    "check",
    "compare",
    "from_callable",
    "from_url",
    "inspect",
    "load_samples",
    "render_html",
    "write_dossier",
    "suggest",
)
RECORDS = ("Audit", "Progress", "Settings")
ERRORS = tuple(name for name in onnxfim.__all__ if name.endswith("Error") or name == "UnsupportedOperator")


def test_all_is_what_there_is():
    assert set(onnxfim.__all__) == {*FUNCTIONS, *RECORDS, *ERRORS, "Samples", "__version__"}
    assert set(onnxfim.__all__) <= set(dir(onnxfim))
    for name in onnxfim.__all__:
        assert getattr(onnxfim, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = onnxfim.nothing


@pytest.mark.slow
@pytest.mark.untraced
def test_a_function_is_no_module_whatever_was_imported_before():
    modules = [
        p.relative_to(SAMPLES.parent).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")
        for p in (SAMPLES.parent / "onnxfim").rglob("*.py") if p.stem not in ("__main__", "pytest_plugin")
    ]  # fmt: skip
    code = f"import importlib; [importlib.import_module(m) for m in {modules!r}]\nimport onnxfim, types\n"
    code += f"print([n for n in {FUNCTIONS!r} if not isinstance(getattr(onnxfim, n), types.FunctionType)])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=SAMPLES.parent)
    assert done.stdout.strip() == "[]"


def test_errors_share_one_base():
    assert all(issubclass(getattr(onnxfim, name), onnxfim.OnnxFimError) for name in ERRORS)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_typed_and_tell_what_they_take(name):
    function = getattr(onnxfim, name)
    hints = typing.get_type_hints(function)
    parameters = inspect.signature(function).parameters
    assert set(hints) == {*parameters, "return"}
    text = inspect.getdoc(function)
    assert text.splitlines()[0].endswith((".", ":"))
    assert all(p in text for p in parameters), "each argument is named in the docstring"


@pytest.mark.parametrize("name", [*FUNCTIONS, *RECORDS])
@pytest.mark.slow
def test_examples_run(name, tmp_path, monkeypatch):
    for file in ("digits.npz", "digits_mlp.onnx", "digits_resnet.onnx", "digits_resnet_softmax.onnx"):
        (tmp_path / file).write_bytes((SAMPLES / file).read_bytes())
    monkeypatch.chdir(tmp_path)
    examples = doctest.DocTestFinder(recurse=False).find(getattr(onnxfim, name), name, globs={})
    assert sum(len(e.examples) for e in examples) >= 2, "an example that uses it"
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for example in examples:
        runner.run(example)
    assert runner.failures == 0


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_repr_of_an_audit_is_three_lines(variant):
    audit = VARIANTS[variant]()
    lines = repr(audit).splitlines()
    assert len(lines) == 3
    assert all(len(line) <= 200 and line.isprintable() for line in lines)
    assert audit.verdict in lines[0]


def test_repr_tells_the_numbers():
    audit = make_audit(20)
    first, second, third = repr(audit).splitlines()
    assert "digits_resnet" in first
    assert "20 samples" in first
    assert f"{audit.aggregates['lambda_max'].mean.value:.3g}" in second
    assert "2 findings" in third


def test_save_and_load(tmp_path):
    audit = make_audit(5)
    audit.save(tmp_path / "a.json")
    assert onnxfim.Audit.load(tmp_path / "a.json") == audit
    assert json.loads((tmp_path / "a.json").read_text("utf-8"))["schema_version"].startswith("2.")
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_what_cannot_be_loaded_or_saved_is_one_line(tmp_path, told):
    with pytest.raises(onnxfim.OutputError, match=told("no.json", "cannot be read", "Give a file that onnxfim wrote")):
        onnxfim.Audit.load(tmp_path / "no.json")
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(onnxfim.OutputError, match=told("bad.json", "schema_version")):
        onnxfim.Audit.load(tmp_path / "bad.json")
    with pytest.raises(onnxfim.OutputError, match=told("a.json", "does not exist", "Make it first")):
        make_audit(2).save(tmp_path / "missing" / "a.json")
