import pytest

from onnxfim.report.numbers import count, interval, number, percent, seconds, short, size, spread


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (1.0, "1.00"),
        (0.9996, "1.00"),
        (12.345, "12.3"),
        (99.96, "100"),
        (1234.5, "1,230"),
        (999_499, "999,000"),
        (999_999, "1.00×10⁶"),
        (0.00123, "0.00123"),
        (0.0009999, "0.00100"),
        (0.000123, "1.23×10⁻⁴"),
        (3.21e-35, "3.21×10⁻³⁵"),
        (5e-324, "4.94×10⁻³²⁴"),
        (-2.5, "−2.50"),
        (None, "not measured"),
    ],
)
def test_three_significant_digits(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.001, "0.001"),
        (0.25, "0.25"),
        (3.0, "3"),
        (20, "20"),
        (1500, "1,500"),
        (1e-4, "10⁻⁴"),
        (3e-4, "3×10⁻⁴"),
        (1e7, "10⁷"),
        (1e-3 * 3, "0.003"),
        (5e-324, "4.94×10⁻³²⁴"),  # no power of ten of it is a float
        (1.7e308, "1.7×10³⁰⁸"),
        (9.9999e-5, "10⁻⁴"),
    ],
)
def test_round_values_have_no_trailing_zeros(value, text):
    assert short(value) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0, "0 %"),
        (1, "100 %"),
        (0.9999, "> 99.9 %"),
        (0.973, "97.3 %"),
        (0.0002, "< 0.1 %"),
        (2.5, "250 %"),
        (-0.05, "−5.0 %"),
        (None, "not measured"),
    ],
)
def test_shares(share, text):
    assert percent(share).replace("\u00a0", " ") == text


def test_small_words():
    assert interval(0.98, 1.412) == "0.980 to 1.41"
    assert interval(None, 1.0) is None
    assert count(1, "sample") == "1 sample"
    assert count(1234, "forward pass", "forward passes") == "1,234 forward passes"
    assert seconds(4.214) == "4.21 s"
    assert seconds(125) == "2 min 5 s"
    assert seconds(7300) == "2 h 1 min"
    assert size(12) == "12 bytes"
    assert size(312_448) == "312 kB"
    assert size(2_500_000_000) == "2.50 GB"


def test_an_interval_that_prints_as_one_number_is_left_out():
    assert spread(137.9999, 138.0001) is None
    assert spread(None, 1.0) is None
    assert spread(137.0, 139.0) == "137 to 139"
