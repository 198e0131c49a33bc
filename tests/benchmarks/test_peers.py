"""The comparison with other tools where they are not installed: their rows say so, and the tables are written all the same."""

from __future__ import annotations

import importlib
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from tests.support.places import PEERS, ROOT

HERE = Path(__file__).parent
ABSENT = ("torch", "onnx2torch", "foolbox", "art")


@pytest.fixture
def bench(monkeypatch):
    """The script, found as it is where it is run by hand."""
    monkeypatch.syspath_prepend(str(HERE))
    return importlib.import_module("bench_peers")


@pytest.fixture
def alone(bench, monkeypatch):
    """The script where no peer is installed."""
    for name in [m for m in sys.modules if m.split(".")[0] in ABSENT] + list(ABSENT):
        monkeypatch.setitem(sys.modules, name, None)
    return bench


@pytest.fixture
def pages(tmp_path, bench):
    """A README and a page of details with the marks."""
    found = [tmp_path / "README.md", tmp_path / "peers.md"]
    for page in found:
        page.write_text(f"before\n\n{bench.BEGIN}\n\nold\n\n{bench.END}\n\nafter\n", "utf-8")
    return found


def table_of(page):
    """The cells of each row of a page's table, without the headers."""
    lines = [line for line in page.read_text("utf-8").splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_tables_are_written_without_the_peers(alone, pages):
    case = alone.sample_case("digits_mlp")
    found = {case.name: alone.rows_of(case, None, quick=True)}
    by_tool = {row.tool.split(",")[0].split(" ")[0] + str(i): row for i, row in enumerate(found[case.name])}
    missing = [name for name, row in by_tool.items() if row.missing]
    assert missing == ["PyTorch1", "published3", "foolbox6", "ART7"]
    ours = found[case.name][0]
    assert float(ours.near["error {} at most"]) < 1e-4, "float32 slopes against float64 ones"
    assert ours.cpu > 0
    alone.write(found, *pages)
    for page in pages:
        text = page.read_text("utf-8")
        assert text.startswith("before\n")
        assert text.endswith("after\n")
        assert "old" not in text
        assert sum("not installed: pip install 'onnxfim[peers]'" in cells for cells in table_of(page)) == 4
    assert len(table_of(pages[0])) == 7
    assert len(table_of(pages[1])) == 8
    once = [page.read_text("utf-8") for page in pages]
    alone.write(found, *pages)
    assert [page.read_text("utf-8") for page in pages] == once


def test_a_peer_that_does_not_load_says_why(alone, monkeypatch):
    peers = importlib.import_module("_peers")

    def broken(name):
        if name == "torch":
            return types.ModuleType(name)
        raise RuntimeError("operator torchvision::nms does not exist\nmore")

    monkeypatch.setattr(peers.importlib, "import_module", broken)
    assert peers.TORCH.missing == "onnx2torch does not load: operator torchvision::nms does not exist"


def test_models_stand_side_by_side_in_the_readme(bench):
    one, two = (
        bench.Row("tool", "answer", "3 + 0", {"error {} at most": e, "ρ {}": "0.98"}, {"ρ of another {}": "0.5"}, cpu, cpu)
        for e, cpu in (("1e-06", 0.0012), ("2e-06", 12.4))
    )
    assert bench.readme_cells([one, two]) == ["tool", "answer", "3 + 0", "1.2 ms / 12 s", "error 1e-06 / 2e-06 at most, ρ 0.98"]
    assert bench.page_cells("net", one)[-2] == "error 1e-06 at most; ρ 0.98; ρ of another 0.5"


def test_calls_are_timed_in_turn(bench):
    rows = importlib.import_module("_peer_rows")
    order = []
    took = rows.in_turn({name: lambda name=name: order.append(name) for name in "ab"}, 0.0, 3)
    assert order == list("ababab")
    assert set(took) == {"a", "b"}


def test_a_page_has_the_marks(bench):
    for page in (bench.SHORT, bench.PAGE):
        text = page.read_text("utf-8")
        assert text.count(bench.BEGIN) == text.count(bench.END) == 1
        assert "| tool |" in text[text.index(bench.BEGIN) : text.index(bench.END)], f"{page.relative_to(ROOT)} lacks its table"


@pytest.mark.parametrize("name", ["digits_resnet", "digits_mlp"])
def test_pytorch_computes_the_file(bench, name):
    """The module of onnx2torch, by every way: the same lambda_max as float64 values, to what float32 slopes leave."""
    peers, rows = importlib.import_module("_peers"), importlib.import_module("_peer_rows")
    if peers.TORCH.missing:
        PEERS.skip()
    s = rows.subject(bench.sample_case(name), 3)
    net = peers.torch_net(s.case.path, s.X, s.z)
    for way, call in peers.ways(net, s.X, np.eye(10)).items():
        assert peers.runs(call), way
        np.testing.assert_allclose(rows.top(s.z, peers.jacobian_of(way, call)), s.truth, rtol=1e-4)
