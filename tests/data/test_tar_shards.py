"""Shards as WebDataset writes them: what is a sample, what is skipped, what is refused; nothing is extracted."""

from __future__ import annotations

import io
import json
import os
import random
import tarfile

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from onnxfim.data import load
from onnxfim.data import tar_index as index_module
from onnxfim.errors import InputError
from tests.support.places import DEV

X = np.random.default_rng(0).normal(size=(9, 2, 3)).astype(np.float32)


def array(x):
    sink = io.BytesIO()
    np.save(sink, x)
    return sink.getvalue()


def picture(value, size=(4, 5), kind="PNG"):
    sink = io.BytesIO()
    DEV.load("PIL.Image").fromarray(np.full(size, value, np.uint8)).save(sink, kind)
    return sink.getvalue()


def member(name, content=b"", kind=tarfile.REGTYPE, **also):
    info = tarfile.TarInfo(name)
    info.size, info.type = len(content), kind
    for key, value in also.items():
        setattr(info, key, value)
    return info, content


@pytest.fixture
def shard(tmp_path):
    def write(members, name="x.tar", **how):
        with tarfile.open(tmp_path / name, "w", **how) as archive:
            for one in members:
                info, content = member(*one) if isinstance(one[0], str) else one
                archive.addfile(info, io.BytesIO(content) if content else None)
        return tmp_path / name

    return write


def usual(count=4, first=0):
    return [
        (f"{k:03}.{end}", content)
        for k in range(first, first + count)
        for end, content in (("npy", array(X[k])), ("cls", b"%d" % (k % 3)))
    ]


def test_arrays_with_their_labels(shard):
    found = load(shard(usual()), shape=(2, 3))
    assert_array_equal(found.inputs, X[:4])
    assert found.labels.tolist() == [0, 1, 2, 0]
    assert found.names == ("000", "001", "002", "003")
    assert not found.skipped
    assert found.source.endswith("x.tar: 4 of 4 samples")


def test_the_same_numbers_have_the_hash_that_they_have_in_an_archive_of_numpy(shard, tmp_path):
    np.savez(tmp_path / "x.npz", inputs=X[:4], labels=np.array([0, 1, 2, 0]))
    assert load(shard(usual()), shape=(2, 3)).sha256 == load(tmp_path / "x.npz", shape=(2, 3)).sha256


def test_pictures_of_any_kind_in_folders(shard):
    members = [
        ("train/a.jpg", picture(7, kind="JPEG")),
        ("train/a.cls", b"1\n"),
        ("train/b.PNG", picture(9)),
        ("train/b.cls", b"0"),
    ]
    found = load(shard(members), shape=(1, 4, 5))
    assert np.round(255 * found.inputs[:, 0, 0, 0]).tolist() == [7, 9]
    assert (found.labels.tolist(), found.names, found.by_class) == ([1, 0], ("train/a", "train/b"), True)


@pytest.mark.parametrize(
    ("end", "content", "want"),
    [
        ("cls", b"2", 2),
        ("cls", b" 2\n", 2),
        ("json", b'{"label": 2}', 2),
        ("json", b'{"x": 1, "Class": "2"}', 2),
        ("json", b"2", 2),
        ("json", b'{"other": 2}', None),
        ("json", b'{"label": true}', None),
        ("json", b'{"label": [2]}', None),
        ("json", b"{", "is no JSON"),
        ("cls", b"\xff", "is not UTF-8 text"),
        ("cls", b"", None),
        ("txt", b"2", None),
    ],
)
def test_where_a_label_stands(shard, end, content, want):
    found = load(shard([*usual(3), ("5.npy", array(X[5])), (f"5.{end}", content)]), shape=(2, 3))
    if isinstance(want, int):
        assert found.labels.tolist() == [0, 1, 2, want]
    else:
        (left_out,) = found.skipped
        assert (want or "has no label") in left_out.reason


def test_a_label_under_another_name(shard):
    members = [
        (f"{k}.{end}", content)
        for k in range(3)
        for end, content in (("npy", array(X[k])), ("json", json.dumps({"age": k, "label": 0}).encode()))
    ]
    path = shard(members)
    assert load(path, shape=(2, 3), label_column="age").labels.tolist() == [0, 1, 2]
    with pytest.raises(InputError, match="no sample has a label called 'height'"):
        load(path, shape=(2, 3), label_column="height")


def test_words_are_in_the_alphabets_order_of_all_that_there_are(shard):
    members = [
        (f"{k}.{end}", content)
        for k, word in enumerate(("dog", "cat", "emu", "dog"))
        for end, content in (("npy", array(X[k])), ("cls", word.encode()))
    ]
    found = load(shard(members), shape=(2, 3))
    assert (found.class_names, found.labels.tolist(), found.classes_guessed) == (("cat", "dog", "emu"), [1, 0, 2, 1], True)
    some = load(shard(members), shape=(2, 3), limit=2)
    assert some.class_names == found.class_names
    assert load(shard(members), shape=(2, 3), class_names=["emu", "dog", "cat"]).labels.tolist() == [1, 2, 0, 1]


def test_without_labels(shard):
    found = load(shard([(f"{k}.npy", array(X[k])) for k in range(3)]), shape=(2, 3))
    assert found.labels is None


class TestSeveralShards:
    @pytest.fixture(autouse=True)
    def three(self, shard):
        for k in range(3):
            shard(usual(3, 3 * k), name=f"s-{k:02}.tar")

    @pytest.mark.parametrize("name", ["s-{00..02}.tar", "", "s-{0..0}{0..2}.tar"])
    def test_a_pattern_and_a_folder(self, tmp_path, name):
        found = load(tmp_path / name, shape=(2, 3))
        assert_array_equal(found.inputs, X)
        assert found.names[4] == "s-01.tar/004"

    def test_a_draw_is_over_all(self, tmp_path):
        found = load(tmp_path, shape=(2, 3), limit=4)
        assert len(found) == 4
        assert_array_equal(found.inputs, X[found.indices])

    @pytest.mark.parametrize(
        ("name", "told"),
        [
            ("s-{00..04}.tar", r"2 of 5 shards are not there \(the first, .*s-03.tar\)"),
            ("s-{2..1}.tar", "stands for 0 shards"),
            ("s-{0..999999}.tar", "stands for 1,000,000 shards"),
            ("s-{0..999}{0..999}.tar", "stands for 1,000,000 shards"),
            ("s-07.tar", "no such file"),
            ("s-00.tar.gz", "compressed archive, in which no sample can be read at its place"),
        ],
    )
    def test_what_is_not_there(self, tmp_path, name, told):
        with pytest.raises(InputError, match=told):
            load(tmp_path / name, shape=(2, 3))

    def test_a_shard_is_one_of_the_pattern(self, tmp_path):
        pattern = str(tmp_path / "s-{00..04}.tar")
        assert index_module.stands_for(pattern, str(tmp_path / "." / "s-01.tar"))
        for other in ("s-04.tar", "t.tar"):
            assert not index_module.stands_for(pattern, str(tmp_path / other))
        assert not index_module.stands_for(str(tmp_path / "s-01.tar"), str(tmp_path / "s-01.tar"))

    def test_a_folder_of_other_things_is_what_it_was(self, tmp_path):
        (tmp_path / "cats").mkdir()
        (tmp_path / "cats" / "1.png").write_bytes(picture(3))
        assert len(load(tmp_path, shape=(1, 4, 5))) == 1


@pytest.mark.parametrize(
    ("members", "told"),
    [
        ([("8.cls", b"1")], "8 has no array"),
        ([("8.npy", array(X[8]))], "8 has no label"),
        ([("8.npy", array(X[8])), ("8.npy", array(X[8])), ("8.cls", b"1")], "8.npy comes twice"),
        ([("8.a.npy", array(X[8])), ("8.b.npy", array(X[8])), ("8.cls", b"1")], "8: holds a.npy, b.npy, expected one"),
        ([member("8.npy", kind=tarfile.SYMTYPE, linkname="/etc/passwd"), ("8.cls", b"1")], "8.npy is a link, which is not followed"),
        ([member("8.npy", kind=tarfile.LNKTYPE, linkname="000.npy"), ("8.cls", b"1")], "8.npy is a link"),
        ([member("8.npy", kind=tarfile.CHRTYPE, devmajor=1, devminor=5), ("8.cls", b"1")], "8.npy is no regular file"),
        ([member("8.npy", kind=tarfile.FIFOTYPE), ("8.cls", b"1")], "8.npy is no regular file"),
        ([("8.npy", b"no array"), ("8.cls", b"1")], "8.npy cannot be read: it is no array in NumPy's format"),
        ([("8.npy", array(X[8])[:-1]), ("8.cls", b"1")], "shorter than its header says"),
        ([("8.npy", array(X[8].astype(np.float64))), ("8.cls", b"1")], "float64 of shape (2, 3), where the first is float32"),
        ([("8.npy", array(X[8, :1])), ("8.cls", b"1")], "shape (1, 3), where the first is"),
        ([("8.npy", array(np.full((2, 3), np.nan, np.float32))), ("8.cls", b"1")], "holds 6 NaN or infinite values"),
    ],
)  # fmt: skip
def test_a_broken_sample_is_skipped_with_its_reason(shard, members, told):
    found = load(shard([*usual(), *members]), shape=(2, 3))
    assert_array_equal(found.inputs, X[:4])
    assert [(s.index, told in s.reason) for s in found.skipped] == [(4, True)], found.skipped


def test_objects_are_never_unpickled(shard):
    sink = io.BytesIO()
    np.save(sink, np.array([{}], object), allow_pickle=True)
    found = load(shard([*usual(), ("8.npy", sink.getvalue()), ("8.cls", b"1")]), shape=(2, 3))
    assert "never unpickled" in found.skipped[0].reason


@pytest.mark.parametrize(
    ("members", "told"),
    [
        ([("8.png", b"no picture")], "8 cannot be decoded"),
        ([("8.txt", b"x")], "8 has no picture"),
        ([("8.png", picture(3)), ("8.jpg", picture(3, kind="JPEG"))], "8: holds jpg, png, expected one of them"),
        ([member("8.png", kind=tarfile.SYMTYPE, linkname="../a.png")], "8: 8.png is a link"),
    ],
)
def test_a_broken_picture_is_skipped(shard, members, told):
    found = load(shard([("1.png", picture(9)), *members]), shape=(1, 4, 5))
    assert len(found) == 1
    assert told in found.skipped[0].reason


@pytest.mark.parametrize("name", ["/etc/cron.d/x", "../../x", "a/../../x", "C:\\x", "\x1b[31mx", "x" * 300, "\udcff", "<b>"])
def test_names_lead_nowhere(shard, tmp_path, name):
    """A name is a name: nothing is opened by it, and nothing is written."""
    before = sorted(p.name for p in tmp_path.iterdir())
    path = shard([(f"{name}.npy", array(X[0])), (f"{name}.cls", b"1")])
    found = load(path, shape=(2, 3))
    assert len(found) == 1
    found.names[0].encode()
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*before, "x.tar"])


def test_hidden_members_and_folders_are_no_samples(shard):
    path = shard([member("a", kind=tarfile.DIRTYPE), *usual(2), ("._000.npy", b"x"), ("README", b"x"), ("a/.DS_Store", b"x")])
    assert len(load(path, shape=(2, 3))) == 2


def test_a_member_that_is_too_large_is_skipped(shard, monkeypatch):
    monkeypatch.setattr(index_module, "MOST_BYTES", 2000)
    found = load(shard([*usual(), ("8.npy", array(np.zeros((2, 3000), np.float32))), ("8.cls", b"1")]), shape=(2, 3))
    assert "expected at most" in found.skipped[0].reason


@pytest.mark.parametrize("size", [2**40, 2**62, -512, -1024])
def test_a_size_that_the_file_does_not_have(shard, tmp_path, size):
    """A size is written over the second member's: the archive is refused, and nothing is allocated or gone through for ever."""
    path = shard(usual(2))
    content = bytearray(path.read_bytes())
    info, _ = member("001.npy")
    info.size = size
    at = content.index(b"001.npy")
    content[at : at + 512] = info.tobuf(tarfile.GNU_FORMAT) if size > 0 else _negative(info)
    path.write_bytes(content)
    with pytest.raises(InputError, match="no complete tar archive"):
        load(path, shape=(2, 3))


def _negative(info):
    """A header whose size is negative, in base 256 as GNU tar writes large ones."""
    size, info.size = info.size, 0
    head = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    head[124:136] = (256**12 + size).to_bytes(12, "big")
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head)


def test_an_archive_cut_anywhere_is_refused(shard):
    """Between two members too: what is missing would not be seen else."""
    path = shard(usual(3))
    content = path.read_bytes()
    used = len(content.rstrip(b"\0"))
    for stop in range(512, used + 1, 256):
        path.write_bytes(content[:stop])
        with pytest.raises(InputError, match=r"no complete tar archive"):
            load(path, shape=(2, 3))
    path.write_bytes(content[: -(-used // 512) * 512 + 512])
    assert len(load(path, shape=(2, 3))) == 3


def test_bytes_turned_at_random_end_in_samples_or_one_line(shard):
    path = shard(usual(3))
    content = path.read_bytes()
    draw, words = random.Random(0), []
    for _ in range(300):
        changed = bytearray(content)
        for _ in range(draw.choice((1, 3, 30))):
            changed[draw.randrange(len(changed))] = draw.randrange(256)
        path.write_bytes(changed)
        try:
            load(path, shape=(2, 3))
        except InputError as error:
            words.append(str(error))
    assert len(words) > 50
    assert not any("\n" in told for told in words)


@pytest.mark.parametrize("content", [b"", b"\0" * 10240, b"no archive" * 100, b"\x1f\x8b" + bytes(600)])
def test_what_is_no_archive(tmp_path, content):
    (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(InputError, match=r"no complete tar archive|holds no member"):
        load(tmp_path / "x.tar", shape=(2, 3))


def test_only_members_that_nobody_reads(shard):
    with pytest.raises(InputError, match="members that end in pyd, txt, expected a picture"):
        load(shard([("a.pyd", b"x"), ("a.txt", b"x")]), shape=(2, 3))


def test_nothing_that_can_be_used(shard):
    with pytest.raises(InputError, match=r"none of the 1 selected samples can be used.*no array"):
        load(shard([("1.npy", b"x")]), shape=(2, 3))


@pytest.mark.parametrize(
    ("how", "told"), [({"labels_path": "y.npy"}, "found --labels"), ({"feature_columns": ("a",)}, "holds no columns")]
)
def test_options_of_other_data(shard, how, told):
    with pytest.raises(InputError, match=told):
        load(shard(usual()), shape=(2, 3), **how)


def test_a_shard_without_permission(shard):
    path = shard(usual())
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(InputError, match=r"x\.tar"):
        load(path, shape=(2, 3))


def test_long_names_of_every_format(shard):
    for how in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        name = "d/" * 60 + "sample" * 20
        found = load(shard([(f"{name}.npy", array(X[0])), (f"{name}.cls", b"1")], format=how), shape=(2, 3))
        assert found.names == (name,)
