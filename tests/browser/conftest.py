from pathlib import Path

import pytest

from tests.support.places import AXE, BROWSER, DEV

SCRIPT = Path(__file__).parent / "node_modules" / "axe-core" / "axe.min.js"


def pytest_collection_modifyitems(items):
    """A page in a browser takes a second or more."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.slow)


def _browser(tmp_path_factory, *, scripts):
    DEV.load("selenium")
    from tests.browser import browser

    found = browser.find()
    if found is None:
        BROWSER.skip()
    with browser.start(*found, tmp_path_factory.mktemp("profile"), scripts=scripts) as tab:
        yield tab


@pytest.fixture(scope="session")
def plain(tmp_path_factory):
    """A browser that blocks every page's scripts."""
    yield from _browser(tmp_path_factory, scripts=False)


@pytest.fixture(scope="session")
def scripted(tmp_path_factory):
    """A browser that lets pages run scripts."""
    yield from _browser(tmp_path_factory, scripts=True)


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    from tests.browser.site import serve

    with serve(tmp_path_factory.mktemp("site")) as found:
        yield found


@pytest.fixture(scope="session")
def axe():
    """The text of axe-core."""
    if not SCRIPT.exists():
        AXE.skip()
    return SCRIPT.read_text(encoding="utf-8")
