"""Served models on the command line: reports, the dry run, limits, errors in one line, and no secret anywhere."""

from __future__ import annotations

import dataclasses
import json
import textwrap

import numpy as np
import pytest
from click.testing import CliRunner

from onnxfim.cli import main
from onnxfim.served.terms import TOKEN
from tests.served.conftest import MLP
from tests.support.places import SAMPLES
from tests.support.serving import served

DIGITS = ("--data", SAMPLES / "digits.npz", "--samples", "10", "--budget", "60", "--no-cache")
FORMATS = ("html", "json", "csv", "junit", "sarif", "markdown", "comment", "model-card")


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Run a command in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        return CliRunner().invoke(main, [str(w) for w in words], catch_exceptions=False)

    return run


def one_line(done):
    """The one line that a command ended with."""
    assert done.exit_code == 2, done.output
    (line,) = [text for text in done.stderr.splitlines() if text.startswith("onnxfim: ")]
    return line


def test_every_format_tells_where_it_was_asked_and_no_secret(command, mlp, tmp_path, monkeypatch):
    monkeypatch.setenv(TOKEN, "my-secret-token")
    outputs = [word for f in FORMATS for word in ("-o", f"{f}=report.{f}")]
    with served({"digits": mlp}, token="my-secret-token") as server:
        done = command("audit", server.url, *DIGITS, "-v", "-o", "dossier=dossier", *outputs)
    assert done.exit_code == 0, done.output
    assert "forward passes in " in done.output
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert len(files) > len(FORMATS)
    for file in files:
        assert "my-secret-token" not in file.read_text("utf-8"), file
    assert "my-secret-token" not in done.output
    page = (tmp_path / "report.html").read_text("utf-8")
    assert server.url in page
    assert "SHA-256 of address and metadata" in page
    assert "they cannot be hashed" in page
    assert "SHA-256 of address and metadata" in (tmp_path / "report.markdown").read_text("utf-8")
    assert "its weights were not seen" in (tmp_path / "report.model-card").read_text("utf-8")
    record = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert record["model"]["served"]["address"] == server.url
    assert record["identity"]["command"][1:3] == ["audit", server.url]


def test_the_values_are_those_of_the_file(command, mlp, tmp_path):
    with served({"digits": mlp}) as server:
        command("audit", server.url, *DIGITS, "-o", "json=served.json")
    command("audit", MLP, *DIGITS, "--method", "sketch", "--provider", "cpu", "-o", "json=file.json")
    one, other = (json.loads((tmp_path / f"{name}.json").read_text("utf-8")) for name in ("served", "file"))
    assert [s["lambda_max"] for s in one["samples"]] == [s["lambda_max"] for s in other["samples"]]
    assert one["identity"]["report_id"] != other["identity"]["report_id"]


def test_a_dry_run_tells_requests_rows_bytes_and_seconds(command, mlp):
    with served({"digits": mlp}) as server:
        done = command("audit", server.url, *DIGITS, "--dry-run", "--max-qps", "50", "--max-queries", "10")
        asked = len(server.log.rows)
    assert done.exit_code == 0, done.output
    assert asked <= 15  # three to open it, some that are timed
    (line,) = [text for text in done.stdout.splitlines() if " requests of up to 128 rows" in text]
    assert "50 a second at most (--max-qps)" in line
    assert " kB up" in line
    assert "--max-queries ends the run after 10 requests, before that" in done.stdout
    assert done.stdout.splitlines()[-1] == "nothing was measured, and no report was written"


def test_a_dry_run_foresees_what_is_asked(command, mlp, tmp_path):
    with served({"digits": mlp}) as server:
        done = command("audit", server.url, *DIGITS, "--dry-run", "-o", "json=-", "--max-qps", "20")
        (run,) = json.loads(done.stdout)["runs"]
        server.log.rows.clear()
        command("audit", server.url, *DIGITS, "-o", "json=a.json")
        asked, rows = len(server.log.rows), sum(server.log.rows)
    told = run["traffic"]
    assert 0.6 * asked <= told["requests"] <= 2 * asked
    assert 0.8 * rows <= told["rows"] <= 1.5 * rows
    assert told["sent"] == pytest.approx(told["rows"] * 64 * 4, rel=0.15)  # 64 numbers of four bytes, and the JSON before them
    assert run["seconds"] >= 0.8 * told["requests"] / 20


def test_a_cap_ends_it_as_inconclusive(command, mlp, caplog):
    with served({"digits": mlp}) as server:
        done = command("audit", server.url, *DIGITS, "--max-queries", "100", "--batch", "8")
        assert sum(p.endswith("/infer") for p in server.log.paths) == 100
    assert done.exit_code == 4, done.output
    assert "ended by --max-queries" in done.output
    assert " requests are to come, and the audit ends after 100 (max_queries)" in caplog.text  # before any of them
    with served({"digits": mlp}) as server:
        done = command("audit", server.url, *DIGITS, "--max-queries", "1")
    assert done.exit_code == 3
    assert "the limit of requests came before anything was measured. Give a larger --max-queries." in done.output


WRONG = {
    "no such model": (("{base}/v2/models/absent",), "the server has no model 'absent' (it has digits)"),
    "credentials": (("http://me:secret@localhost/v2/models/m",), "holds credentials"),
    "another protocol": (("{base}/predict",), "is no address of a model"),
    "no such output": (("{url}", "--output", "y"), "has no output 'y' (it has 'z' FP32)"),
    "several inputs": (("{url}", "--input", "x", "--input", "y"), "--input names several inputs"),
    "no certificates": (("{url}", "--ca-file", "absent.pem"), None),
}


@pytest.mark.parametrize(("words", "why"), WRONG.values(), ids=list(WRONG))
def test_what_is_wrong_is_one_line(command, mlp, words, why, tmp_path):
    with served({"digits": mlp}) as server:
        words = [w.format(base=server.base, url=server.url) for w in words]
        done = command("audit", *words, *DIGITS, "-o", "junit=report.xml")
    if why is None:  # nothing is encrypted: no certificate is looked at
        assert done.exit_code == 0
        return
    assert why in " ".join(done.output.split())
    assert done.exit_code == 2
    assert "Traceback" not in done.output
    assert "secret" not in done.output
    report = tmp_path / "report.xml"
    assert not report.exists() or "secret" not in report.read_text("utf-8")


def test_data_of_another_shape_are_one_line(command, mlp, npz):
    with served({"digits": mlp}) as server:
        text = one_line(command("audit", server.url, "--data", npz(np.zeros((4, 3, 8, 8), np.float32))))
    assert "(N, 1, 8, 8)" in text


def test_answers_of_another_shape_are_one_line(command, mlp):
    wrong = dataclasses.replace(mlp, function=lambda rows: mlp.function(rows)[:, :7])
    with served({"digits": wrong}) as server:
        text = one_line(command("audit", server.url, *DIGITS, "--retries", "0"))
    assert "an answer of shape " in text
    assert " × 7 where " in text
    assert "× 10" in text


def test_a_file_may_not_send_the_token_anywhere(command, mlp, tmp_path, monkeypatch):
    with served({"digits": mlp}) as server:
        (tmp_path / "onnxfim.toml").write_text(f'model = "{server.url}"\n')
        assert command("audit", *DIGITS).exit_code == 0
        monkeypatch.setenv(TOKEN, "my-secret-token")
        server.log.headers.clear()
        done = command("audit", *DIGITS)
        assert not server.log.headers
    assert done.exit_code == 2
    assert f"names an address, to which {TOKEN} would be sent. Name it on the command line." in " ".join(done.output.split())


def test_models_of_both_kinds_compare(command, mlp, tmp_path):
    with served({"digits": mlp}) as server:
        words = ("compare", MLP, server.url, "--method", "sketch", *DIGITS[:-1], "--provider", "cpu", "-o", "json=c.json")
        done = command(*words)
    assert done.exit_code == 0, done.output
    record = json.loads((tmp_path / "c.json").read_text("utf-8"))
    assert record["deployment"]["agreement"]["change"]["value"] == 1.0


class TestPredict:
    @pytest.fixture(autouse=True)
    def module(self, tmp_path):
        (tmp_path / "answers.py").write_text(
            textwrap.dedent(f"""
            import onnxruntime as ort
            session = ort.InferenceSession({str(MLP)!r}, providers=["CPUExecutionProvider"])
            calls = 0

            def logits(rows):
                return session.run(None, {{session.get_inputs()[0].name: rows}})[0]

            def failing(rows):
                global calls
                calls += 1
                if calls % 5 == 0:
                    raise ConnectionError("reset by peer")
                return logits(rows)

            def wrong(rows):
                return rows.undefined

            def misshapen(rows):
                return logits(rows)[:1]

            def text(rows):
                return "no numbers"
            """)
        )

    @pytest.mark.parametrize("name", ["answers:logits", "answers.py:logits", "answers:failing"])
    def test_a_function_is_audited(self, command, tmp_path, name):
        done = command("audit", "--predict", name, *DIGITS, "-o", "json=a.json")
        assert done.exit_code == 0, done.output
        command("audit", MLP, *DIGITS, "--method", "sketch", "--provider", "cpu", "-o", "json=file.json")
        one, other = (json.loads((tmp_path / f"{n}.json").read_text("utf-8")) for n in ("a", "file"))
        assert [s["lambda_max"] for s in one["samples"]] == [s["lambda_max"] for s in other["samples"]]
        assert one["model"]["served"]["address"] == name

    @pytest.mark.parametrize(
        ("name", "why"),
        [
            ("answers:absent", "module 'answers' has no function 'absent'"),
            ("nowhere:logits", "there is no module 'nowhere'"),
            ("absent.py:logits", "there is no file absent.py"),
            ("answers.py:absent", "has no function 'absent', expected one that answers rows (it has logits, failing"),
            ("answers", "names no function, expected MODULE:FUNCTION"),
            ("answers:wrong", "AttributeError in line 17: 'numpy.ndarray' object has no attribute 'undefined'"),
            ("answers:misshapen", "an array of shape (1, 10) for 8 rows, expected (8, K) numbers"),
            ("answers:text", "expected (8, K) numbers"),
        ],
    )
    def test_what_is_wrong_is_one_line(self, command, name, why):
        text = one_line(command("audit", "--predict", name, *DIGITS, "--retries", "0"))
        assert why in text

    def test_only_the_command_line_names_it(self, command, tmp_path, monkeypatch):
        (tmp_path / "onnxfim.toml").write_text('predict = "answers:logits"\n')
        done = command("audit", *DIGITS)
        assert done.exit_code == 2
        assert "'predict' is unknown" in done.output
        (tmp_path / "onnxfim.toml").unlink()
        monkeypatch.setenv("ONNXFIM_PREDICT", "answers:logits")
        assert command("audit", *DIGITS).exit_code == 2

    def test_one_model_is_named(self, command):
        done = command("audit", MLP, "--predict", "answers:logits", *DIGITS)
        assert done.exit_code == 2
        assert "name two models. Give one of them." in done.output
        assert "Missing argument 'MODEL'" in command("audit", *DIGITS).output


@pytest.mark.parametrize("words", [("inspect",), ("bounds",)])
def test_what_needs_a_graph_says_so(command, words):
    text = one_line(command(*words, "http://me:secret@localhost/v2/models/m"))
    assert text == (
        "onnxfim: model: is an address, expected an ONNX file. A served model has no graph to read here; onnxfim audit asks it."
    )
