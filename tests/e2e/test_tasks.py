"""Every task from the command line: a run that is resumed ends with the same bits, and predicts."""

import json
import shutil

import pytest
from orbax.checkpoint import v1 as ocp
from safetensors.numpy import load_file

from jaxtune import main, predict

FAMILIES = {
    "classification": "distilbert",
    "multi_label": "modernbert",
    "regression": "roberta",
    "token_classification": "bert",
    "question_answering": "gpt2",
    "causal_lm": "gpt2",
    "masked_lm": "bert",
    "image_classification": "resnet",
}
MORE = {
    "classification": ["--config.loss.label_smoothing=0.1", "--config.data.token_dropout=0.2"],
    "multi_label": ["--config.loss.class_weights=balanced", "--config.loss.focal_gamma=2"],
    "token_classification": ["--config.loss.class_weights=B-PER=2"],
    "image_classification": [
        "--config.data.augmentation.crop=pad",
        "--config.data.augmentation.mixup_alpha=0.2",
        "--config.data.augmentation.cutmix_alpha=1",
        "--config.data.augmentation.rand_augment_num_ops=1",
    ],
}
KEYS = {
    "classification": {"label", "probabilities"},
    "multi_label": {"labels", "probabilities"},
    "regression": {"values"},
    "token_classification": {"entities", "tags", "text", "words"},
    "question_answering": {"id", "answer", "score", "start", "end", "no_answer_score", "n_best"},
    "causal_lm": {"perplexity", "tokens"},
    "masked_lm": {"perplexity", "tokens"},
    "image_classification": {"label", "probabilities", "file"},
}


@pytest.mark.exhaustive
@pytest.mark.parametrize("task", FAMILIES)
def test_resumes_with_the_same_bits_and_predicts(
    task, tiny_tasks, tiny_families, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        ocp.training.Checkpointer, "delete", lambda self, step: None
    )  # all are kept
    data, config = tiny_tasks[task], tmp_path / "config.json"
    config.write_text(json.dumps({"task": task, "data": {**data.fields, "path": str(data.folder)}}))
    length = data.fields.get("max_length", 16)
    words = [
        f"--config={config}",
        f"--config.model.path={tiny_families[FAMILIES[task]]}",
        "--config.model.from_scratch=true",
        f"--config.data.max_length={length}",
        "--config.train.batch_size=4",
        "--config.train.checkpoint_every_steps=1",
        "--config.train.num_steps=5",
        "--config.data.layout=padded",
        *MORE.get(task, []),
    ]
    workdir = tmp_path / "run"
    main.main([*words, f"--workdir={workdir}"])
    whole = load_file(workdir / "model" / "model.safetensors")
    scores = json.loads((workdir / "results.json").read_text())["scores"]
    shutil.rmtree(workdir / "model")
    (workdir / "results.json").unlink()
    for folder in (workdir / "checkpoints").iterdir():
        if folder.name.isdigit() and int(folder.name) > 2:
            shutil.rmtree(folder)
    main.main([*words, f"--workdir={workdir}"])
    results = json.loads((workdir / "results.json").read_text())
    assert results["resumed_from_step"] == 2
    assert results["scores"] == scores
    resumed = load_file(workdir / "model" / "model.safetensors")
    assert resumed.keys() == whole.keys()
    for name, value in whole.items():
        assert value.tobytes() == resumed[name].tobytes(), name
    images = task == "image_classification"
    source = data.folder / "validation" / ("cat" if images else "")
    source = source if images else data.folder / "validation.jsonl"
    output = tmp_path / "out.jsonl"
    flags = [f"--model={workdir / 'model'}", f"--input={source}", f"--output={output}"]
    predict.main([*flags, "--columns="])
    records = [json.loads(line) for line in output.read_text().splitlines()]
    assert len(records) == (3 if images else 5)
    assert all(record.keys() == KEYS[task] for record in records)
