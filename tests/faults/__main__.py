"""Prints the table of faults: ``python -m tests.faults``; with ``--write`` it goes into docs/failures.md."""

from __future__ import annotations

import sys

from tests.faults.table import PAGE, filled, sections

if "--write" in sys.argv[1:]:
    PAGE.write_text(filled(PAGE.read_text("utf-8")), "utf-8")
else:
    for name, table in sections().items():
        print(f"## {name}\n\n{table}\n")
