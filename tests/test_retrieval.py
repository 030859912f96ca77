"""Retrieval tests in BEIR's layout: read, ranked, and scored as pytrec_eval scores them."""

import json

import numpy as np
import pytest

from jaxtune.core.errors import UserError
from jaxtune.data.text.retrieval import is_retrieval, read_retrieval
from jaxtune.tasks.retrieval_scores import rank, retrieval_scores


def test_scores_are_those_of_pytrec_eval(golden):
    wanted = json.loads((golden.parent / "groups" / "retrieval.json").read_text())
    rankings = {q: [tuple(pair) for pair in pairs] for q, pairs in wanted["rankings"].items()}
    found = retrieval_scores(rankings, wanted["judged"])
    assert found.keys() == wanted["scores"].keys()
    for name, value in wanted["scores"].items():
        assert found[name] == pytest.approx(value, abs=1e-9), name


def test_the_best_documents_come_first(monkeypatch):
    monkeypatch.setattr("jaxtune.tasks.retrieval_scores._BLOCK", 7)
    monkeypatch.setattr("jaxtune.tasks.retrieval_scores._QUERIES", 2)
    rng = np.random.default_rng(0)
    documents = rng.integers(-2, 3, (30, 3)).astype("f")  # of which many are alike
    names = [f"d{i}" for i in rng.permutation(30)]
    queries = {name: rng.integers(-2, 3, 3).astype("f") for name in ("q", "d3", "x", "y", "z")}
    found = rank(queries, names, documents, 12)
    for query, vector in queries.items():
        all_of_them = zip(names, documents, strict=True)
        pairs = [(float(d @ vector), n) for n, d in all_of_them if n != query]
        assert found[query] == [(n, s) for s, n in sorted(pairs, reverse=True)[:12]]
    assert len(rank(queries, names, documents, 100)["d3"]) == 29


def write(folder, corpus=None, queries=None, judged=None, name="test"):
    corpus = corpus or [
        {"_id": "1", "title": "Rain", "text": "falls"},
        {"_id": "2", "title": "", "text": "sun"},
        {"_id": 3, "title": None, "text": " "},
    ]
    queries = queries or [{"_id": "a", "text": "wet?"}, {"_id": "b", "text": "dry?"}]
    judged = judged or ["a\t1\t2", "a\t2\t0", "a\t3\t1"]
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    for file, rows in (("corpus", corpus), ("queries", queries)):
        (folder / f"{file}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = ["query-id\tcorpus-id\tscore", *judged]
    (folder / "qrels" / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    return folder


def test_a_folder_is_read(tmp_path):
    folder = write(tmp_path)
    assert is_retrieval(folder)
    assert not is_retrieval(tmp_path / "qrels")
    found = read_retrieval(folder)
    assert found.documents == {"1": "Rain falls", "2": "sun", "3": "-"}
    assert found.queries == {"a": "wet?"}  # the one that is judged
    assert found.judged == {"a": {"1": 2, "2": 0, "3": 1}}


def test_judgements_are_chosen_by_name(tmp_path):
    write(tmp_path, name="dev")
    assert read_retrieval(tmp_path).judged["a"]["1"] == 2  # the only ones
    write(tmp_path, judged=["b\t1\t1"], name="train")
    with pytest.raises(UserError, match=r"has the files dev.tsv, train.tsv: expected test.tsv"):
        read_retrieval(tmp_path)
    assert [*read_retrieval(tmp_path, "train").judged] == ["b"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"judged": ["a\t9\t1"]}, r"test.tsv line 2: '9' is no _id of corpus.jsonl"),
        ({"judged": ["c\t1\t1"]}, r"'c' is no _id of queries.jsonl"),
        ({"judged": ["a\t1\t0.5"]}, r"found the score '0.5', expected a whole number"),
        ({"judged": ["a\t1\tnan"]}, r"found the score 'nan'"),
        ({"judged": ["a\t1\t1e99"]}, r"found the score '1e99'"),
        ({"queries": [{"_id": "a", "text": "x"}] * 2}, r"line 2: the _id 'a' is there twice"),
        ({"queries": [{"_id": True, "text": "x"}]}, r"the _id is True, expected a name"),
        ({"queries": [{"_id": "a", "text": 7}]}, r"line 1: found 7, expected a text"),
        ({"queries": [{"id": "a", "text": "x"}]}, r"expected '_id' too"),
    ],
)
def test_bad_files_are_refused(changes, message, tmp_path):
    with pytest.raises(UserError, match=message):
        read_retrieval(write(tmp_path, **changes))
