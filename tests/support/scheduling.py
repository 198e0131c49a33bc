"""Which worker runs which file, and when: long files first, and files that ask for the same audits on one worker."""

from __future__ import annotations

from collections import Counter

import pytest
from xdist.scheduler import LoadFileScheduling

from tests.support.places import ROOT

#: Files that measure the same trained models in the same way: `trained.audited` keeps an audit for all tests of one process.
TOGETHER = ("tests/test_reference.py", "tests/slopes/test_exact.py")
#: Files of much work, longest first. Were one the last, as of few tests it would be, the other workers would wait for it.
LONG = (
    "tests/test_distributions.py",
    "tests/gradients/test_planted.py",
    *TOGETHER,
    "tests/auditing/test_cache.py",
    "tests/spectral/test_rules.py",
    "tests/auditing/test_run.py",
    "tests/test_recipes.py",
    "tests/openvino/test_openvino.py",
    "tests/auditing/test_isolation.py",
    "tests/gpu/test_check.py",
    "tests/fuzz/test_slice.py",
    "tests/slopes/test_dithering.py",
    "tests/spectral/test_compose.py",
)


def long_first(items: list[pytest.Item]) -> None:
    """Order tests, in place: files of `LONG` as they stand there, then files by their number of tests; within a file as it was."""
    files = [item.path.relative_to(ROOT).as_posix() for item in items]
    counts = Counter(files)
    places = {file: (LONG.index(file), 0, file) if file in LONG else (len(LONG), -counts[file], file) for file in counts}
    order = sorted(range(len(items)), key=lambda i: places[files[i]])
    items[:] = [items[i] for i in order]


class FilesTogether(LoadFileScheduling):
    """`--dist loadfile`, where the files of `TOGETHER` are one."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return TOGETHER[0] if file in TOGETHER else file
