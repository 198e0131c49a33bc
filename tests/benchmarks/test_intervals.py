"""Small, deterministic parts of the benchmarks of coverage and of the temperature, on the sample models."""

from __future__ import annotations

import pytest

from tests.benchmarks import bench_coverage, bench_temperature
from tests.benchmarks._populations import population
from tests.support import trained

pytestmark = pytest.mark.slow
NAMES = ("digits_mlp", "digits_vit")


@pytest.fixture(scope="module")
def populations(tmp_path_factory):
    folder = tmp_path_factory.mktemp("populations")
    return [population(trained.OURS[name], folder) for name in NAMES]


def test_intervals_cover_the_population(populations):  # 60 draws a model: a standard error of 2 % each, 5 % is three of both
    raw, calibrated = ({name: bench_coverage.Tally() for name in bench_coverage.STATISTICS} for _ in range(2))
    for one in populations:
        bench_coverage.simulated(one, 64, 60, raw, calibrated)
    for tallies in (raw, calibrated):
        for name, tally in tallies.items():
            assert tally.draws == 120
            assert tally.low_above + tally.high_below <= 0.1 * tally.draws, name
        assert tallies["median"].given > 60
    assert raw["mean"].given < 12, "few samples carry the means of these models"


def test_a_wrong_temperature_is_in_the_intervals(populations):  # 7 % and 2.5 % of 60 subsets, and two standard errors
    for one in populations:
        seen = bench_temperature.counted(one, 60)
        assert seen["values"] > 1000
        assert seen["values off"] <= 0.12 * seen["values"]
        assert seen["wrong pass"] + seen["wrong fail"] <= 0.025 * seen["gates"]
