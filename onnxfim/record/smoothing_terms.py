"""What every certificate of a smoothed classifier rests on, whatever is asked for."""

from __future__ import annotations

#: Probability at most that a sample's certificate is wrong: that of Cohen et al. (2019).
ALPHA = 0.001
#: Rows with noise that choose the class, apart from those that bound its probability: as there.
CHOOSING = 100
