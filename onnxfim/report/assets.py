"""Where a page's style, script and pictures lie: in the page itself, or in a folder beside it for hosts that block inline ones."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol
from urllib.parse import quote

from onnxfim.errors import OutputError
from onnxfim.record.writing import write_bytes


class Assets(Protocol):
    """Places the style sheet, the script and the pictures of one page; ``policy`` is that of a page without a script."""

    policy: ClassVar[str]

    def picture(self, name: str, png: bytes) -> str:
        """The address of a picture, once it is in its place."""

    def style(self, text: str) -> dict[str, str | None]:
        """What the page's head needs of its style sheet: its text, or its address."""

    def script(self, text: str) -> dict[str, str | None]:
        """What it needs of its script: its text, or its address, and the policy that lets this script run and no other."""


class Inline:
    """All in the page."""

    policy: ClassVar[str] = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"

    def picture(self, name: str, png: bytes) -> str:
        return "data:image/png;base64," + base64.b64encode(png).decode("ascii")

    def style(self, text: str) -> dict[str, str | None]:
        return {"style": text, "style_url": None}

    def script(self, text: str) -> dict[str, str | None]:
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
        return {"script": text, "script_url": None, "policy": f"{self.policy}; script-src 'sha256-{digest}'"}


@dataclass(frozen=True)
class Beside:
    """All in a folder, which the page names without its parents: page and folder are kept beside each other."""

    folder: Path
    policy: ClassVar[str] = "default-src 'none'; style-src 'self'; img-src 'self'"

    def picture(self, name: str, png: bytes) -> str:
        return self._save(f"{name}.png", png)

    def style(self, text: str) -> dict[str, str | None]:
        return {"style": None, "style_url": self._save("report.css", text.encode())}

    def script(self, text: str) -> dict[str, str | None]:
        address = self._save("report.js", text.encode())
        return {"script": None, "script_url": address, "policy": f"{self.policy}; script-src 'self'"}

    def _save(self, name: str, content: bytes) -> str:
        path = self.folder / name
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{path}: cannot be written ({error.strerror}). Give a folder that can be.") from error
        write_bytes(path, content)
        return quote(f"{self.folder.resolve().name}/{name}")


def placed(assets_dir: str | Path | None) -> Assets:
    """The assets beside the page in ``assets_dir``, or in the page where it is None."""
    return Inline() if assets_dir is None else Beside(Path(assets_dir))
