"""Who guarantees a length, and who found a move: what the ends of a bracket name, and how texts call them."""

from __future__ import annotations

VERIFIER, LOCAL, WEIGHTS = "verifier", "local bounds", "weights"
FLIP, ATTACK, COUNTEREXAMPLE = "flip", "attack", "counterexample"
#: Those that guarantee, in words.
GUARANTORS = {VERIFIER: "the verifier", LOCAL: "the local bounds", WEIGHTS: "the weights"}
