import io

import numpy as np
import pytest
from PIL import Image

from onnxfim.record.audit import Thumbnail
from onnxfim.report.thumbnails import display_size, png


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", [(8, 8), (28, 28), (1, 5), (112, 7)])
def test_a_decoder_reads_back_every_pixel(shape, channels):
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, channels))
    thumbnail = Thumbnail(0, *shape, channels, tuple(int(v) for v in pixels.ravel()))
    picture = Image.open(io.BytesIO(png(thumbnail)))
    assert picture.mode == ("L" if channels == 1 else "RGB")
    assert np.array_equal(np.asarray(picture).reshape(*shape, channels), pixels)


def test_large_pictures_are_reduced_by_block_means():
    pixels = np.zeros((224, 223, 1), int)
    pixels[:, 100:] = 200
    thumbnail = Thumbnail(0, 224, 223, 1, tuple(int(v) for v in pixels.ravel()))
    picture = np.asarray(Image.open(io.BytesIO(png(thumbnail))))
    assert picture.shape == (112, 112)
    assert (picture[:, :50] == 0).all()
    assert (picture[:, 50:] == 200).all()


@pytest.mark.parametrize(
    ("shape", "size"), [((8, 8), (112, 112)), ((28, 28), (112, 112)), ((32, 32), (96, 96)), ((8, 16), (112, 56))]
)
def test_pixels_stay_square_and_whole(shape, size):
    assert display_size(Thumbnail(0, *shape, 1, (0,) * (shape[0] * shape[1]))) == size
