"""Where a model is to run: providers in order of preference, what was set for them, and how they compute."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Hardware:
    """What a person asked for.

    Attributes:
        providers: As in `providers.provider_names`, in order of preference.
        require: Raise instead of falling back.
        tf32: Allow TF32 on NVIDIA cards (10 bits of mantissa: differences then resolve nothing below about 1e-3).
    """

    providers: tuple[str, ...] = ("auto",)
    require: bool = False
    tf32: bool = False

    def on(self, provider: str) -> Hardware:
        """The same on one provider alone: for graphs of ours that go where the model went."""
        return replace(self, providers=(provider,), require=False)


#: CUDA where it loads, else the CPU.
ANY = Hardware()
