"""Every task with every family and every strategy: two steps, scores, an export, a reload.

Where a combination cannot be, it is refused with a reason.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtune import adapted, stages
from jaxtune.config import default_config, load_config
from jaxtune.errors import UserError
from jaxtune.evaluate import all_scores, predict_all
from jaxtune.models.registry import FAMILIES
from jaxtune.report import Report
from jaxtune.run import prepare, training_batches
from jaxtune.saved import open_saved
from jaxtune.step import make_eval_step, make_train_step
from jaxtune.tasks.registry import TASKS
from jaxtune.tuning import adapters
from jaxtune.tuning.registry import STRATEGIES

FIELDS = {
    "last_layers": {"num_layers": 1},
    "first_layers_frozen": {"num_layers": 1},
    "rules": {"rules": ("bias$=trainable", ".*=frozen")},
    "gradual": {"stage_by": "step", "stage_length": 1.0, "layers_per_stage": 2},
    "lora": {"rank": 2},
    "adapter": {"bottleneck_size": 3},
    "prefix": {"prefix_length": 2},
}
REFUSED = {  # (family or task, strategy): a part of the reason
    ("resnet", "lora"): "acts on matrices",
    ("resnet", "ia3"): "acts on matrices",
    ("resnet", "adapter"): "acts on matrices",
    ("resnet", "prefix"): "acts on matrices",
    ("causal_lm", "head"): "word embeddings",
}
COMBINATIONS = [
    (task, family)
    for task in TASKS
    for family in FAMILIES
    if TASKS[task].head in FAMILIES[family].heads
]


@pytest.fixture(scope="session")
def weights_folder(tiny_families, tiny_tasks, tmp_path_factory):
    """Drawn once for each task and family: a folder with weights and a head."""
    found = {}

    def make(task, family):
        if (task, family) not in found:
            place = tmp_path_factory.mktemp(f"{task}-{family}")
            folders = (tiny_families[family], tiny_tasks[task])
            run = prepare(settings_of(task, "full", *folders, place, from_scratch=True), Report())
            adapted.write(place, run, run.params, {}, Report())
            found[task, family] = place / "model"
        return found[task, family]

    return make


def settings_of(task, strategy, model, data, tmp_path, *, from_scratch=False):
    folder, fields = data
    config = default_config()
    config.task = task
    config.model.path, config.model.from_scratch = str(model), from_scratch
    config.data.path, config.data.max_length = str(folder), 16
    config.data.layout = "padded"
    for name, value in fields.items():
        config.data[name] = value
    config.tuning.name = strategy
    for name, value in FIELDS.get(strategy, {}).items():
        config.tuning[name] = value
    config.train.batch_size = config.train.eval_batch_size = 4
    config.train.num_steps = 6
    file = tmp_path / "config.json"
    file.write_text(config.to_json())
    return load_config(str(file), {})


def predict(task, apply_fn, params, examples, layout):
    """Nothing is compiled whole: single operations are, once for all tests."""
    step = make_eval_step(apply_fn, task.metrics_fn, task.fetch)
    no_holes = jax.tree.map(lambda _: None, params)
    return predict_all(
        lambda batch: step(params, no_holes, jax.tree.map(jnp.asarray, batch)),
        examples,
        layout,
        per_token=task.per_token,
    )


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(("task", "family"), COMBINATIONS)
def test_trains_scores_exports_and_reloads(
    task, family, strategy, weights_folder, tiny_tasks, tmp_path
):
    folders = (weights_folder(task, family), tiny_tasks[task])
    settings = settings_of(task, strategy, *folders, tmp_path)
    for part in (task, family):
        if (part, strategy) in REFUSED:
            with pytest.raises(UserError, match=REFUSED[part, strategy]):
                prepare(settings, Report())
            return
    run = prepare(settings, Report())
    assert not run.pretrained.report.new
    stage = stages.begin(run, 0, run.params)
    step = make_train_step(run.apply_fn, run.loss_fn, run.optimizer(0))
    state, stream = stage.state, training_batches(run)
    for _ in range(2):
        batch = jax.tree.map(jnp.asarray, next(stream)[1])
        state, info = step(state, stage.frozen, batch)
    assert np.isfinite(float(info.loss.value))
    assert float(info.grad_norm) > 0
    params = stages.assemble(stage._replace(state=state))
    examples = run.examples["validation"]
    means, outputs = predict(run.task, run.apply_fn, params, examples, run.eval_layout)
    scores = all_scores(run.task, means, outputs, examples)
    assert scores.keys() >= run.task.higher_is_better.keys()
    card = {"task": task, "max_length": 16}
    adapted.write(tmp_path, run, params, card, Report())
    saved = open_saved(str(tmp_path / "model"))
    assert saved.task.name == task
    model = saved.pretrained
    assert model.class_names == run.pretrained.class_names
    _, again = predict(saved.task, model.apply_fn, model.params, examples, run.eval_layout)
    merged = adapters.is_mergeable(run.strategy) and strategy in ("lora", "ia3")
    for one, other in zip(outputs, again, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5 if merged else 0, rtol=0)
    records = saved.task.decode(again, examples, model.class_names)
    joined = task in ("causal_lm", "masked_lm")  # into blocks that belong to no row
    assert len(records) == (6 if task == "image_classification" else 1 if joined else 5)
