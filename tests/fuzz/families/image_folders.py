"""Folders of images: broken ones, odd formats, bombs, links, odd names, folders without end; some good images among them, or none."""

from __future__ import annotations

import contextlib
import io
import os
import stat
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from tests.fuzz.families._odd import NAMES, one
from tests.fuzz.harness import Case
from tests.support.places import SAMPLES

_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"
_MODES = ("L", "RGB", "RGBA", "P", "1", "LA", "CMYK", "YCbCr", "I", "F", "I;16", "PA", "HSV")
_FORMATS = {
    "PNG": ".png",
    "JPEG": ".jpg",
    "BMP": ".bmp",
    "GIF": ".gif",
    "WEBP": ".webp",
    "TIFF": ".tif",
    "PPM": ".ppm",
    "ICO": ".png",
    "TGA": ".png",
    "EPS": ".jpg",
    "PDF": ".png",
}
_BYTES = (b"\xff\xfe", b"\xc3\x28", b"\x80abc", b"\x1b[31m\xff", b"caf\xe9")


def case(rng: np.random.Generator, folder: Path) -> Case:
    """An audit of the trained network of digits on a folder of which something is odd."""
    (folder / "m.onnx").write_bytes((SAMPLES / "digits_mlp.onnx").read_bytes())
    images = folder / "images"
    images.mkdir()
    classes = rng.random() < 0.5
    for k in range(int(one(rng, (0, 2, 3, 3)))):
        _put(images / (f"{k % 2}" if classes else ".") / f"good{k}.png", _encoded(rng, "L", "PNG"))
    notes = [
        _odd(rng, images / (str(one(rng, ("0", "1"))) if classes and rng.random() < 0.8 else "."), images)
        for _ in range(int(one(rng, (1, 1, 2, 3))))
    ]
    options = one(
        rng,
        (
            (), (), (), ("--resize", "8", "--crop", "8"), ("--resize", "8", "--crop", "8"), ("--crop", "4"), ("--resize", "100000"), ("--layout", "NHWC"), ("--input-range", "0,16"),
            ("--mean", "0.5", "--std", "0.25"), ("--samples", "2"), ("--labels", "m.onnx"),
        ),
    )  # fmt: skip
    common = ("--provider", "cpu", "--replay", "0", "--budget", "12", "--no-bounds", "--no-cache", "-o", "json=a.json")
    formats = ("-o", f"{one(rng, ('html', 'csv', 'junit', 'sarif', 'markdown', 'comment'))}=a.out") if rng.random() < 0.3 else ()
    return Case(
        ("audit", "m.onnx", "--data", "images", *options, *common, *formats), f"{'; '.join(notes)}; {' '.join(options)}"[:200]
    )


def _put(path: Path, content: bytes) -> None:
    with contextlib.suppress(OSError, ValueError):  # a name that the file system does not take
        path.parent.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode):  # a pipe or a link of an earlier one
            return
        path.write_bytes(content)


def _encoded(rng: np.random.Generator, mode: str, kind: str, size: tuple[int, int] = (8, 8)) -> bytes:
    pixels = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3)).astype(np.uint8))
    stream = io.BytesIO()
    try:
        image = pixels.convert("L").convert(mode) if mode in ("1", "I", "F", "I;16", "LA", "PA") else pixels.convert(mode)
        image.save(stream, kind)
    except (OSError, ValueError, KeyError):  # not every format has every mode
        return _encoded(rng, "L", "PNG")
    return stream.getvalue()


def _bomb(width: int, height: int) -> bytes:
    """A PNG that announces a huge picture and holds a few bytes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 100_000)) + chunk(b"IEND", b"")


def _animation(rng: np.random.Generator) -> bytes:
    stream = io.BytesIO()
    frames = [Image.fromarray(rng.integers(0, 256, (8, 8)).astype(np.uint8)) for _ in range(3)]
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:])
    return stream.getvalue()


def _odd(rng: np.random.Generator, place: Path, images: Path) -> str:
    """Put one odd thing there; says which."""
    place.mkdir(exist_ok=True)
    path = place / "odd.png"
    good = _encoded(rng, "L", "PNG")
    at = int(rng.integers(len(good)))
    contents = {
        "empty": b"", "cut": good[:at], "a flipped byte": good[:at] + bytes([good[at] ^ 0x55]) + good[at + 1 :], "LFS pointer": _POINTER, "text": b"no image", "zeros": b"\0" * 100, "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "bomb": _bomb(60_000, 60_000), "wide": _bomb(2**31 - 1, 1), "no width": _bomb(0, 8), "beyond": _bomb(2**32 - 1, 2**32 - 1), "animation": _animation(rng), "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n",
        "other size": _encoded(rng, "L", "PNG", (int(rng.integers(1, 20)), int(rng.integers(1, 20)))), "one pixel": _encoded(rng, "L", "PNG", (1, 1)), "thin": _encoded(rng, "L", "PNG", (1, 3000)),
    }  # fmt: skip
    kinds = [*contents, "mode", "name", "bytes of a name", "link inside", "link outside", "dangling link", "ring of links", "link to a folder", "link to the folder itself", "pipe", "folder called .png",
             "empty folders", "deep folders", "hidden", "no suffix", "upper case", "two of a name", "class of odd name", "image beside classes", "unreadable"]  # fmt: skip
    kind = str(rng.choice(kinds))
    if kind in contents:
        _put(path, contents[kind])
    elif kind == "mode":
        mode, form = one(rng, _MODES), one(rng, list(_FORMATS))
        _put(place / f"odd{_FORMATS[form]}", _encoded(rng, mode, form))
        return f"{mode} {form}"
    elif kind == "name":
        name = one(rng, NAMES).replace("/", "_")
        _put(place / f"{name}.png", good)
        return f"name {name[:20]!r}"
    elif kind == "bytes of a name":
        with contextlib.suppress(OSError), open(os.path.join(os.fsencode(place), one(rng, _BYTES) + b".png"), "wb") as file:
            file.write(good)
    elif kind == "class of odd name":
        with contextlib.suppress(OSError, ValueError):
            inside = os.path.join(
                os.fsencode(images), one(rng, (*_BYTES, *(n.replace("/", "_").encode("utf-8", "replace") for n in NAMES[4:])))
            )
            os.makedirs(inside, exist_ok=True)
            with open(os.path.join(inside, b"a.png"), "wb") as file:
                file.write(good)
    elif kind in ("link inside", "link outside", "dangling link", "ring of links", "link to a folder", "link to the folder itself"):
        target = {
            "link inside": "good0.png",
            "link outside": "../../outside/secret.txt",
            "dangling link": "nowhere.png",
            "ring of links": "odd.png",
            "link to a folder": "../..",
            "link to the folder itself": ".",
        }[kind]
        with contextlib.suppress(FileExistsError):
            path.symlink_to(target)
    elif kind == "pipe":
        with contextlib.suppress(FileExistsError):
            os.mkfifo(path)
    elif kind == "folder called .png":
        with contextlib.suppress(FileExistsError):
            path.mkdir()
    elif kind == "empty folders":
        for i in range(1500):
            (images / f"empty{i}").mkdir(exist_ok=True)
    elif kind == "deep folders":
        _deep(images / "deep", good)
    else:
        name = {
            "hidden": ".odd.png",
            "no suffix": "odd",
            "upper case": "ODD.PNG",
            "two of a name": "good0.png",
            "image beside classes": "beside.png",
            "unreadable": "odd.png",
        }[kind]
        where = (images if kind == "image beside classes" else place) / name
        _put(where, good)
        if kind == "unreadable" and where.is_file():
            where.chmod(0)
    return kind


def _deep(folder: Path, content: bytes) -> None:
    """Many folders in one another, with an image at the bottom."""
    folder.mkdir(exist_ok=True)
    before = os.open(".", os.O_RDONLY)
    try:
        os.chdir(folder)
        for _ in range(200):
            os.makedirs("d", exist_ok=True)
            os.chdir("d")
        with open("a.png", "wb") as file:
            file.write(content)
    finally:
        os.chdir(before)
        os.close(before)
