"""Functions of `scipy.special`, which is imported when the first of them is called: its import takes longer than many an audit.

They are scipy's own, with its arguments and values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def _late(name: str) -> Callable[..., Any]:
    def called(*args: Any, **kwargs: Any) -> Any:
        from scipy import special

        return getattr(special, name)(*args, **kwargs)

    called.__name__ = called.__qualname__ = name
    called.__doc__ = f"`scipy.special.{name}`."
    return called


betainc = _late("betainc")
betaincinv = _late("betaincinv")
expit = _late("expit")
gammaincinv = _late("gammaincinv")
log_softmax = _late("log_softmax")
logsumexp = _late("logsumexp")
ndtr = _late("ndtr")
ndtri = _late("ndtri")
stdtr = _late("stdtr")
stdtrit = _late("stdtrit")
