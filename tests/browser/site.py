"""Every kind of page on disk, opened as a file or served as strict hosts serve it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np

from onnxfim.record.audit import ClassRow
from onnxfim.record.identity import Identity
from onnxfim.record.input_pictures import DirectionSummary
from onnxfim.record.sample import Skipped
from onnxfim.report import render_bounds_html, render_html
from onnxfim.report.comparison_html import render_comparison_html
from onnxfim.report.dossier import BOM, PAGE, RECORD, render_dossier
from onnxfim.report.dossier.conformity import build_conformity_page, render_conformity_html
from onnxfim.spectral.reading import GraphReading
from onnxfim.verdict.compare import compare
from tests.support.audits import HOSTILE, VARIANTS, hostile, make_audit, with_bound
from tests.support.small_audits import heavy, with_values

#: What Jenkins sends by default, and the least that a page with assets needs.
POLICY = "default-src 'none'; style-src 'self'; img-src 'self'"
#: Left out: they look like one that is in.
AUDITS = sorted(VARIANTS.keys() - {"two", "exact", "replay", "replay-one", "replay-two", "replay-tiny"})


def _bounds(name: str, variant: str) -> Callable[..., str]:
    def render(assets_dir: Path | None) -> str:
        audit = VARIANTS[variant]()
        reading = GraphReading(audit.architecture, audit.bound, audit.closed_forms)
        return render_bounds_html(name, "9f2c4e1ab07d5d33" * 4, reading, assets_dir=assets_dir)

    return render


def _three(n: int):
    """Audits of which the second is the first with noise, and the third three times as sensitive."""
    rng = np.random.default_rng(0)
    audit, values = make_audit(n), heavy(n, rng, 1.0)
    others = {"digits_resnet": values, "digits_resnet_int8": values * np.exp(rng.normal(0, 0.2, n)), "digits_vgg": 3 * values}
    return [replace(with_values(audit, v), model=replace(audit.model, name=name)) for name, v in others.items()]


def _eight():
    """As many audits as are told in folds, each somewhat more sensitive than the one before; the comparison says who it is."""
    rng = np.random.default_rng(1)
    audit, values = make_audit(60), heavy(60, rng, 1.0)
    audits = [
        replace(
            with_values(audit, values * 1.3**k * np.exp(rng.normal(0, 0.1, 60))), model=replace(audit.model, name=f"digits_{k}")
        )
        for k in range(8)
    ]
    identity = Identity("0123456789abcdef" * 4, "2026-03-01T12:00:00Z", ("onnxfim", "compare"), "Eight models")
    return replace(compare(audits), identity=identity)


def _comparison(audits) -> Callable[..., str]:
    return lambda assets_dir: render_comparison_html(compare(audits()), assets_dir=assets_dir)


def _conformity(audit) -> Callable[..., str]:
    def render(assets_dir: Path | None) -> str:
        files = {name: render_dossier(audit())[name] for name in (RECORD, PAGE, BOM)}
        return render_conformity_html(build_conformity_page(audit(), files), assets_dir=assets_dir)

    return render


def _identified():
    """An audit that says who it is."""
    identity = Identity(
        "0123456789abcdef" * 4, "2026-03-01T12:00:00Z", ("onnxfim", "audit", "a b.onnx"), "Quarterly check",
        "Before the release.", (("purpose", "acceptance"),), "host-7",
    )  # fmt: skip
    return replace(make_audit(20), identity=identity)


def _wide():
    """An audit with words and numbers as long as they come: two hundred letters without a space, right to left, huge and many."""
    long, right_to_left = "w" * 200, "\u05e9\u05dc\u05d5\u05dd-" * 40
    audit = make_audit(60, num_classes=1000, scale=1e140)
    why = f"the reason is {long} and {right_to_left}, which is told at length " * 3
    missing = [
        replace(s.boundary_distance, value=None, low=None, high=None, reason=f"{i}: {why}") for i, s in enumerate(audit.samples)
    ]
    samples = tuple(
        replace(s, name=(long, right_to_left, "short")[i % 3], boundary_distance=e if i % 2 else s.boundary_distance)
        for i, (s, e) in enumerate(zip(audit.samples, missing, strict=True))
    )
    names = tuple((f"{k}{long}", f"{right_to_left}{k}")[k % 2] for k in range(1000))
    row = ClassRow(0, names[0], 3, 1.0, 0.9, 1e140, 1e139, 0.2)
    return replace(
        audit,
        samples=samples,
        classes=tuple(replace(row, index=k, name=names[k]) for k in range(1000)),
        model=replace(audit.model, name=long, path=f"/{long}/{long}", input=long, output=right_to_left),
        data=replace(audit.data, class_names=names, source=long, feature_names=names[:64]),
        findings=tuple(replace(f, message=why) for f in audit.findings),
        skipped=tuple(Skipped(100 + k, why) for k in range(5)),
        direction_summary=DirectionSummary(60, tuple(float(k) for k in range(64))),
        identity=Identity("f" * 64, "2026-03-01T12:00:00Z", (long,), long, why, ((long, right_to_left),), long),
    )


#: Renderers by the page's name; each takes the folder of the assets, or None.
PAGES: dict[str, Callable[..., str]] = {
    **{f"audit-{name}": lambda assets_dir, name=name: render_html(VARIANTS[name](), assets_dir=assets_dir) for name in AUDITS},
    "audit-wide": lambda assets_dir: render_html(_wide(), assets_dir=assets_dir),
    "audit-identified": lambda assets_dir: render_html(_identified(), assets_dir=assets_dir),
    "bounds": _bounds("digits_resnet.onnx", "bound"),
    "bounds-deep": _bounds("deep.onnx", "bound-deep"),
    "bounds-hostile": _bounds(" ".join(HOSTILE), "bound-hostile"),
    "comparison": _comparison(lambda: _three(200)),
    "comparison-thousand": _comparison(lambda: _three(1000)),
    "conformity": _conformity(VARIANTS["bound"]),
    "conformity-hostile": _conformity(VARIANTS["bound-hostile"]),
    "comparison-eight": lambda assets_dir: render_comparison_html(_eight(), assets_dir=assets_dir),
    "comparison-hostile": _comparison(lambda: [hostile(with_bound(make_audit(30))), hostile(make_audit(30))]),
}


@dataclass
class Site:
    """The pages in a folder and a server of it; ``asked`` are the paths that browsers asked for."""

    folder: Path
    origin: str
    asked: list[str] = field(default_factory=list)

    def file(self, name: str) -> str:
        """Address of the page as one file."""
        path = self.folder / name / "report.html"
        if not path.exists():
            self._save(path, PAGES[name](assets_dir=None))
        return path.as_uri()

    def served(self, name: str) -> str:
        """Address of the page with its assets beside it, behind the policy."""
        path = self.folder / name / "assets.html"
        if not path.exists():
            self._save(path, PAGES[name](assets_dir=path.parent / "report_files"))
        return f"{self.origin}/{name}/{path.name}"

    def _save(self, path: Path, html: str) -> None:
        path.parent.mkdir(exist_ok=True)
        path.write_text(html, encoding="utf-8")


class _Strict(SimpleHTTPRequestHandler):
    def __init__(self, *arguments, asked: list[str], **options):
        self._asked = asked
        super().__init__(*arguments, **options)

    def end_headers(self):
        self.send_header("Content-Security-Policy", POLICY)
        super().end_headers()

    def send_head(self):
        if self.path == "/favicon.ico":  # the browser's wish for its tab, not the page's
            self.send_response(204)
            self.end_headers()
            return None
        self._asked.append(self.path)
        return super().send_head()

    def log_message(self, *_):
        pass


@contextmanager
def serve(folder: Path) -> Iterator[Site]:
    """A loopback server of ``folder`` that ends with the block."""
    asked: list[str] = []
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Strict, directory=str(folder), asked=asked)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield Site(folder, f"http://127.0.0.1:{server.server_port}", asked)
        finally:
            server.shutdown()
