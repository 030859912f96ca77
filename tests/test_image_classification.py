"""Image classification: its loss on mixed images, its records, and that it learns."""

from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image

from jaxtune.data.batching.batches import choose_lengths, train_order
from jaxtune.data.batching.layout import Layout
from jaxtune.data.images.decode import Source
from jaxtune.data.sources.rows import read_data
from jaxtune.models.design import choose_outputs, make_design
from jaxtune.models.family import with_statistics
from jaxtune.models.pretrained import load_weights
from jaxtune.models.source import read_source
from jaxtune.run.evaluate import all_scores, predict_all
from jaxtune.settings import LossSettings
from jaxtune.settings.data import AugmentationSettings, DataSettings
from jaxtune.settings.dicts import from_dict
from jaxtune.tasks.image_classification import IMAGE_CLASSIFICATION as TASK
from jaxtune.training.losses import cross_entropy

FAMILIES = Path(__file__).parent / "golden" / "families"
NAMES = ("blue", "green", "red")


def mixed_batch(seed=0):
    rng = np.random.default_rng(seed)
    outputs = rng.normal(size=(6, 3)).astype(np.float32)
    return outputs, {
        "labels": np.array([0, 1, 2, 2, 1, 0], np.int32),
        "mixed_labels": np.array([1, 1, 0, 2, 0, 0], np.int32),
        "mix_share": rng.random(6).astype(np.float32),
        "weight": np.array([1, 1, 1, 1, 1, 0], np.float32),
    }


def plain_loss(outputs, label):
    return -np.log(np.exp(outputs[label]) / np.exp(outputs).sum())


def test_the_loss_of_a_mixed_image_is_the_mean_of_both_by_share():
    outputs, batch = mixed_batch()
    loss_fn = TASK.loss.make(LossSettings(), NAMES, np.arange(3))
    total, weight = loss_fn(jnp.asarray(outputs), batch)
    each = [
        (1 - share) * plain_loss(row, own) + share * plain_loss(row, other)
        for row, own, other, share in zip(
            outputs, batch["labels"], batch["mixed_labels"], batch["mix_share"], strict=True
        )
    ]
    assert float(total) == pytest.approx(sum(each[:5]), rel=1e-5)
    assert float(weight) == 5


def test_class_weights_of_mixed_images_are_mixed_too():
    outputs, batch = mixed_batch()
    settings = LossSettings(class_weights=("green=3", "red=0.5"))
    total, weight = TASK.loss.make(settings, NAMES, np.arange(3))(jnp.asarray(outputs), batch)
    weights = np.array([1, 3, 0.5])
    expected_total = expected_weight = 0.0
    for i in range(5):
        own, other, share = (batch[n][i] for n in ("labels", "mixed_labels", "mix_share"))
        of_row = (1 - share) * weights[own] + share * weights[other]
        loss = (1 - share) * plain_loss(outputs[i], own) + share * plain_loss(outputs[i], other)
        expected_total += of_row * loss
        expected_weight += of_row
    assert float(total) == pytest.approx(expected_total, rel=1e-5)
    assert float(weight) == pytest.approx(expected_weight, rel=1e-5)


def test_without_mixing_it_is_the_loss_of_classification():
    outputs, batch = mixed_batch()
    plain = {name: batch[name] for name in ("labels", "weight")}
    loss_fn = TASK.loss.make(LossSettings(), NAMES, np.arange(3))
    found = loss_fn(jnp.asarray(outputs), plain)
    assert list(found) == list(cross_entropy(jnp.asarray(outputs), plain))


def test_a_record_names_the_file():
    examples = SimpleNamespace(images=[Source("a/x.png", ""), Source("b.parquet row 3", "")])
    outputs = np.log(np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]]))
    records = TASK.output.decode(outputs, examples, NAMES)
    assert [(r["file"], r["label"]) for r in records] == [
        ("a/x.png", "blue"),
        ("b.parquet row 3", "red"),
    ]
    assert records[0]["probabilities"] == pytest.approx({"blue": 0.7, "green": 0.2, "red": 0.1})


@pytest.fixture
def folder(tmp_path):
    """Noisy images of one colour each; sizes differ."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 5)):
        for channel, name in enumerate(reversed(NAMES)):
            for i in range(count):
                size = rng.integers(9, 30, 2)
                values = rng.integers(0, 120, (*size, 3))
                values[..., channel] += 120
                file = tmp_path / split / name / f"{i}.jpg"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(values.astype(np.uint8)).save(file)
    return tmp_path


@pytest.mark.parametrize(
    "model", ["vit-image", pytest.param("resnet-image", marks=pytest.mark.exhaustive)]
)
def test_it_learns_with_all_augmentation(folder, tmp_path, model):
    (tmp_path / "preprocessor_config.json").write_text('{"size": 12}')
    settings = from_dict(
        DataSettings,
        {"path": str(folder), "augmentation": AugmentationSettings("pad", True, 1, 3, 0.2, 1.0)},
    )
    data = read_data(settings, TASK.data.reader)
    source = read_source(FAMILIES / model)
    source = source._replace(config=with_statistics(source.config, False))
    outputs = choose_outputs(TASK.head, source.hf_config, data.class_names)
    design = make_design(source, TASK.head, outputs)
    loaded = load_weights(design, key=jax.random.key(0), from_scratch=True)
    assert loaded.class_names == NAMES
    TASK.data.inputs.check_settings(settings, loaded.config, loaded.folder)
    processor = TASK.data.inputs.load(tmp_path, loaded.config)
    train, notes = TASK.data.encode(data.splits["train"], processor, settings, iter)
    test, _ = TASK.data.encode(data.splits["validation"], processor, settings, iter)
    assert notes == []
    loss_fn = TASK.loss.make(LossSettings(label_smoothing=0.1), NAMES, train.labels)
    optimizer, traces = optax.adam(1e-2), []

    @jax.jit
    def step(params, state, batch):
        traces.append(batch)

        def loss(params):
            outputs = loaded.apply_fn(params, batch, key=jax.random.key(1), train=True)
            total, weight = loss_fn(outputs, batch)
            return total / weight

        updates, state = optimizer.update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, updates), state

    params, lengths = loaded.params, choose_lengths(train.lengths, 4)
    state = optimizer.init(params)
    for epoch in range(10):
        for index in train_order(train.lengths, lengths, 8, 0, epoch):
            params, state = step(params, state, train.collate(index, 8, (0, epoch)))
    assert len(traces) == 1  # the ragged batch has the shape of the others

    @jax.jit
    def evaluate(params, batch):
        outputs = loaded.apply_fn(params, batch, key=None, train=False)
        return TASK.loss.metrics(outputs, batch), outputs

    layout = Layout("bucketed", 4, lengths)
    means, outputs = predict_all(lambda batch: evaluate(params, batch), test, layout)
    scores = all_scores(TASK, means, outputs, test)
    assert scores["accuracy"] == means["accuracy"] > 0.9
    records = TASK.output.decode(outputs, test, NAMES)
    right = [Path(record["file"]).parent.name == record["label"] for record in records]
    assert np.mean(right) == scores["accuracy"]
