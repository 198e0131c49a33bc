"""Makes all files, audits them, and writes the table: ``python -m tests.exporters.table FOLDER [--page docs/exporters.md]``.

Each file is made once, and audited once: what is in FOLDER already stays (``--again NAME …`` asks anew). ``--only MODULE`` takes one
module of recipes. A module whose packages are not installed is left out, and the page says so.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from tests.exporters.audited import Outcome, audit
from tests.exporters.recipe import MODULES, missing, recipes_of

_HEAD = """# Exporters

Files as exporters really write them, each audited with default settings and held against float64. The table is made by

    pip install -e '.[dev,exporters]'
    python -m tests.exporters.table FOLDER --page docs/exporters.md

*route*: how samples were measured; *kinked* ones stand on a tie (a MaxPool over a constant background) and have one-sided slopes.
*error*: the largest relative error of `lambda_max` over the other samples, against the same weights in float64 (PyTorch, TensorFlow,
scikit-learn). *float32*: the same of the framework's own float32 at rows a unit in the last place apart, where deep networks have
kinks within rounding and float32 itself does not tell the slope: a file is exact where its error is at most 1e-4, or 1.5 times
that. *cover*: share of samples whose interval holds the truth. *class*: of the architecture. *bound*: log10 of the Lipschitz bound
of the logits, and whether it is above the largest slope found. *bare*: seconds of the audit over those of as many rows through the
bare file (of small files the start counts most).
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Make, audit, print, and write the page where one is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--page", type=Path, help="write the table there")
    parser.add_argument("--only", nargs="*", default=list(MODULES), help="modules of recipes")
    parser.add_argument("--again", nargs="*", default=[], help="names of files to audit anew, or 'all'")
    parser.add_argument("--jobs", type=int, default=2)
    asked = parser.parse_args(arguments)
    absent = {m: missing(m) for m in asked.only}
    found: list[Outcome] = []
    failed: list[str] = []
    for module in (m for m in asked.only if not absent[m]):
        made, wrong = _made(module, asked.folder)
        failed += wrong
        with ThreadPoolExecutor(asked.jobs) as pool:
            found += pool.map(lambda name: _audited(asked.folder, name, asked.again), made)
    for outcome in found:
        print(_line(outcome))
    print(*(text for text, _ in summary(found)), sep="\n")
    if asked.page:
        asked.page.write_text(page(found, failed, {m: a for m, a in absent.items() if a}))
    return 0 if all(kept for _, kept in summary(found)) else 1


def _made(module: str, folder: Path) -> tuple[list[str], list[str]]:
    """The module's files that are there, made where they were not, and what the exporter does not write."""
    names = list(recipes_of(module))
    wanted = [n for n in names if not any((folder / f"{n}{end}").exists() for end in (".json", ".failed"))]
    if wanted:
        subprocess.run([sys.executable, "-m", "tests.exporters.make", module, str(folder), *wanted], check=True)
    failed = [f"`{n}`: {(folder / f'{n}.failed').read_text().splitlines()[0]}" for n in names if (folder / f"{n}.failed").exists()]
    return [n for n in names if (folder / f"{n}.json").exists()], failed


def _audited(folder: Path, name: str, again: Sequence[str]) -> Outcome:
    kept = folder / "audits" / f"{name}.outcome"
    if not kept.exists() or name in again or "all" in again:
        outcome = audit(folder, name, work=kept.parent)
        kept.write_text(outcome.as_json())
        print(_line(outcome), flush=True)
    return Outcome(**json.loads(kept.read_text()))


def summary(found: Sequence[Outcome]) -> list[tuple[str, bool]]:
    """What the table shows, in words, and whether each target is kept."""
    smooth = [o for o in found if o.differentiable]
    exact = [o for o in smooth if o.exact]
    refused = [o for o in found if o.route == "refused"]
    unnamed = [o.name for o in refused if "--" not in o.why and "Export" not in o.why and "export" not in o.why]
    classes = [o for o in found if o.known_family is not None and o.family is not None]
    wrong = [o.name for o in classes if o.family != o.known_family]
    bounds = [o for o in found if o.bound_holds is not None]
    below = [o.name for o in bounds if not o.bound_holds]
    sketched = [o.covered for o in smooth if o.route == "sketch" and o.covered is not None]
    share = len(exact) / max(len(smooth), 1)
    cover = float(np.mean([o.covered for o in smooth if o.covered is not None] or [1.0]))
    lines = [
        (
            f"{len(found)} files; {len(smooth)} have a derivative, {len(exact)} of them exact ({share:.1%}; target 95 %)",
            share >= 0.95,
        ),
        (f"{len(refused)} refused, {len(unnamed)} without a way out" + _named(unnamed), not unnamed),
        (f"{len(classes)} of a known class, {len(wrong)} read otherwise" + _named(wrong), not wrong),
        (f"{len(bounds)} bounds held against slopes, {len(below)} below" + _named(below), not below),
        (f"intervals hold the truth on {cover:.1%} of samples (target 93 %)", cover >= 0.93),
    ]
    if sketched:
        lines.append((f"of sketched files, on {float(np.mean(sketched)):.1%} (target 93 %)", float(np.mean(sketched)) >= 0.93))
    return lines


def _named(names: Sequence[str]) -> str:
    return f": {', '.join(names)}" if names else ""


def _number(value: float | None, form: str) -> str:
    return "" if value is None or np.isnan(value) else format(value, form)


def _cells(o: Outcome) -> list[str]:
    bound = "none: " + o.no_bound if o.bound is None else f"{o.bound:.1f}"
    holds = {None: "", True: " ≥ slope", False: " BELOW"}[o.bound_holds]
    return [
        f"`{o.name}`", o.exporter, o.route, _number(o.error, ".1e"), _number(o.float32, ".1e"), _number(o.covered, ".2f"), o.family or "",
        bound[:90] + holds, _number(o.seconds, ".1f"), _number(o.over_bare, ".1f"), o.why[:140],
    ]  # fmt: skip


def _line(o: Outcome) -> str:
    return " | ".join(_cells(o))


def page(found: Sequence[Outcome], failed: Sequence[str], absent: dict[str, list[str]]) -> str:
    """The page in Markdown."""
    head = ["file", "exporter", "route", "error", "float32", "cover", "class", "bound", "s", "bare", "why no gradient, or none"]
    rows = [head, ["---"] * len(head), *(_cells(o) for o in found)]
    table = "\n".join("| " + " | ".join(c.replace("|", "/").replace("\n", " ") for c in row) + " |" for row in rows)
    told = "\n".join(f"- {text}." for text, _ in summary(found))
    other = ""
    if failed:
        other += "\n## What the exporters themselves do not write\n\n" + "\n".join(f"- {text[:200]}" for text in failed) + "\n"
    if absent:
        other += (
            "\n## Not made here\n\n" + "\n".join(f"- {m}: {', '.join(names)} not installed" for m, names in absent.items()) + "\n"
        )
    return f"{_HEAD}\n## In short\n\n{told}\n\n## All files\n\n{table}\n{other}"


if __name__ == "__main__":
    sys.exit(main())
