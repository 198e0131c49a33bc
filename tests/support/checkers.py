"""Programs of the development extra that check files of CI."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from tests.support.places import DEV, GIT

# The tools that came with this Python, before those of the system.
PATH = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])


def run(name: str, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a tool of the development extra, or git; where it is absent the test is skipped."""
    program = shutil.which(name, path=PATH)
    if program is None:
        (GIT if name == "git" else DEV).skip()
    environment = {**os.environ, "PATH": PATH, **options.pop("env", {})}
    return subprocess.run(
        [str(program), *map(str, arguments)], capture_output=True, text=True, check=False, env=environment, **options
    )


def fits(schema: str, *files: Path) -> subprocess.CompletedProcess[str]:
    """Hold files against the schema of their host."""
    return run("check-jsonschema", "--builtin-schema", f"vendor.{schema}", "--default-filetype", "yaml", *files)


def audited(*paths: object) -> subprocess.CompletedProcess[str]:
    """Look for what makes workflows unsafe."""
    return run("zizmor", "--offline", "--no-progress", "--quiet", *paths)
