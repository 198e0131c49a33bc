"""The errors a user can cause; each message is one line: where, what was found, what was expected, what to do."""

from __future__ import annotations


class OnnxFimError(Exception):
    """Base of every error that onnxfim raises on purpose; the command line prints it as one line and exits 2."""


class ModelError(OnnxFimError):
    """The model file cannot be read, is not a valid ONNX model, or is not a classifier that can be audited."""


class InputError(OnnxFimError):
    """The samples, labels or their preprocessing do not fit the model."""


class SettingsError(OnnxFimError):
    """A setting has a value that cannot be used."""


class ProviderError(OnnxFimError):
    """An execution provider is unknown, or was required and could not be obtained."""


class OutputError(OnnxFimError):
    """A result cannot be written or read back."""


class UnsupportedOperator(OnnxFimError):
    """A graph holds an operator that has no rule for what was asked of it."""


_LONGEST = 300  # of what an exception says


def in_one_line(error: BaseException) -> str:
    """What an exception says, in one line of bounded length; empty where it says nothing or cannot say it."""
    try:
        told = " ".join(str(error).split())
    except Exception:  # noqa: BLE001 - an exception of foreign code whose text fails too
        return ""
    return told if len(told) <= _LONGEST else f"{told[:_LONGEST]}…"


def issue_tracker() -> str:
    """Where to report a defect, in words: the address among the installed package's own, or the project's issue tracker."""
    from importlib.metadata import PackageNotFoundError, metadata

    for package in ("onnxfim", "onnxfim-core"):
        try:
            told = [u.partition(",")[::2] for u in metadata(package).get_all("Project-URL") or ()]
        except PackageNotFoundError:
            continue
        for label, address in told:
            if "issue" in label.lower():
                return f"at {address.strip()}"
    return "to the project's issue tracker"


_LFS = b"version https://git-lfs.github.com/spec/"


def lfs_pointer(head: bytes) -> str | None:
    """What a message says of a file that begins with ``head`` where it is a Git LFS pointer, else None."""
    if not head.startswith(_LFS):
        return None
    return "is a Git LFS pointer and not the file itself. Fetch it with git lfs pull."
