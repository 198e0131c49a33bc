"""A tenth of the exporters' files in every run, where their packages are installed; all of them by `tests.exporters.table`."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.exporters.audited import Outcome, audit
from tests.exporters.recipe import MODULES, missing
from tests.exporters.table import page, summary

#: Of each module, the files that every run makes.
QUICK = {
    "torch_recipes": ("t_base", "t_scatter", "t_topk", "t_mha", "t_lstm", "t_seg", "t_two_inputs"),
    "token_recipes": ("tok_bag", "tok_masked_bag"),
    "quantised_recipes": ("encoder_int4_qdq",),
    "classical_recipes": ("sk_logreg", "sk_logreg_zipmap", "sk_mlp"),
}


@pytest.fixture(scope="module", params=QUICK)
def made(request, tmp_path_factory):
    """The folder of one module's quick files, made in a process of its own, and their names."""
    absent = missing(request.param)
    if absent:
        pytest.skip(f"needs {', '.join(absent)}: pip install 'onnxfim[exporters]'")
    folder = tmp_path_factory.mktemp("exported")
    command = [sys.executable, "-m", "tests.exporters.make", request.param, str(folder), *QUICK[request.param]]
    subprocess.run(command, check=True, capture_output=True, timeout=300, cwd=Path(__file__).parents[2])
    return folder, QUICK[request.param]


def test_files_of_real_exporters_are_measured_exactly(made):
    folder, names = made
    found = [audit(folder, name, work=folder / "audits") for name in names]
    wrong = [o.as_json() for o in found if o.differentiable and not o.exact]
    assert not wrong, wrong
    assert not [o.as_json() for o in found if o.route == "refused" or o.bound_holds is False]
    assert not [o.as_json() for o in found if o.covered is not None and o.covered < 1]
    assert not [o.as_json() for o in found if o.known_family is not None and o.family != o.known_family]


def test_every_module_of_recipes_is_listed():
    here = Path(__file__).parent
    assert set(MODULES) == {p.stem for p in here.glob("*_recipes.py")}
    for module in MODULES:  # what each imports that is not of the project or of Python is what it is said to need
        tree = ast.parse((here / f"{module}.py").read_text())
        tops = {n.module.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module}
        tops |= {a.name.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
        others = tops - set(sys.stdlib_module_names) - {"tests", "numpy", "onnx", "onnxruntime"}
        assert others <= set(MODULES[module]), module


def test_the_table_says_what_falls_short():
    good = Outcome(
        "a", "PyTorch", "gradient", "", True, error=1e-6, covered=1.0, family="resnet", known_family="resnet", bound=3.0, norm=1.0
    )
    wrong = Outcome(
        "b", "PyTorch", "sketch", "no rule", True, error=0.2, covered=0.5, family="resnet", known_family="vgg", bound=0.5, norm=1.0
    )
    refused = Outcome("c", "PyTorch", "refused", "cannot be read")
    assert all(kept for _, kept in summary([good]))
    told = summary([good, wrong, refused])
    assert [kept for _, kept in told] == [False] * 6
    text = page([good, wrong, refused], ["`d`: it fails"], {"keras_recipes": ["keras"]})
    for words in (
        "2 have a derivative, 1 of them exact",
        "1 without a way out: c",
        "1 read otherwise: b",
        "1 below: b",
        "`d`: it fails",
        "keras not installed",
    ):
        assert words in text


def test_float32_that_does_not_tell_the_slope_is_no_error_of_ours():
    assert Outcome("a", "PyTorch", "gradient", "", True, error=5e-3, float32=4e-3).exact
    assert not Outcome("a", "PyTorch", "gradient", "", True, error=5e-3, float32=1e-3).exact
    assert not Outcome("a", "PyTorch", "sketch", "", True, error=1e-6).exact
