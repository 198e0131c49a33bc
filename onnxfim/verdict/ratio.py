"""The ratio of two means over the same samples, with an interval that holds where few samples carry the means."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np

from onnxfim.record import streams
from onnxfim.record.decision import Aggregate
from onnxfim.record.special import stdtr, stdtrit
from onnxfim.record.statistics import Z95, clopper_pearson

Array: TypeAlias = np.ndarray[Any, Any]

_LEVEL = 0.975
_EQUAL = 1e-9  # relative: values that differ by less are the same value


@dataclass(frozen=True)
class Column:
    """One measure over n samples of an audit.

    Attributes:
        indices: Positions of the samples in the data, (n,).
        values: Estimates, (n,).
        noise: Standard deviations of their logarithms, (n,).
        replicates: Pseudo-values by group of directions as multiples of the value, (n, groups); NaN where there are none.
        shifted: Calibrated values at the ends of the temperature's 95 % interval, (n, 2); None where it has no error.
        influences: What each labelled sample adds to the error of ln T, (N,).
    """

    indices: Array
    values: Array
    noise: Array
    replicates: Array
    shifted: Array | None = None
    influences: Array = field(default_factory=lambda: np.empty(0))

    def at(self, positions: Array) -> Column:
        """The samples at ``positions``."""
        return Column(
            self.indices[positions], self.values[positions], self.noise[positions], self.replicates[positions],
            None if self.shifted is None else self.shifted[positions], self.influences,
        )  # fmt: skip

    @property
    def temperature_error(self) -> Array:
        """What each labelled sample adds, through the temperature, to the error of the mean's logarithm, (N,).

        The elasticity of the mean is that towards the end of the temperature's interval where the mean moves further.
        """
        if self.shifted is None:
            return np.zeros(len(self.influences))
        half = Z95 * float(np.linalg.norm(self.influences))
        moves = np.log(np.maximum(self.shifted.mean(axis=0), 1e-300) / self.values.mean())  # (2,), down and up
        further = int(np.abs(moves).argmax())
        return np.asarray(self.influences * moves[further] * (1 if further else -1) / half) if half > 0 else 0 * self.influences


@dataclass(frozen=True)
class Ratio:
    """A ratio of means on the log scale.

    Attributes:
        log: Logarithm of the ratio.
        error: Standard error of ``log``, sampling and noise together.
        freedom: Degrees of freedom of ``error``.
        half: Half-width of the 95 % interval of ``log``.
        half_here: The same with the noise alone: for these very samples.
        temperature: Standard error of ``log`` that comes from the temperatures; it is in all of the above.
    """

    log: float
    error: float
    freedom: float
    half: float
    half_here: float
    temperature: float = 0.0

    def interval(self) -> Aggregate:
        """The ratio as a statistic over a population of samples."""
        method = f"paired log-ratio, {self.freedom:.1f} degrees of freedom" if self.half > 0 else "all samples are equal"
        return Aggregate(math.exp(self.log), math.exp(self.log - self.half), _exp(self.log + self.half), 0.95, method)

    def interval_here(self) -> Aggregate:
        """The ratio on these samples."""
        ends = math.exp(self.log - self.half_here), _exp(self.log + self.half_here)
        method = "noise of the estimates and error of the temperatures" if self.temperature else "noise of the estimates alone"
        return Aggregate(math.exp(self.log), *ends, 0.95, method)


def ratio_of_means(now: Column, then: Column, *, paired: bool) -> Ratio:
    """The ratio of two means over samples measured twice.

    The linearised log-ratio is ``Σ (u_i − v_i)`` with shares ``u = a/Σa``, ``v = b/Σb``. Its variance is that of a weighted
    mean of per-sample log-ratios with weights ``w = (u + v)/2``, each squared residual divided by its expectation under equal
    variances, so that it is unbiased there whatever the weights; the degrees of freedom are Satterthwaite's under the same
    model. Few samples that carry the means so give a wide interval, not a wrong one. Noise of the estimates is in the
    residuals; where it is independent between a and b, the interval is never narrower than that noise makes it.

    The noise alone is that of independent estimates, or, for a pair that shares its directions, that of the differences of the
    jackknife's pseudo-values, group by group: what the two share cancels there. The temperatures' errors, which all samples of an
    audit share, are added in quadrature; what the same labelled samples do to both temperatures cancels as far as it is the same.

    Args:
        now, then: The same samples, in the same order; positive values.
        paired: Whether the two share directions and step.

    Source: Bell & McCaffrey (2002), Survey Methodology 28(2), for the correction and the degrees of freedom.
    """
    a, b = now.values, then.values
    u, v = a / a.sum(), b / b.sum()
    log = math.log(a.mean() / b.mean())
    if paired and np.allclose(a, b, rtol=_EQUAL, atol=0):
        return Ratio(log, 0.0, math.inf, 0.0, 0.0)
    return _with_temperatures(_at_temperatures(log, now, then, u, v, paired=paired), now, then)


def _at_temperatures(log: float, now: Column, then: Column, u: Array, v: Array, *, paired: bool) -> Ratio:
    """The ratio at the temperatures as they were fitted."""
    noise = noise_of_log_ratio(now, then, u, v, paired=paired)
    if len(u) < 2:
        return Ratio(log, noise, 1.0, float(stdtrit(1.0, _LEVEL)) * max(noise, 0.01), noise)
    w = (u + v) / 2
    expected = np.maximum(1 - 2 * w + (w**2).sum(), 1e-9)  # of a squared residual, in units of w²
    error = math.sqrt(float(((u - v) ** 2 / expected).sum()))
    freedom = _freedom(w, expected)
    spread = float(stdtrit(freedom, _LEVEL)) * error
    if paired:
        # The residuals hold the noise as well; neither measure of it may make the wider interval the narrower one.
        return Ratio(log, error, freedom, max(spread, noise), noise)
    return Ratio(log, max(error, noise / Z95), freedom, max(spread, noise), noise)


def _with_temperatures(ratio: Ratio, now: Column, then: Column) -> Ratio:
    """The ratio with the temperatures' errors in its intervals."""
    one, other = now.temperature_error, then.temperature_error
    error = float(np.linalg.norm(one - other) if one.shape == other.shape else math.hypot(*map(np.linalg.norm, (one, other))))
    return replace(
        ratio,
        error=math.hypot(ratio.error, error),
        half=math.hypot(ratio.half, Z95 * error),
        half_here=math.hypot(ratio.half_here, Z95 * error),
        temperature=error,
    )


def noise_of_log_ratio(now: Column, then: Column, u: Array, v: Array, *, paired: bool) -> float:
    """Half-width of the log-ratio's 95 % interval that the estimates' noise alone makes."""
    independent = u**2 * now.noise**2 + v**2 * then.noise**2  # (n,)
    if not paired or now.replicates.shape != then.replicates.shape:
        return Z95 * math.sqrt(float(independent.sum()))
    groups = now.replicates.shape[1]
    apart = u[:, None] * now.replicates - v[:, None] * then.replicates  # (n, groups)
    known = np.isfinite(apart).all(axis=1) & (groups > 1)
    if not known.any():
        return Z95 * math.sqrt(float(independent.sum()))
    variance = np.where(known, 0.0, independent)
    variance[known] = apart[known].var(axis=1, ddof=1) / groups
    total = float(variance.sum())
    # In shares of the total, so that tiny variances do not underflow.
    freedom = (groups - 1) / float(((variance / total) ** 2).sum()) if total > 0 else math.inf
    return float(stdtrit(min(freedom, 1e9), _LEVEL)) * math.sqrt(total)


def _freedom(w: Array, expected: Array) -> float:
    """Satterthwaite's degrees of freedom of ``rᵀQr``, ``Q = (I − w1ᵀ) diag(g) (I − 1wᵀ)``, ``g = w²/expected``."""
    g = w**2 / expected
    total, ww, gg, wg = g.sum(), (w**2).sum(), (g**2).sum(), (w * g).sum()
    trace = total - 2 * wg + total * ww
    square = (
        gg + 2 * ww * gg + 2 * wg**2 + (total * ww) ** 2 - 4 * (g**2 * w).sum() + 2 * total * (g * w**2).sum() - 4 * total * wg * ww
    )
    return float(max(trace**2 / square, 1.0)) if square > 0 else 1.0


def p_value(a: Array, b: Array, counts: Array, *, temperature: float = 0.0) -> float:
    """Two-sided p-value of equal means over the same samples.

    The larger of two: the paired bootstrap-t one, from resamples of the samples, and Student's with the degrees of freedom of
    `ratio_of_means`, which does not trust a bootstrap where few samples carry the means.

    Args:
        a, b: Values of the same samples, (n,) each.
        counts: How often each resample holds each sample, (replicates, n).
        temperature: Standard error of the log-ratio that comes from the temperatures.
    """
    if np.allclose(a, b, rtol=_EQUAL, atol=0):
        return 1.0
    if len(a) < 2:
        return 1.0
    ratio = ratio_of_means(_exact(a), _exact(b), paired=True)
    error = math.hypot(ratio.error, temperature)
    if error < 1e-12:
        return 1.0 / (len(counts) + 1)
    student = 2 * float(stdtr(ratio.freedom, -abs(ratio.log) / error))
    u, v = a / a.sum(), b / b.sum()
    sums = counts @ np.stack([u, v, u * u, u * v, v * v], axis=1)  # (replicates, 5)
    good = (sums[:, 0] ** 2 > 0) & (sums[:, 1] ** 2 > 0)  # squares: below 1e-162 they are 0
    A, B, AA, AB, BB = sums[good].T
    squares = AA / A**2 - 2 * AB / (A * B) + BB / B**2
    plain = math.sqrt(float(((u - v) ** 2).sum()))
    errors = np.sqrt(np.maximum(squares, (1e-3 * plain) ** 2))
    bootstrap = float((np.abs(np.log(A / B)) / errors >= abs(ratio.log) / plain).sum() + 1) / (len(A) + 1)
    return min(max(bootstrap, student), 1.0)


def resamples(n: int, replicates: int, seed: int) -> Array:
    """How often each of ``replicates`` resamples holds each of n samples, (replicates, n)."""
    rng = np.random.default_rng([seed, streams.VERDICT])
    return rng.multinomial(n, np.full(n, 1 / n), size=replicates).astype(np.float32)


def share(hits: int, n: int) -> Aggregate:
    """A share of n samples with its exact 95 % interval."""
    low, high = clopper_pearson(hits, n)
    return Aggregate(hits / n, low, high, 0.95, "exact binomial")


def moved(a: Array, b: Array) -> tuple[int, int]:
    """How many samples rose and how many fell from b to a; equal ones count as neither."""
    change = np.where(np.isclose(a, b, rtol=_EQUAL, atol=0), 0.0, a - b)
    return int((change > 0).sum()), int((change < 0).sum())


def _exact(values: Array) -> Column:
    """A column without noise."""
    none = np.zeros(len(values))
    return Column(np.arange(len(values)), values, none, np.empty((len(values), 0)))


def _exp(x: float) -> float:
    return math.exp(min(x, 700.0))
