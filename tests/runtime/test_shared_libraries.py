"""Shared libraries are looked for where the loader looks and in NVIDIA's packages."""

from __future__ import annotations

import sys

import pytest

from onnxfim.runtime import shared_libraries
from onnxfim.runtime.shared_libraries import find_library, library_version


def test_a_missing_library_gives_the_loaders_reason():
    library = find_library("cuDNN", ("libonnxfim_none.so.9", "onnxfim_none.dll"), "cudnnGetVersion")
    assert (library.version, library.file) == (None, None)
    assert "onnxfim_none" in library.reason


@pytest.mark.parametrize(("number", "text"), [(90100, "9.1.0"), (91002, "9.10.2"), (8907, "8.9")])
def test_cudnn_versions_are_read(number, text):
    class Library:
        cudnnGetVersion = staticmethod(lambda: number)  # noqa: N815

    assert library_version(Library, "cudnnGetVersion") == text


@pytest.mark.parametrize("folders", ["cudnn/lib", "cu13/lib", "cu13/bin/x86_64"])
def test_nvidias_packages_are_looked_into(monkeypatch, tmp_path, folders):
    name = "onnxfim_none.dll" if sys.platform == "win32" else "libonnxfim_none.so.9"
    file = tmp_path / "nvidia" / folders / name
    file.parent.mkdir(parents=True)
    file.write_bytes(b"")
    monkeypatch.syspath_prepend(tmp_path)
    tried = []

    def load(path):
        tried.append(path)
        if path != str(file):
            raise OSError(f"{path}: not there")

    monkeypatch.setattr(shared_libraries.ctypes, "CDLL", load)
    assert find_library("cuDNN", (name,)).file == str(file)
    assert tried == [name, str(file)]
