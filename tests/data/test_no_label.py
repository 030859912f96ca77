"""Rows without a label among others: left out and counted, where the settings say so."""

import pytest

from jaxtune.core.errors import UserError
from jaxtune.data.sources.memory import from_memory
from jaxtune.data.sources.rows import read_data
from jaxtune.data.text.no_label import labelled
from jaxtune.data.text.text_tables import CLASSES
from jaxtune.run.config import settings_of
from jaxtune.settings.data import ColumnSettings, DataSettings
from jaxtune.settings.dicts import from_dict

NAMES = ("entailment", "neutral", "contradiction")


def nli(count, every, none):
    """Every so many rows have no label."""
    values = [none if i % every == 0 else i % 3 for i in range(count)]
    words = [v if v == none else NAMES[v] for v in values]
    texts = {"premise": [f"a {i}" for i in range(count)], "hypothesis": ["b"] * count}
    return texts | {"label": words if isinstance(none, str) else values}


def read(tmp_path, splits, declared=False, **fields):
    fields = {"text_columns": ("premise", "hypothesis"), "path": "memory"} | fields
    tables = {
        split: from_memory(rows, split)._replace(class_names={"label": NAMES} if declared else {})
        for split, rows in splits.items()
    }
    return read_data(from_dict(DataSettings, fields), CLASSES, tables)


@pytest.mark.parametrize("none", [-1, "-"])
def test_rows_without_a_label_are_left_out_and_counted(none, tmp_path):
    splits = {"train": nli(60, 6, none), "validation": nli(20, 5, none), "test": nli(9, 1, none)}
    declared = none == -1
    data = read(tmp_path, splits, declared, no_label=("-1", "-"))
    assert {split: len(rows.inputs) for split, rows in data.splits.items()} == {
        **{"train": 50, "validation": 16}
    }
    assert sorted(data.class_names) == sorted(NAMES)
    told = "\n".join(data.notes)
    assert "10 of 60 rows have no label" in told
    assert "4 of 20 rows have no label" in told
    assert "are left out" in told
    assert "test] has no labels" in told or "test has no labels" in told
    first = data.splits["train"].inputs[0]
    assert first == ("a 1", "b")
    assert data.class_names[data.splits["train"].labels[0]] == NAMES[1]


def test_without_the_setting_a_declared_class_is_asked_for_and_the_setting_named(tmp_path):
    with pytest.raises(UserError, match=r"'-1'.*Where -1 stands for no label, set .*no_label=-1"):
        read(tmp_path, {"train": nli(60, 6, -1), "validation": nli(20, 50, -1)}, declared=True)


@pytest.mark.parametrize("none", [-1, "-"])
def test_without_the_setting_and_names_it_is_a_class_that_is_doubted(none, tmp_path):
    data = read(tmp_path, {"train": nli(60, 6, none), "validation": nli(20, 5, none)})
    assert str(none) in data.class_names
    (note,) = [note for note in data.notes if "no_label" in note]
    assert f"a class is called {none} (10 rows)" in note
    assert note.endswith(f"set config.data.no_label={none}")


def test_a_class_of_minus_one_beside_others_is_one():
    rows = {"text": [f"t{i}" for i in range(30)], "label": [i % 3 - 1 for i in range(30)]}
    tables = {"train": from_memory(rows, "train"), "validation": from_memory(rows, "validation")}
    data = read_data(from_dict(DataSettings, {"path": "memory"}), CLASSES, tables)
    assert data.class_names == ("-1", "0", "1")
    assert not any("no_label" in note for note in data.notes)


def test_places_stay_those_of_the_file(tmp_path):
    file = tmp_path / "train.csv"
    file.write_text(
        "text,label\n" + "".join(f"t {i},{'-' if i == 1 else i % 2}\n" for i in range(9))
    )
    settings = {"path": str(file), "no_label": ("-",), "validation_size": 2.0}
    data = read_data(from_dict(DataSettings, settings), CLASSES)
    places = [place for rows in data.splits.values() for place in rows.places]
    assert sorted(places) == [2, 4, 5, 6, 7, 8, 9, 10]


def test_a_table_without_that_column_or_with_nothing_else_stays():
    table = from_memory({"text": ["a"], "label": ["-"]}, "rows")
    assert labelled(table, ColumnSettings(no_label=("-",))) is table
    assert labelled(table, ColumnSettings(no_label=("-",), label_column="y")) is table


def test_other_tasks_have_no_such_setting():
    with pytest.raises(UserError, match=r"config.data.no_label is \('-1',\): expected \(\)"):
        settings_of(
            {
                "task": "regression",
                "model": {"path": "m"},
                "data": {"path": "d", "no_label": ("-1",)},
            },
            {},
        )
