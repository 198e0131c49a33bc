"""Train, audit, attack and report on the grid.

    pip install -e '.[paper]'
    python -m tests.benchmarks.paper all --work FOLDER --again digits

Each of ``train``, ``audit``, ``attack`` and ``report`` can be run alone; what is done already is left as it is, so that a stopped run
goes on. ``--again digits`` also makes the block of one data set once more, from other seeds. The data: see ``data_sets.py``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from .cells import grid
from .data_sets import DATA_SETS
from .stages import Folder, run


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.paper", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stages", nargs="+", choices=("train", "audit", "attack", "report", "all"))
    parser.add_argument("--work", type=Path, required=True, help="folder that keeps models and records")
    parser.add_argument("--jobs", type=int, default=2, help="processes, of one thread each")
    parser.add_argument("--only", default="", help="only models whose name holds this text")
    parser.add_argument(
        "--again", choices=DATA_SETS, default=None, help="the data set whose block is made once more from other seeds"
    )
    parser.add_argument("--retry", action="store_true", help="run failed ones again")
    options = parser.parse_args()
    folder = Folder(options.work.resolve())
    cells = [cell for cell in grid(DATA_SETS, again=options.again) if options.only in cell.name]
    asked = {"train", "audit", "attack", "report"} if "all" in options.stages else set(options.stages)
    if "train" in asked:
        from .making import make

        for part in ([c for c in cells if c.parent is None], [c for c in cells if c.parent is not None]):
            run(folder, "train", make, part, jobs=options.jobs, again=options.retry)
    made = [cell for cell in cells if "failed" not in (folder.read("train", cell.name) or {"failed": ""})]
    if "audit" in asked:
        from .auditing import audit
        from .others import known, measure

        run(folder, "audit", audit, made, jobs=options.jobs, again=options.retry)
        run(folder, "others", measure, [o for o in known() if options.only in o.name], jobs=options.jobs, again=options.retry)
    if "attack" in asked:
        from .attacks import attack

        run(folder, "attack", attack, made, jobs=options.jobs, again=options.retry)
    if "report" in asked:
        from .page import report

        report(folder, options.again)


if __name__ == "__main__":
    main()
