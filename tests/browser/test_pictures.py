"""Screenshots: both colour schemes and a phone show a page and not a blank; they stay in the test's folder to be looked at."""

import io

import pytest

from tests.support.places import DEV

pytest.importorskip("selenium", reason=DEV.reason)

from tests.browser.browser import DESKTOP, PHONE

image = DEV.load("PIL.Image")

LOOKS = {"light": (DESKTOP, "light"), "dark": (DESKTOP, "dark"), "phone": (PHONE, "light"), "phone-dark": (PHONE, "dark")}


def luminance(colour):
    """Relative luminance by WCAG 2.2."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("name", ["audit-bound", "audit-hostile", "bounds", "comparison"])
def test_the_picture_shows_a_page(plain, site, tmp_path, name, look):
    size, scheme = LOOKS[look]
    plain.open(site.file(name), size=size, scheme=scheme)
    picture = image.open(io.BytesIO(plain.screenshot(tmp_path / f"{name}-{look}.png").read_bytes())).convert("RGB")
    assert picture.size == size
    colours = sorted(picture.getcolors(maxcolors=1 << 24), reverse=True)
    assert len(colours) > 30
    assert colours[0][0] < 0.95 * size[0] * size[1]  # not one ground with a speck on it
    ground = luminance(colours[0][1])
    assert (ground > 0.8) if scheme == "light" else (ground < 0.05)


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("name", ["audit-bound", "bounds", "comparison"])
def test_body_text_can_be_read(plain, site, name, look):
    size, scheme = LOOKS[look]
    plain.open(site.file(name), size=size, scheme=scheme)
    colours = plain.run(
        "const rgb = c => c.match(/\\d+/g).slice(0, 3).map(Number);"
        "const ink = getComputedStyle(document.querySelector('main p')).color;"
        "return [ink, ...['body', 'main > section'].map(q => getComputedStyle(document.querySelector(q)).backgroundColor)].map(rgb)"
    )
    ink, *grounds = (luminance(c) for c in colours)
    for ground in grounds:
        assert (max(ink, ground) + 0.05) / (min(ink, ground) + 0.05) >= 7
