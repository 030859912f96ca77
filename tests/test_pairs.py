"""task=reranking and task=multiple_choice as wholes: trained, scored, exported, opened, served."""

import json

import jax
import numpy as np
import pytest
from serving_client import CLOSE, ask, serving

import jaxtune as jt
from jaxtune.core.errors import UserError
from jaxtune.run.config import settings_of
from jaxtune.run.console import Report
from jaxtune.run.prepare import prepare

QUIET = Report(quiet=True)
WORDS = ["the cat", "a dog", "film", "is", "was", "so", "good", "bad", "ran on"]


def texts(count, seed=1):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(1, 5))) + f" {i}" for i in range(count)]


def passages(grades=1):
    """Four queries of three passages and two of one."""
    queries = [query for i, query in enumerate(texts(6)) for _ in range(3 if i < 4 else 1)]
    labels = [grades * (i % 3 == i // 3 % 3) for i in range(len(queries))]
    return {"query": queries, "passage": texts(len(queries), 2), "label": labels}


def choices():
    every = texts(60, 3)
    lists = [every[5 * i : 5 * i + 2 + i % 3] for i in range(12)]
    return {"question": texts(12), "choices": lists, "label": [i % 2 for i in range(12)]}


ROWS = {"reranking": passages, "multiple_choice": choices}


@pytest.fixture
def config(tiny_families):
    found = jt.default_config()
    found.model.path, found.model.from_scratch = str(tiny_families["bert"]), True
    found.data.max_length = 24
    found.train.batch_size, found.train.num_steps = 4, 2
    found.train.trackers = ()
    found.optimizer.learning_rate = 0.01
    return found


def train(config, workdir, rows):
    return jt.train(config, workdir, data={"train": rows, "validation": rows}, report=QUIET)


@pytest.fixture(scope="module")
def trained(tiny_families, tmp_path_factory):
    """Workdirs of a short run of each task."""
    found = {}
    for task, make in ROWS.items():
        config = jt.default_config()
        config.task, config.train.trackers = task, ()
        config.model.path, config.model.from_scratch = str(tiny_families["bert"]), True
        config.data.max_length, config.train.batch_size, config.train.num_steps = 24, 4, 2
        config.optimizer.learning_rate = 0.01
        folder = tmp_path_factory.mktemp(task) / "run"
        found[task] = folder, train(config, folder, make())
    return found


@pytest.mark.parametrize("task", ROWS)
def test_a_saved_model_has_the_scores_of_its_run(task, trained):
    folder, results = trained[task]
    model, rows = jt.load(folder / "model"), ROWS[task]()
    assert model.saved.task.name == task
    wanted = results["scores"]["validation"]
    assert jt.evaluate(model, rows) == pytest.approx(wanted, rel=1e-4)
    assert jt.evaluate(model, rows, batch_size=5) == pytest.approx(wanted, rel=1e-4)


def test_pairs_are_scored_row_by_row_and_rank_as_the_scores_say(trained):
    folder, results = trained["reranking"]
    model, rows = jt.load(folder / "model"), passages()
    records = model.predict({name: rows[name] for name in ("query", "passage")})
    pairs = [*zip(rows["query"], rows["passage"], strict=True)]
    z = np.array([record["score"] for record in model.predict(pairs)])
    np.testing.assert_allclose([record["score"] for record in records], z, **CLOSE)
    ranks = []
    for query in dict.fromkeys(rows["query"]):
        own = [i for i, other in enumerate(rows["query"]) if other == query]
        right = [i for i in own if rows["label"][i]]
        ranks.append(sum(z[i] >= z[right[0]] for i in own) if right else np.inf)
    wanted = np.mean([1 / rank for rank in ranks])
    assert results["scores"]["validation"]["mrr@10"] == pytest.approx(wanted)
    config = json.loads((folder / "model" / "config.json").read_text())
    assert config["architectures"] == ["BertForSequenceClassification"]
    assert config["id2label"] == {"0": "LABEL_0"}
    assert config["sentence_transformers"]["activation_fn"].endswith("Identity")


@pytest.mark.parametrize("kind", ["jaxtune", "config.json", "older", "settings"])
def test_a_cross_encoder_of_any_make_is_one_that_reranks(kind, trained, tmp_path):
    """As sentence-transformers 4 to 6 and 3 write it; of 6 also in a file of its own."""
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(trained["reranking"][0] / "model", folder)
    if kind != "jaxtune":
        (folder / "jaxtune.json").unlink()
        config = json.loads((folder / "config.json").read_text())
        own = config.pop("sentence_transformers")
        if kind == "config.json":
            config["sentence_transformers"] = own
        if kind == "older":
            config["sbert_ce_default_activation_function"] = own["activation_fn"]
        (folder / "config.json").write_text(json.dumps(config))
        if kind == "settings":
            settings = {"model_type": "CrossEncoder", "activation_fn": own["activation_fn"]}
            (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
    model = jt.load(folder)
    assert model.saved.task.name == "reranking"
    assert [*model.predict([("the cat", "a dog")])[0]] == ["score"]


def test_a_regression_on_pairs_stays_one(config, tmp_path):
    config.task = "regression"
    config.data.text_columns = ("query", "passage")
    train(config, tmp_path / "run", passages())
    model = jt.load(tmp_path / "run" / "model")
    assert model.saved.task.name == "regression"
    written = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    assert "sentence_transformers" not in written


def test_choices_are_told_with_their_text(trained):
    folder, results = trained["multiple_choice"]
    model, rows = jt.load(folder / "model"), choices()
    records = model.predict({name: rows[name] for name in ("question", "choices")})
    for record, own in zip(records, rows["choices"], strict=True):
        assert len(record["probabilities"]) == len(own)
        assert sum(record["probabilities"]) == pytest.approx(1)
        assert record["label"] == np.argmax(record["probabilities"])
        assert record["answer"] == own[record["label"]]
    right = np.mean(
        [record["label"] == y for record, y in zip(records, rows["label"], strict=True)]
    )
    assert results["scores"]["validation"]["accuracy"] == pytest.approx(right)
    one = model.predict([(rows["question"][3], rows["choices"][3])])
    np.testing.assert_allclose(one[0]["probabilities"], records[3]["probabilities"], **CLOSE)


@pytest.mark.parametrize("loss", ["pointwise", "listwise"])
def test_losses_draw_what_they_read(loss, config):
    config.task, config.loss.name = "reranking", loss
    rows = passages()
    tables = {"train": rows, "validation": rows}
    from jaxtune.data.sources.memory import from_memory

    tables = {split: from_memory(part, split) for split, part in tables.items()}
    config.data.path = "memory"
    run = prepare(settings_of(config.to_dict(), {}), QUIET, tables=tables)
    assert run.goal.steps_per_epoch == (4 if loss == "pointwise" else 2)  # of 14 pairs, 6 queries
    assert (run.data.stream.groups is None) == (loss == "pointwise")


@pytest.mark.parametrize(
    ("changes", "rows", "message"),
    [
        ({"loss.name": "pointwise"}, passages(3), "labels go up to 3: expected those of a prob"),
        (
            {"loss.name": "listwise", "data.group_column": "passage"},
            passages(),
            "'listwise', but each query has one passage",
        ),
        (
            {"loss.name": "ranking"},
            passages(),
            "one of pointwise, listwise, as task is 'reranking'",
        ),
        ({"loss.scale": 3.0}, passages(), "loss.scale is 3.0: expected its default"),
        ({"loss.label_smoothing": 0.1}, passages(), "loss.label_smoothing is 0.1"),
        (
            {"task": "multiple_choice", "loss.name": "listwise"},
            choices(),
            "loss.name is 'listwise'",
        ),
        (
            {"task": "multiple_choice", "data.group_column": "question"},
            choices(),
            "data.group_column is 'question'",
        ),
        ({"task": "embedding", "loss.name": "pointwise"}, passages(), "one of ranking, cosent"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes, rows, message, config, tmp_path):
    config.task = "reranking"
    for name, value in changes.items():
        *sections, last = name.split(".")
        node = config
        for section in sections:
            node = node[section]
        node[last] = value
    with pytest.raises(UserError, match=message):
        train(config, tmp_path / "run", rows)


def test_a_head_of_choices_is_new_on_a_classifier_and_the_other_way_round(tiny_weights, trained):
    from jaxtune.models.pretrained import load_pretrained

    key = jax.random.key(0)
    model = load_pretrained(tiny_weights("classification", "bert", 1), head="choice", key=key)
    assert model.report.new == {"classifier": "the files hold no head of choices"}
    folder = trained["multiple_choice"][0] / "model"
    other = load_pretrained(folder, head="sequence", class_names=("0", "1"), key=key)
    assert other.report.new == {"classifier": "the files hold a head of choices"}
    number = load_pretrained(folder, head="sequence", num_outputs=1, key=key)
    assert number.report.new == {"classifier": "the files hold a head of choices"}
    assert not load_pretrained(folder, head="choice").report.new


def test_an_electra_of_another_summary_is_refused(golden, tmp_path):
    import shutil

    from jaxtune.models.pretrained import load_pretrained

    folder = tmp_path / "electra"
    shutil.copytree(golden.parent / "families" / "electra-choice", folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"summary_activation": "tanh"}))
    with pytest.raises(UserError, match=r"summary_activation is 'tanh', but .* has 'gelu'"):
        load_pretrained(folder, head="choice")


def test_pairs_and_choices_are_served(trained):
    folder, rows = trained["reranking"][0] / "model", passages()
    model = jt.load(folder)
    pairs = [*zip(rows["query"], rows["passage"], strict=True)][:5]
    wanted = [record["score"] for record in model.predict(pairs)]
    with serving(folder) as client:
        assert client.get("/health").json()["columns"] == ["query", "passage"]
        named = {"query": pairs[1][0], "passage": pairs[1][1]}
        found = ask(client, list(pairs[0]), named, *map(list, pairs[2:])).json()["predictions"]
        np.testing.assert_allclose([record["score"] for record in found], wanted, **CLOSE)
        assert "expected two texts" in ask(client, "the cat").json()["error"]
    folder, rows = trained["multiple_choice"][0] / "model", choices()
    model = jt.load(folder)
    wanted = model.predict([*zip(rows["question"], rows["choices"], strict=True)][:3])
    swag = {"sent1": rows["question"][2], "sent2": "", "ending0": rows["choices"][2][0]}
    swag |= {f"ending{k}": text for k, text in enumerate(rows["choices"][2])}
    with serving(folder) as client:
        assert client.get("/health").json()["inputs"] == "choices"
        one, two = (
            {"question": rows["question"][i], "choices": rows["choices"][i]} for i in (0, 1)
        )
        found = ask(client, one, [*two.values()], swag).json()["predictions"]
        for record, own in zip(found, wanted, strict=True):
            assert record["answer"] == own["answer"]
            np.testing.assert_allclose(record["probabilities"], own["probabilities"], **CLOSE)
        for bad in (
            "the cat",
            {"question": "a"},
            ["a", ["b"]],
            {"question": 3, "choices": ["a", "b"]},
        ):
            assert "list of two texts or more" in ask(client, bad).json()["error"]


def test_a_model_of_choices_has_no_onnx_graph(trained):
    from jaxtune.export.exportable import check_exportable

    folder = trained["multiple_choice"][0] / "model"
    with pytest.raises(UserError, match="multiple choice, of which there is no ONNX graph"):
        check_exportable(folder, "onnx")
    check_exportable(folder, "stablehlo")
    check_exportable(trained["reranking"][0] / "model", "onnx")
