import numpy as np
import pytest

from jaxtune.core.types import Mean
from jaxtune.data.batching.batches import choose_lengths
from jaxtune.data.batching.layout import Layout, choose_layout
from jaxtune.data.text.examples import Examples
from jaxtune.data.text.tokens import Tokens
from jaxtune.run.evaluate import all_scores, predict_all
from jaxtune.tasks.registry import TASKS


def make_examples(n):
    """Random lengths; the first token of an example is its number."""
    rng = np.random.default_rng(n)
    lengths = rng.integers(2, 40, n)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = np.zeros(offsets[-1], np.int32)
    ids[offsets[:-1]] = np.arange(n)
    tokens = Tokens(ids, np.zeros_like(ids), offsets)
    return Examples(tokens, rng.normal(size=n).astype(np.float32))


def fake_step(batch):
    """Outputs tell the example and the padded length; filling has absurd values."""
    weight, labels = batch["weight"], batch["labels"]
    number = np.where(weight > 0, batch["input_ids"][:, 0], 10**6)
    width = np.full(len(number), batch["input_ids"].shape[1])
    loss = Mean(np.float32((weight * labels).sum()), np.float32(weight.sum()))
    outputs = np.stack([number, width], axis=1).astype(np.float32)
    return {"loss": loss, "rows": Mean(weight.sum(), weight.sum())}, outputs


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_outputs_are_in_order_and_means_exact_for_any_number(batch_size):
    for n in range(1, 51):
        examples = make_examples(n)
        lengths = choose_lengths(examples.lengths, 3)
        done, shapes = [], set()

        def step(batch, shapes=shapes):
            shapes.add(batch["input_ids"].shape)
            return fake_step(batch)

        means, outputs = predict_all(
            step, examples, Layout("bucketed", batch_size, lengths), done.append
        )
        assert outputs.dtype == np.float32
        np.testing.assert_array_equal(outputs[:, 0], np.arange(n))
        assert (outputs[:, 1] >= examples.lengths).all()
        mean = examples.labels.astype(np.float64).mean()
        assert means["loss"] == pytest.approx(mean, rel=1e-5, abs=1e-6)
        assert means["rows"] == 1.0
        assert sum(done) == n
        assert len(done) == -(-n // batch_size)
        assert shapes <= {(batch_size, length) for length in lengths}


@pytest.mark.parametrize("per_token", [False, True])
@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_packed_outputs_are_in_order_and_means_exact_for_any_number(batch_size, per_token):
    for n in (*range(1, 20), 64, 101):
        examples = make_examples(n)
        layout = choose_layout("packed", examples.lengths, batch_size)
        shapes = set()

        def step(batch, shapes=shapes):
            ids, weight = batch["input_ids"], batch["weight"]
            shapes.add(ids.shape)
            loss = Mean((weight * batch["labels"]).sum(), weight.sum())
            if per_token:  # the place of each token, behind the number of the example
                return {"loss": loss}, np.stack([ids, batch["position_ids"]], axis=-1)
            first = np.take_along_axis(np.asarray(ids), np.asarray(batch["first_tokens"]), axis=1)
            return {"loss": loss}, np.where(weight > 0, first, 10**6)[..., None]

        means, outputs = predict_all(step, examples, layout, per_token=per_token)
        for i, (output, length) in enumerate(zip(outputs, examples.lengths, strict=True)):
            assert output[..., 0].ravel()[0] == i
            if per_token:
                np.testing.assert_array_equal(output[:, 1], np.arange(length))
        mean = examples.labels.astype(np.float64).mean()
        assert means["loss"] == pytest.approx(mean, rel=1e-5, abs=1e-6)
        assert shapes <= {tuple(shape) for shape in layout.packing.shapes}


def test_no_metrics_are_no_means():
    examples = make_examples(5)
    means, outputs = predict_all(
        lambda b: ({}, fake_step(b)[1]), examples, Layout("padded", 2, (40,))
    )
    assert means == {}
    assert len(outputs) == 5


def test_sums_over_many_batches_do_not_lose_small_ones():
    examples = make_examples(50)._replace(labels=np.full(50, 0.1, np.float32))
    big = {"first": True}

    def step(batch):
        total = 1e8 if big.pop("first", False) else 1.0  # float32 would swallow every 1
        return {"loss": Mean(np.float32(total), np.float32(1))}, fake_step(batch)[1]

    means, _ = predict_all(step, examples, Layout("padded", 1, (40,)))
    assert means["loss"] == (1e8 + 49) / 50


def test_all_scores_adds_the_mean_loss():
    outputs = np.array([[0.0, 1.0], [1.0, 0.0]], np.float32)
    scores = all_scores(
        TASKS["classification"],
        {"loss": 0.25, "accuracy": 0.0},
        outputs,
        make_examples(2)._replace(labels=np.array([1, 1])),
    )
    assert scores["loss"] == 0.25
    assert scores["accuracy"] == 0.5
    assert scores.keys() == TASKS["classification"].scores.higher_is_better.keys()
