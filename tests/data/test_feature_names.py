import pytest

from onnxfim.data.feature_names import feature_names
from onnxfim.errors import InputError


def test_names_with_commas_or_a_line_each(tmp_path):
    path = tmp_path / "names.txt"
    assert feature_names("age, income ,x", (3,)) == ("age", "income", "x")
    for text in ("age\nincome, yearly\nx\n", "\ufeffage\r\n\r\nincome, yearly\r\nx"):
        path.write_bytes(text.encode())
        assert feature_names(str(path), (3,)) == ("age", "income, yearly", "x")
    path.write_text("a,b,c,d\n")
    assert feature_names(str(path), (2, 2)) == ("a", "b", "c", "d")


def test_a_wrong_number_of_names_is_told(tmp_path):
    with pytest.raises(
        InputError, match=r"--feature-names: 2 names, expected 3, one for each number of a sample\. Give one name a line"
    ):
        feature_names("a,b", (3,))
    with pytest.raises(InputError, match=r"--feature-names: 1 names, expected 3.* No file has this name\."):
        feature_names(str(tmp_path / "none.txt"), (3,))
    with pytest.raises(InputError, match="2 names, expected 3"):
        feature_names("a,,c", (3,))
    path = tmp_path / "names.txt"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"names\.txt: cannot be read \(it is not UTF-8 text\)"):
        feature_names(str(path), (3,))
    path.write_bytes(b"a\n" * 2**22)
    with pytest.raises(InputError, match=r"names\.txt: more than 4 MiB"):
        feature_names(str(path), (3,))
