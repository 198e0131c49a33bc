"""Where a model is to run: providers in order of preference, what was set for them, and how they compute."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from onnxfim.errors import ProviderError
from onnxfim.runtime.providers import _CUDA, _TENSORRT, CPU, available_providers, device_asked, provider_names

#: What runs the graphs that stand beside a model: compilers of whole graphs hand those that change with the batch to CUDA.
_BESIDE = {_TENSORRT: _CUDA, "NvTensorRTRTXExecutionProvider": _CUDA}
#: The option that a device after a provider's name stands for, where it is not ``device_id``.
_DEVICE_OPTION = {"OpenVINOExecutionProvider": "device_type"}


@dataclass(frozen=True)
class InputProfile:
    """Which shapes of an input a compiler of whole graphs must expect.

    Attributes:
        name: The input.
        shape: Shape of one sample.
        usual: Rows of most calls.
        most: Rows of the largest call.
    """

    name: str
    shape: tuple[int, ...]
    usual: int
    most: int

    def of(self, rows: int) -> str:
        """The input at a number of rows, as TensorRT's options spell it: ``x:8x3x224x224``."""
        return f"{self.name}:{'x'.join(map(str, (rows, *self.shape)))}"


@dataclass(frozen=True)
class Hardware:
    """What a person asked for.

    Attributes:
        providers: As in `providers.provider_names`, in order of preference.
        require: Raise instead of falling back.
        tf32: Allow TF32 on NVIDIA cards (10 bits of mantissa: differences then resolve nothing below about 1e-3).
        options: Options of the providers, key and value; a key may name its provider before a colon (``cuda:device_id``), any other
            is the first provider's.
        libraries: Plug-in providers' libraries, name and path.
        engines: Folder in which compilers of whole graphs may keep what they built, or None.
        profile: The shapes that the model is called with, where its batch is free.
        custom_operators: Libraries of custom operators that sessions are opened with.
        spinning: Threads of ONNX Runtime's pool that wait may spin: the least delay where the cores are theirs alone.
    """

    providers: tuple[str, ...] = ("auto",)
    require: bool = False
    tf32: bool = False
    options: tuple[tuple[str, str], ...] = ()
    libraries: tuple[tuple[str, str], ...] = ()
    engines: Path | None = None
    profile: InputProfile | None = None
    custom_operators: tuple[str, ...] = ()
    spinning: bool = True

    @property
    def names(self) -> tuple[str, ...]:
        """Full names of the providers, in order; CUDA comes after TensorRT, which leaves to it what it does not take.

        Raises:
            ProviderError: a name that nobody knows.
        """
        found: list[str] = []
        for name in provider_names(self.providers, self.libraries):
            found.append(name)
            if name in _BESIDE and _CUDA in available_providers():
                found.append(_CUDA)
        return tuple(dict.fromkeys(found))

    @property
    def named(self) -> tuple[str, ...]:
        """Full names of those that a person named."""
        return provider_names([p for p in self.providers if p.lower() != "auto"], self.libraries)

    @property
    def asked(self) -> Mapping[str, Mapping[str, str]]:
        """Options that a person gave, by the provider's full name.

        Raises:
            ProviderError: an option of a provider that is not asked for, or one that is given twice.
        """
        names = self.names
        found: dict[str, dict[str, str]] = {}
        for spelled in self.providers:
            _, device = device_asked(spelled)
            if device is not None:
                (name,) = provider_names([spelled], self.libraries)
                _put(found.setdefault(name, {}), _DEVICE_OPTION.get(name, "device_id"), device, spelled)
        for key, value in self.options:
            spelled, _, rest = key.rpartition(":")
            name = names[0] if not spelled else provider_names([spelled], self.libraries)[0]
            if name not in names:
                raise ProviderError(
                    f"provider option {key}={value}: {name} is not among the providers asked for ({', '.join(names)}). "
                    f"Ask for it with --provider {spelled}, or drop the option."
                )
            _put(found.setdefault(name, {}), rest, value, f"{key}={value}")
        for name, beside in _BESIDE.items():  # what one leaves to the other lies on the same device
            if "device_id" in found.get(name, {}) and beside in names:
                found.setdefault(beside, {}).setdefault("device_id", found[name]["device_id"])
        return found

    @property
    def device(self) -> tuple[str, int]:
        """Kind and number of the device in whose memory the first provider's rows lie, as ONNX Runtime names it."""
        if self.names[0] != _CUDA:
            return "cpu", 0
        number = self.asked.get(_CUDA, {}).get("device_id", "0")
        return "cuda", int(number) if number.isdecimal() else 0

    def on(self, provider: str) -> Hardware:
        """The same on one provider alone: for graphs of ours that go where the model went.

        Under TensorRT they run on CUDA, on the same device: their batches vary, and each would be another engine.
        """
        target = _BESIDE.get(provider, provider)
        target = target if target in available_providers() else provider
        own = tuple(self.asked.get(target, {}).items())
        return replace(self, providers=(target,), require=False, options=own, engines=None, profile=None)

    @property
    def of_rows(self) -> Hardware:
        """Where rows are made: on the card where they lie there, else on the CPU, whose arithmetic no option makes coarser."""
        own = replace(self, custom_operators=())
        return own if own.device[0] == "cuda" else replace(own, providers=(CPU,), options=())


def _put(options: dict[str, str], key: str, value: str, spelled: str) -> None:
    """Add an option.

    Raises:
        ProviderError: it is there already with another value.
    """
    if options.setdefault(key, value) != value:
        raise ProviderError(f"provider option {spelled}: {key} is {options[key]} already. Give it once.")


#: CUDA where it loads, else the CPU.
ANY = Hardware()
