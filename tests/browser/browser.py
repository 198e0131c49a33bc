"""A headless Chromium as the tests see it: pages, what they asked for, what they complained of, how they look."""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",  # containers give it 64 MB
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
)
DESKTOP, PHONE = (1200, 1500), (390, 844)
#: A4 less margins of 1 cm, in CSS pixels.
PAPER = (718, 1047)
_SCRIPTS_BLOCKED = 2


def find() -> tuple[str, str] | None:
    """Paths of Chromium and its driver, or None where either is missing."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    return (chromium, driver) if chromium and driver else None


@dataclass(frozen=True)
class Browser:
    """One tab; what it logs is handed out once."""

    driver: Any

    def open(self, url: str, *, size: tuple[int, int] = DESKTOP, scheme: str = "light", media: str = "screen") -> None:
        """Show ``url`` from its top in a fresh state, as it looks at that size, in that colour scheme, on that medium."""
        self.driver.get("about:blank")
        self._drain()
        self.look(size=size, scheme=scheme, media=media)
        self.driver.get(url)

    def look(self, *, size: tuple[int, int] = DESKTOP, scheme: str = "light", media: str = "screen") -> None:
        """Change size, colour scheme and medium of the page that is open."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.command("Emulation.setEmulatedMedia", media=media, features=features)
        width, height = size
        self.command("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def run(self, script: str, *arguments: Any) -> Any:
        """What the function body ``script`` returns in the page. The page's own scripts may be blocked; this one is not."""
        return self.driver.execute_script(script, *arguments)

    def run_async(self, script: str) -> Any:
        """What ``script`` hands to the callback that is its last argument."""
        return self.driver.execute_async_script(script)

    def press(self, key: str, code: int) -> None:
        """Press and release a key of the keyboard."""
        text = {"text": "\r"} if key == "Enter" else {}
        self.command("Input.dispatchKeyEvent", type="keyDown", key=key, code=key, windowsVirtualKeyCode=code, **text)
        self.command("Input.dispatchKeyEvent", type="keyUp", key=key, code=key, windowsVirtualKeyCode=code)

    def complaints(self) -> list[str]:
        """Messages of the console since the page was opened, refused styles and pictures among them."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Addresses that the page asked for since it was opened: none that names its content itself, nor the tab's icon."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        sent = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
        return [url for url in sent if not url.startswith(("data:", "about:")) and not url.endswith("/favicon.ico")]

    def screenshot(self, path: Path) -> Path:
        """Save what the window shows as PNG."""
        path.write_bytes(base64.b64decode(self.command("Page.captureScreenshot", format="png")["data"]))
        return path

    def pdf(self) -> bytes:
        """The page printed as its own style wants it, on A4."""
        self.command("Emulation.setEmulatedMedia", media="", features=[])  # else it prints what a screen shows
        self.command("Emulation.clearDeviceMetricsOverride")
        printed = self.command("Page.printToPDF", preferCSSPageSize=True, printBackground=False)
        return base64.b64decode(printed["data"])

    def command(self, name: str, **parameters: Any) -> Any:
        """Send a command of the DevTools protocol."""
        return self.driver.execute_cdp_cmd(name, parameters)

    def _drain(self) -> None:
        self.complaints()
        self.requests()


@contextmanager
def start(chromium: str, driver: str, profile: Path, *, scripts: bool) -> Iterator[Browser]:
    """A browser with an empty profile that ends with the block; ``scripts=False`` blocks those of every page."""
    os.environ.update(SE_OFFLINE="true", SE_AVOID_STATS="true")  # both paths are given: nothing is to be looked up
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    if not scripts:
        options.add_experimental_option("prefs", {"profile.managed_default_content_settings.javascript": _SCRIPTS_BLOCKED})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    tab = webdriver.Chrome(options=options, service=Service(executable_path=driver))
    try:
        tab.set_script_timeout(60)
        yield Browser(tab)
    finally:
        tab.quit()
