from onnxfim.report.comparison_markdown import render_comparison_markdown
from onnxfim.verdict.compare import compare
from tests.support.audits import make_audit


def test_tables_have_as_many_cells_in_each_row():
    text = render_comparison_markdown(compare([make_audit(60), make_audit(60, seed=1)]))
    block: list[int] = []
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            block.append(line.replace("\\|", "").count("|"))
        elif block:
            assert len(set(block)) == 1
            block = []


def test_it_fits_a_comment():
    text = render_comparison_markdown(compare([make_audit(1000), make_audit(1000, seed=1)]))
    assert len(text.encode()) < 64_000
