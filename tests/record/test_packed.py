import dataclasses
import struct
from dataclasses import replace

import numpy as np
import pytest

from onnxfim.record.fitting import Misfit
from onnxfim.record.packed import layout_of, packed, unpacked
from onnxfim.record.sample import KLCurve, KLPoint, LeadingFeature, SampleResult
from tests.support.audits import VARIANTS

SAMPLES = tuple(sample for name in sorted(VARIANTS) for sample in VARIANTS[name]().samples[:2])
RICH = replace(
    SAMPLES[0], confidence=1 / 3, unchanged=5e-324, top_eigenvalues=(1e300, 0.1, -0.0), leading_feature=LeadingFeature(3, 0.25, 1.0),
    kl_curve=KLCurve((KLPoint(0.1, 0.2, 0.3, 0.4, 0.5), KLPoint(1.0, 0.1, 0.1, 0.1, 0.1)), None, 1.0), name="ü\n",
)  # fmt: skip


@pytest.mark.parametrize("sample", [*SAMPLES, RICH])
def test_a_record_comes_back_bit_by_bit(sample):
    found = unpacked(SampleResult, packed(sample))
    assert found == sample
    assert repr(found) == repr(sample)  # -0.0 too


def test_numbers_of_numpy_come_back_as_plain_ones():
    odd = replace(RICH, index=np.int64(7), unchanged=np.float32(0.5), confidence=np.float64(0.1))
    assert repr(unpacked(SampleResult, packed(odd))) == repr(replace(RICH, index=7, unchanged=0.5, confidence=0.1))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_not_packed(value):
    assert packed(replace(RICH, lambda_max=replace(RICH.lambda_max, value=value))) is None


def test_whatever_is_cut_is_refused():
    content = packed(RICH)
    for end in range(len(content)):
        with pytest.raises(Misfit):
            unpacked(SampleResult, content[:end])


def test_whatever_is_changed_is_refused_or_another_record():
    content = packed(RICH)
    refused = 0
    for at in range(len(content)):
        for byte in (0, 0x5B, 0x72, 0x74, 0xFF):
            try:
                found = unpacked(SampleResult, content[:at] + bytes([byte]) + content[at + 1 :])
            except Misfit:
                refused += 1
            else:
                assert isinstance(found, SampleResult)
    assert refused > len(content)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\x80\x04N.", struct.pack("<II", 2**32 - 1, 2**32 - 1), struct.pack("<II", 1, 0) + b"r[]",
        struct.pack("<II", 1, 0) + b"t[1000000000000]", struct.pack("<II", 1, 0) + b"t[-1]", struct.pack("<II", 1, 0) + b"x[]",
        struct.pack("<II", 1, 0) + b"v" + b"[" * 100_000, struct.pack("<II", 1, 0) + b"v{}", struct.pack("<II", 1, 0) + b'v["a"]',
    ],
    ids=["empty", "pickle", "long", "no fields", "a long list", "a negative length", "mark", "deep", "object", "text"],
)  # fmt: skip
def test_what_is_no_record_is_refused(content):
    with pytest.raises(Misfit):
        unpacked(SampleResult, content)


def test_a_layout_names_the_fields_of_the_records_within():
    before = dataclasses.make_dataclass("Sample", [("index", int), ("curve", KLCurve | None)])
    after = dataclasses.make_dataclass("Sample", [("index", int), ("curve", KLCurve | None), ("lengths", tuple[KLPoint, ...])])
    assert layout_of(before) == "(index curve(points(epsilon along against random quadratic) holds_to flips_at))"
    assert layout_of(after) == layout_of(before)[:-1] + " lengths(epsilon along against random quadratic))"
