"""Rows to predict on that cannot be read are rows without values, told apart by their index."""

import pytest

from jaxtune.core.errors import UserError
from jaxtune.data.sources import delimited
from jaxtune.data.sources.new_rows import open_new, source_columns
from jaxtune.data.text.new_values import new_texts


@pytest.mark.parametrize("size", [1, 2, 100])
def test_bad_rows_are_those_of_the_file_however_many_are_read_at_a_time(
    tmp_path, monkeypatch, size
):
    monkeypatch.setattr(delimited, "_RECORDS", size)
    file = tmp_path / "new.csv"
    file.write_text("id,text\n1,a\n2,b,c\n3,d\n4\n5,e\n")
    table = open_new(file, "utf-8", "texts", ("text",))
    assert sorted(table.skipped.kept) == [1, 3]
    assert table.columns == {"id": ["1", None, "3", None, "5"], "text": ["a", None, "d", None, "e"]}
    texts, reasons = new_texts(table, ("text",))
    assert [text for (text,) in texts] == ["a", "-", "d", "-", "e"]
    assert reasons is not None
    assert [reason.partition(":")[0] for reason in reasons] == [
        "", f"{file} line 3", "", f"{file} line 5", "",
    ]  # fmt: skip
    assert source_columns(table).usual == ("id", "text")


def test_columns_of_one_name_are_told_apart_where_none_is_read(tmp_path):
    file = tmp_path / "new.csv"
    file.write_text("a,text,a,a_2,,\n1,x,2,3,4,5\n")
    table = open_new(file, "utf-8", "texts", ("text",))
    assert [*table.columns] == ["a", "text", "a_2", "a_2_2", "column_5", "column_6"]
    with pytest.raises(UserError, match="'a' more than once"):
        open_new(file, "utf-8", "texts", ("a",))
