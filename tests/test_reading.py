import hashlib

import pytest

from jaxtune.core.errors import UserError
from jaxtune.io.json_files import read_json_object, sha256_of


@pytest.mark.parametrize("content", [b"{", b"", b'{"a": \xff}', b"[1]"])
def test_what_is_no_object_is_one_error_with_the_remedy(tmp_path, content):
    file = tmp_path / "a.json"
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.json .*Fetch it again\.$"):
        read_json_object(file, "Fetch it again.")


def test_an_object_is_read(tmp_path):
    file = tmp_path / "a.json"
    file.write_text('{"a": "\u00e9"}', encoding="utf-8")
    assert read_json_object(file) == {"a": "\u00e9"}


def test_the_digest_is_that_of_all_bytes_in_order(tmp_path):
    files, contents = [tmp_path / name for name in "ba"], (bytes(range(256)) * 2000, b"67")
    for file, content in zip(files, contents, strict=True):  # the first is read in several parts
        file.write_bytes(content)
    assert sha256_of(files) == hashlib.sha256(b"".join(contents)).hexdigest()
