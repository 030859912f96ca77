"""What is answered is what `jaxtune predict` writes, whoever asks at the same time."""

import base64
import json
import shutil

import numpy as np
import pytest
from cover import mark_rest
from serving_client import CLOSE, ask, serving

from jaxtune import predict

TASKS = (
    *("classification", "multi_label", "regression", "token_classification"),
    *("question_answering", "masked_lm", "causal_lm", "image_classification"),
)
KEPT = ("question_answering", "image_classification")
FAMILIES = {"causal_lm": "gpt2", "image_classification": "vit"}


def inputs_of(task, folder, place):
    """(inputs of a request, a file or folder of the same rows)."""
    if task == "image_classification":
        files = sorted((folder / "validation").rglob("*.png"))
        sent = [base64.b64encode(file.read_bytes()).decode() for file in files]
        return sent, folder / "validation"
    rows = [json.loads(line) for line in (folder / "validation.jsonl").read_text().splitlines()]
    names = {"question", "context", "id", "tokens", "text"}
    rows = [{name: value for name, value in row.items() if name in names} for row in rows]
    place.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [row.get("tokens", row.get("text", row)) for row in rows], place


def with_card(model, copy, fields):
    """A copy whose jaxtune.json has some fields more."""
    shutil.copytree(model, copy)
    file = copy / "jaxtune.json"
    known = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({"task": "question_answering"} | known | fields))
    return copy


def written(model, source, output):
    predict.main([f"--model={model}", f"--input={source}", f"--output={output}", "--columns="])
    return [json.loads(line) for line in output.read_text().splitlines()]


def close(found, expected):
    """The same names, texts and places; numbers within what another batch shape makes of them."""
    assert type(found) is type(expected)
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for name in expected:
            close(found[name], expected[name])
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            close(one, other)
    elif isinstance(expected, float):
        np.testing.assert_allclose(found, expected, **CLOSE)
    else:
        assert found == expected


@pytest.mark.parametrize("task", mark_rest(TASKS, KEPT))
def test_records_are_those_of_predict(task, tiny_weights, tiny_tasks, tmp_path):
    model = tiny_weights(task, FAMILIES.get(task, "bert"), 1)
    if task == "question_answering":
        model = with_card(model, tmp_path / "model", {"max_length": 32, "doc_stride": 8})
    inputs, file = inputs_of(task, tiny_tasks[task].folder, tmp_path / "new.jsonl")
    expected = written(model, file, tmp_path / "out.jsonl")
    with serving(model) as client:
        answer = ask(client, *inputs)
        assert answer.status_code == 200, answer.text
        found = answer.json()["predictions"]
        alone = [ask(client, value).json()["predictions"][0] for value in inputs]
    if task == "image_classification":
        assert [record.pop("file") for record in found] == [f"inputs row {i + 1}" for i in range(6)]
        for record in (*expected, *alone):
            record.pop("file")
    close(found, expected)
    if task == "masked_lm":  # what is hidden depends on the place in the request, as in a file
        found, alone = found[:1], alone[:1]
    if task == "question_answering":
        assert [record.pop("id") for record in found] == [value["id"] for value in inputs]
        assert [record.pop("id") for record in alone] == [value["id"] for value in inputs]
    close(alone, found)
