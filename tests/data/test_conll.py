"""CoNLL files: what ends a sentence, what a field is, and what is refused with which words."""

import pytest

from jaxtune.core.errors import UserError
from jaxtune.data.sources import conll, files
from jaxtune.data.sources.locate import load_tables
from jaxtune.data.sources.table import where
from jaxtune.settings.data import FileSettings, SourceSettings

WORDS = [["Rome", "is", "old"], ["Yes"]]
TAGS = [["B-location", "O", "O"], ["O"]]
TEXT = "Rome\tB-location\nis\tO\nold\tO\n\nYes\tO\n"


def read(folder, content, name="train.conll", **options):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    table = files.read_file(str(path), FileSettings(**options))
    places = table.columns.pop(conll.LINES)
    assert [len(part) for part in places] == [len(part) for part in table.columns[conll.WORDS]]
    return table


def message(folder, content):
    with pytest.raises(UserError) as caught:
        read(folder, content)
    return str(caught.value)


@pytest.mark.parametrize("suffix", [".conll", ".bio", ".iob", ".iob2", ".annotated", ".CoNLL"])
def test_suffixes(tmp_path, suffix):
    table = read(tmp_path, TEXT, f"a{suffix}")
    assert table.columns == {"words": WORDS, "tags": TAGS}
    assert list(table.rows) == [1, 5]
    assert where(table, 1) == f"{tmp_path}/a{suffix} line 5"


@pytest.mark.parametrize(
    "content",
    [
        TEXT.replace("\n", "\r\n"),
        TEXT.replace("\n", "\r"),
        "\ufeff" + TEXT,
        TEXT.rstrip("\n"),
        TEXT + "\n\n\n",
        TEXT.replace("\t", " "),
        TEXT.replace("\t", "   "),
        TEXT.replace("\t", " \t "),
        TEXT.replace("\n", " \t\n"),
        TEXT.replace("\n\n", "\n\t\n"),  # as WNUT-17's training file ends its sentences
        TEXT.replace("\n\n", "\n \n\n"),
        TEXT.replace("\t", "\tNNP\tI-NP\t"),
        TEXT.replace("\t", " NNP I-NP "),
        "-DOCSTART-\tO\n\n" + TEXT,
        "-DOCSTART- -X- -X- O\n\n" + TEXT,
        TEXT.replace("\n\n", "\n-DOCSTART-\n"),
    ],
)
def test_the_same_sentences_however_they_are_written(tmp_path, content):
    assert read(tmp_path, content).columns == {"words": WORDS, "tags": TAGS}


def test_a_blank_line_more_moves_the_line_of_a_sentence(tmp_path):
    table = read(tmp_path, "\n\n-DOCSTART- O\n\na O\nb O\n \nc O\n")
    assert list(table.rows) == [5, 8]


def test_only_spaces_and_tabs_are_between_fields(tmp_path):
    words = ["\u00a0", "\u200b", "\ufeff", "a\u3000b", "#", "\u2028", '"']
    table = read(tmp_path, "".join(f"{word} O\n" for word in words))
    assert table.columns["words"] == [words]
    assert read(tmp_path, "New York\tO\n1 000\tO\n").columns["words"] == [["New York", "1 000"]]


def test_one_field_a_line_is_words_without_tags(tmp_path):
    assert read(tmp_path, "a\nb\n\nc\n").columns == {"words": [["a", "b"], ["c"]]}
    assert read(tmp_path, "a\n\u00a0\nb\n").columns == {"words": [["a", "\u00a0", "b"]]}


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("a O\nb\n", ("line 2", "found 'b'", "2 fields", "line 1 has ('a O')")),
        ("a\tO\n# a comment\nb\tO\n", ("line 2", "'# a comment'", "2 fields")),
        ("text\na O\nb O\n", ("line 1", "'text'", "expected 2 fields, as line 2 has ('a O')")),
        ("a\tO\n\tO\n", ("line 2", "found '\\tO'", "a word first")),
        ("\tO\n", ("line 1", "found '\\tO'", "a word first")),
        ("a O\nb x O\n", ("line 2", "'b x O'", "2 fields")),
        ("a\t O\nb\t\tO\n", ("line 2", "2 fields")),
        ("a\n\nb O\n", ("line 3", "expected 1 field,")),
    ],
)
def test_odd_lines(tmp_path, content, parts):
    text = message(tmp_path, content)
    assert text.startswith(f"{tmp_path}/train.conll line ")
    for part in (*parts, "Correct or remove"):
        assert part in text


@pytest.mark.parametrize("content", ["", "\n\n", "-DOCSTART- O\n", " \t \n"])
def test_no_sentence(tmp_path, content):
    assert "found no records" in message(tmp_path, content)


def test_encoding(tmp_path):
    assert "line 2: found the byte 0xe9" in message(tmp_path, b"a O\ncaf\xe9 O\n")
    table = read(tmp_path, b"caf\xe9 O\n", encoding="latin-1")
    assert table.columns["words"] == [["caf\u00e9"]]


def test_a_folder_of_conll_files_whatever_columns_are_required(tmp_path):
    for name in ("emerging.dev.conll", "emerging.test.annotated", "wnut17train.conll"):
        read(tmp_path, TEXT, name)
    tables = load_tables(SourceSettings(str(tmp_path)), ("text",))
    assert set(tables) == {"train", "validation", "test"}
    assert all(table.columns[conll.WORDS] == WORDS for table in tables.values())


UD = """# newdoc
# sent_id = 1
# text = Im Schnee
1-2\tIm\t_\t_\t_\t_\t_\t_\t_\t_
1\tIn\tin\tADP\tAPPR\t_\t3\tcase\t_\t_
2\tdem\tder\tDET\tART\t_\t3\tdet\t_\t_
3\tSchnee\tSchnee\tNOUN\tNN\t_\t0\troot\t_\tSpaceAfter=No
3.1\tliegt\tliegen\tVERB\t_\t_\t_\t_\t_\t_

# sent_id = 2
1\t#\t#\tSYM\tXY\t_\t0\troot\t_\t_
2\tja\tja\tINTJ\tITJ\t_\t1\tdep\t_\t_
"""
UD_TAGS = [["ADP", "DET", "NOUN"], ["SYM", "INTJ"]]
GERMEVAL = """#\thttp://de.wikipedia.org/wiki/Rom [2009-10-17]
1\tUniversit\u00e4t\tB-ORG\tO
2\tRom\tI-ORG\tB-LOC
"""


@pytest.mark.parametrize(
    ("content", "words", "found", "columns"),
    [
        (
            UD,
            [["In", "dem", "Schnee"], ["#", "ja"]],
            UD_TAGS,
            "4",
        ),
        (GERMEVAL, [["Universit\u00e4t", "Rom"]], [["B-ORG", "I-ORG"]], "3"),
        ("1 a x B-p\n2 b x O\n", [["a", "b"]], [["B-p", "O"]], "4"),
        ("O\twho\nB-Actor\tO\n\nO\tis\n", [["who", "O"], ["is"]], [["O", "B-Actor"], ["O"]], "1"),
    ],
)
def test_the_columns_of_published_files(tmp_path, content, words, found, columns):
    table = read(tmp_path, content)
    assert table.columns == {"words": words, "tags": found}
    assert f"and the tags {columns}; config.data.conll_columns" in table.notes[0]


def test_the_columns_that_are_set(tmp_path):
    assert read(tmp_path, UD, conll_columns=(2, 5)).columns["tags"][0] == ["APPR", "ART", "NN"]
    assert read(tmp_path, UD, conll_columns=(3, -1)).columns["words"][0] == ["in", "der", "Schnee"]
    table = read(tmp_path, "N\tdog\nV\tis\n", conll_columns=(2, 1))
    assert table.columns == {"words": [["dog", "is"]], "tags": [["N", "V"]]}
    assert table.notes == ()
    for columns in ((0, 1), (1, 3), (1, 2, 1)):
        with pytest.raises(UserError, match=r"config\.data\.conll_columns is .* from 1 to 2"):
            read(tmp_path, "N\tdog\n", conll_columns=columns)


def test_columns_that_may_be_others_are_told_of(tmp_path):
    lines = [f"{'NV'[i % 2]}\tw{i}\n" for i in range(60)]
    (note,) = read(tmp_path, "".join(lines)).notes
    assert "60 different values, the first 2" in note
    assert read(tmp_path, TEXT).notes == ()


def test_the_lines_of_words_behind_comments(tmp_path):
    (tmp_path / "a.conllu").write_text(UD)
    assert files.read_file(str(tmp_path / "a.conllu")).columns[conll.LINES] == [[5, 6, 7], [11, 12]]


@pytest.mark.parametrize(
    "names",
    [
        ("train.txt", "valid.txt", "test.txt"),
        ("train.tsv", "devel.tsv", "test.tsv"),
        ("eng.train", "eng.testa", "eng.testb"),
        ("train", "development", "test"),
        ("a.train", "a.dev", "a.test"),
    ],
)
def test_folders_of_files_with_other_suffixes(tmp_path, names):
    for name in names:
        (tmp_path / name).write_text(TEXT)
    (tmp_path / "README").write_text("a b c\n")
    tables = load_tables(SourceSettings(str(tmp_path)), ("text",), words=True)
    assert set(tables) == {"train", "validation", "test"}
    assert all(table.columns[conll.WORDS] == WORDS for table in tables.values())
    assert tables["train"].notes[0].endswith("left alone, as no split has such a name: README")


def test_what_looks_tagged():
    assert conll.looks_tagged(TEXT.split("\n"))
    assert conll.looks_tagged(["-DOCSTART- -X- O", "", "EU NNP B-NP", "is VB O"])
    assert not conll.looks_tagged(["Rome is old", "Paris is older"])
    assert not conll.looks_tagged(["one", "two"])
    assert not conll.looks_tagged([])
