"""task=embedding as a whole: data, losses that fit it, scores, export, and what comes in again."""

import json

import numpy as np
import pytest
from cover import mark_rest
from scipy import stats

import jaxtune as jt
from jaxtune.core.errors import UserError
from jaxtune.data.batching.groups import groups_of
from jaxtune.data.sources.memory import from_memory
from jaxtune.run.config import settings_of
from jaxtune.run.console import Report
from jaxtune.run.prepare import prepare
from jaxtune.run.scoring import score
from jaxtune.tasks import pair_scores

QUIET = Report(quiet=True)
WORDS = ["the cat", "a dog", "film", "is", "was", "so", "good", "bad", "ran on"]


def make_rows(kind, count=14):
    rng = np.random.default_rng(1)
    texts = [" ".join(rng.choice(WORDS, rng.integers(1, 5))) + f" {i}" for i in range(4 * count)]
    if kind == "scored":
        score = np.round(rng.random(count) * 5, 1).tolist()
        return {"sentence1": texts[:count], "sentence2": texts[count : 2 * count], "score": score}
    lists = [texts[2 * count + 2 * i : 2 * count + 2 * i + 1 + i % 2] for i in range(count)]
    rows = {"anchor": texts[:count], "positive": texts[count : 2 * count], "negatives": lists}
    if kind == "pairs":
        del rows["negatives"]
    return rows


@pytest.fixture
def config(tiny_families):
    found = jt.default_config()
    found.task = "embedding"
    found.model.path, found.model.from_scratch = str(tiny_families["bert"]), True
    found.data.max_length = 16
    found.train.batch_size, found.train.num_steps = 4, 2
    found.train.trackers = ()
    found.optimizer.schedule, found.optimizer.warmup_fraction = "constant", 0.0
    return found


def train(config, workdir, rows):
    held = {name: values[:6] for name, values in rows.items()}
    return jt.train(config, workdir, data={"train": rows, "validation": held}, report=QUIET)


@pytest.mark.parametrize(
    ("kind", "loss", "message"),
    [
        ("pairs", "cosent", "'cosent', but the rows have no score"),
        ("pairs", "cosine_error", "'cosine_error', but the rows have no score"),
        ("scored", "ranking", "'ranking', but the rows are pairs with a score"),
        ("scored", "cosine_error", "scores go from .* to .*: expected those of a cosine"),
        ("pairs", "triplet", "'triplet', but a row has no negative"),
        ("scored", "triplet", "pairs with a score"),
    ],
)
def test_a_loss_that_does_not_fit_the_data_is_refused(kind, loss, message, config, tmp_path):
    config.loss.name = loss
    with pytest.raises(UserError, match=message):
        train(config, tmp_path / "run", make_rows(kind))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("loss.label_smoothing", 0.1, "loss.label_smoothing is 0.1: expected its default"),
        ("loss.matryoshka_dims", (8, 8), "different whole numbers from 1"),
        ("loss.matryoshka_dims", (16, 99), "matryoshka_dims has 99, but embeddings have 16"),
        ("data.class_sampling", 0.5, "no one class for each row"),
        ("tuning.name", "head", "states of its last layer"),
        ("model.head", "a:b", "model.head is 'a:b'"),
        ("task", "causal_lm", "expected its default, as task is 'causal_lm'"),
    ],
)
def test_settings_that_do_not_fit_are_refused(field, value, message, config, tmp_path):
    if field == "task":
        config.model.pooling = "first"
    section, _, name = field.rpartition(".")
    setattr(config[section] if section else config, name, value)
    with pytest.raises(UserError, match=message):
        train(config, tmp_path / "run", make_rows("pairs"))


@pytest.mark.parametrize(("kind", "metric"), [("pairs", "spearman"), ("scored", "mrr")])
def test_a_score_that_such_rows_have_not_chooses_nothing(kind, metric, config, tmp_path):
    config.train.best_metric = metric
    with pytest.raises(UserError, match=f"best_metric is '{metric}', which is not told of such"):
        train(config, tmp_path / "run", make_rows(kind))


def test_scored_pairs_are_scored_by_rank(config, tmp_path):
    rows = make_rows("scored")
    found = train(config, tmp_path / "run", rows)
    assert found["best_metric"] == "spearman"
    model = jt.load(tmp_path / "run" / "model")
    one, other = (model.embed(rows[name]) for name in ("sentence1", "sentence2"))
    np.testing.assert_allclose(np.linalg.norm(one, axis=1), 1, atol=1e-6)
    cosines = (one * other).sum(1)
    scores = jt.evaluate(model, rows)
    assert scores["spearman"] == pytest.approx(stats.spearmanr(cosines, rows["score"])[0])
    assert scores["pearson"] == pytest.approx(stats.pearsonr(cosines, rows["score"])[0], abs=1e-5)
    own = np.array(rows["score"])
    terms = [
        np.exp(20 * (cosines[i] - cosines[j]))
        for i in range(len(own))
        for j in range(len(own))
        if own[i] < own[j]
    ]
    assert scores["loss"] == pytest.approx(np.log1p(sum(terms)), rel=1e-5)


def test_anchors_are_scored_by_where_their_positive_stands(monkeypatch):
    monkeypatch.setattr(pair_scores, "BLOCK", 3)
    rng = np.random.default_rng(0)
    sizes = np.array([2, 4, 3, 2, 3])
    groups, x = groups_of(sizes), rng.normal(size=(sizes.sum(), 4)).astype("f")
    x[groups.offsets[2] + 1] = x[groups.offsets[0] + 1]  # as near as the own positive
    found = pair_scores.anchors(x, groups)
    unit = x.astype(float) / np.linalg.norm(x.astype(float), axis=1, keepdims=True)
    ranks, losses, beaten = [], [], []
    for block in ([0, 1, 2], [3, 4]):
        documents = [t for g in block for t in range(groups.offsets[g] + 1, groups.offsets[g + 1])]
        for g in block:
            anchor, right = groups.offsets[g], groups.offsets[g] + 1
            z = {t: float(unit[anchor] @ unit[t]) for t in documents}
            ranks.append(1 + sum(v > z[right] + 1e-9 for v in z.values()))
            losses.append(np.log(sum(np.exp(20 * v) for v in z.values())) - 20 * z[right])
            beaten += [z[t] < z[right] for t in range(right + 1, groups.offsets[g + 1])]
    assert found["accuracy"] == np.mean(np.array(ranks) == 1)
    assert found["mrr"] == pytest.approx(np.mean(1 / np.array(ranks)))
    assert found["loss"] == pytest.approx(np.mean(losses))
    assert found["triplet_accuracy"] == np.mean(beaten)


@pytest.mark.parametrize("layout", mark_rest(("packed", "bucketed"), ("packed",)))
def test_a_run_that_goes_on_ends_with_the_same_bits(layout, config, tmp_path):
    config.data.layout = layout
    rows = make_rows("negatives")
    config.train.num_steps, config.train.eval_every_steps = 6, 3
    whole = train(config, tmp_path / "whole", rows)
    config.train.num_steps = 3  # in the midst of the first epoch of four steps
    train(config, tmp_path / "parts", rows)
    config.train.num_steps = 6
    parts = train(config, tmp_path / "parts", rows)
    assert parts["resumed_from_step"] == 3
    assert parts["scores"] == whole["scores"]
    for name in ("model.safetensors", "modules.json", "jaxtune.json"):
        one, other = (tmp_path / way / "model" / name for way in ("whole", "parts"))
        assert one.read_bytes() == other.read_bytes(), name


def test_pooling_norm_and_prompts_go_with_the_model(config, tmp_path):
    config.model.pooling, config.model.normalize = "last", False
    config.data.query_prompt, config.data.document_prompt = "what ", "the film "
    rows = make_rows("pairs")
    train(config, tmp_path / "run", rows)
    folder = tmp_path / "run" / "model"
    model = jt.load(folder)
    top = model.saved.pretrained.module.top
    assert top.pooling == ("last", False)
    text = rows["anchor"][3]
    plain, query = model.embed([text])[0], model.embed([text], prompt="query")[0]
    np.testing.assert_allclose(plain, model.embed([text], pooling="last")[0], atol=1e-6)
    np.testing.assert_allclose(query, model.embed([f"what {text}"])[0], atol=1e-6)
    assert np.abs(query - plain).max() > 1e-3
    assert abs(np.linalg.norm(plain) - 1) > 1e-3
    with pytest.raises(UserError, match="prompt is 'other'"):
        model.embed([text], prompt="other")
    records = model.predict([text, rows["anchor"][4]])
    np.testing.assert_allclose(records[0]["embedding"], plain, atol=1e-6)
    # Another run begins with what the folder says.
    config.model.path, config.model.from_scratch = str(folder), False
    config.model.pooling = config.model.normalize = None
    config.data.query_prompt = config.data.document_prompt = None
    train(config, tmp_path / "again", rows)
    card = json.loads((tmp_path / "again" / "model" / "jaxtune.json").read_text())
    assert (card["pooling"], card["normalize"]) == ("last", False)
    assert (card["query_prompt"], card["document_prompt"]) == ("what ", "the film ")


def test_prompts_are_read_in_training(config, tiny_families):
    config.data.query_prompt, config.data.document_prompt = "what ", "in "
    settings = settings_of(config.to_dict(), {"data.path": "memory"})
    rows = make_rows("pairs")
    tables = {split: from_memory(rows, split) for split in ("train", "validation")}
    run = prepare(settings, QUIET, tables=tables)
    tokens = run.data.examples["validation"].tokens
    first = tokens.input_ids[tokens.offsets[:-1] + 1]
    ids = run.data.processor.backend_tokenizer
    assert {*first[::2].tolist()} == {ids.token_to_id("what")}
    assert {*first[1::2].tolist()} == {ids.token_to_id("in")}


@pytest.mark.parametrize("strategy", mark_rest(("lora", "adapter", "last_layers"), ("adapter",)))
def test_strategies_export_what_they_trained(strategy, config, tmp_path):
    config.tuning.name = strategy
    if strategy == "last_layers":
        config.tuning.num_layers = 1  # what is below is frozen, and kept
        config.train.num_epochs, config.train.num_steps = 2, None
    rows = make_rows("negatives")
    held = {name: values[:6] for name, values in rows.items()}
    data = {"train": rows, "validation": held}
    config.optimizer.learning_rate = 0.01
    if strategy == "adapter":  # whose folder names its base, which must have weights
        config.tuning.name = "full"
        jt.train(config, tmp_path / "base", data=data, report=QUIET)
        config.model.path, config.model.from_scratch = str(tmp_path / "base" / "model"), False
        config.tuning.name = "adapter"
    found = jt.train(config, tmp_path / "run", data=data, report=QUIET)
    scores = jt.evaluate(tmp_path / "run" / "model", held)
    assert scores["mrr"] == pytest.approx(found["scores"]["validation"]["mrr"], abs=1e-6)
    assert scores["loss"] == pytest.approx(found["scores"]["validation"]["loss"], abs=1e-4)
    assert not (tmp_path / "run" / "adapter").exists()


def test_a_retrieval_test_is_scored_and_its_rankings_written(config, tmp_path):
    from test_retrieval import write

    train(config, tmp_path / "run", make_rows("pairs"))
    rows = make_rows("pairs")
    corpus = [
        {"_id": f"d{i}", "title": "", "text": text} for i, text in enumerate(rows["positive"])
    ]
    queries = [{"_id": f"q{i}", "text": text} for i, text in enumerate(rows["anchor"])]
    judged = [f"q{i}\td{i}\t1" for i in range(len(queries))]
    folder = write(tmp_path / "beir", corpus, queries, judged)
    model = jt.load(tmp_path / "run" / "model")
    scores = jt.evaluate(model, folder, rankings=tmp_path / "rankings.txt")
    z = model.embed(rows["anchor"]) @ model.embed(rows["positive"]).T
    ranks = 1 + (z > np.diag(z)[:, None] + 1e-6).sum(1)
    assert scores["mrr@10"] == pytest.approx(np.mean(np.where(ranks <= 10, 1 / ranks, 0)))
    assert scores["recall@1"] == np.mean(ranks == 1)
    lines = (tmp_path / "rankings.txt").read_text().splitlines()
    assert len(lines) == len(queries) * len(corpus)
    assert lines[0].split()[:2] == ["q0", "Q0"]
    config.model.path, config.data.path = str(tmp_path / "run" / "model"), str(folder)
    settings = settings_of(config.to_dict(), {})
    found = score(settings, tmp_path / "none", QUIET)
    assert found["test"] == pytest.approx(scores)
    with pytest.raises(UserError, match="expected one of embeddings"):
        train_classifier(config, tmp_path)


def train_classifier(config, tmp_path):
    other = jt.default_config()
    other.model.path, other.model.from_scratch = config.model.path, True
    other.data.max_length, other.train.num_steps, other.train.trackers = 16, 1, ()
    rows = {"text": WORDS * 2, "label": ["a", "b"] * len(WORDS)}
    jt.train(other, tmp_path / "other", data={"train": rows, "validation": rows}, report=QUIET)
    jt.evaluate(tmp_path / "other" / "model", tmp_path / "beir")


def test_minilm_embeds_as_its_own_folder_says(minilm, golden):
    """Mean pooling and norm from modules.json; the vectors are transformers' on torch."""
    rows = json.loads((golden / "minilm_sentences.json").read_text())
    single = [i for i, (_, second) in enumerate(rows) if second is None]
    wanted = np.load(golden / "minilm.npz")["mean_pooled"][single].astype(float)
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    model = jt.load(minilm)
    assert model.saved.task.name == "embedding"
    assert model.saved.data.tokens.max_length == 256
    np.testing.assert_allclose(model.embed([rows[i][0] for i in single]), wanted, atol=1e-5)
