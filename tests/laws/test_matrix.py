"""Every task with every family and every strategy: two steps, scores, an export, a reload.

Where a combination cannot be, it is refused with a reason. The default tests run a cover of these
(test_cover.py).
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cover import COMBINATIONS, REFUSED

from jaxtune.core.errors import UserError
from jaxtune.export import adapter_folder
from jaxtune.run import stages
from jaxtune.run.console import Report
from jaxtune.run.evaluate import all_scores, predict_all
from jaxtune.run.prepare import prepare
from jaxtune.run.saved import open_saved
from jaxtune.run.setup import make_tx
from jaxtune.run.train import product_of
from jaxtune.training.eval_step import make_eval_step
from jaxtune.training.step import make_train_step
from jaxtune.tuning import injection
from jaxtune.tuning.registry import STRATEGIES


def predict(task, apply_fn, params, examples, layout):
    """Nothing is compiled whole: single operations are, once for all tests."""
    step = make_eval_step(apply_fn, task.loss.metrics, task.output.fetch)
    no_holes = jax.tree.map(lambda _: None, params)
    return predict_all(
        lambda batch: step(params, no_holes, jax.tree.map(jnp.asarray, batch)),
        examples,
        layout,
        per_token=task.output.per_token,
    )


def batches_of(run):
    """The training batches, for the whole model."""
    stream = run.data.stream
    return ((index, stream.collate(index, epoch)) for index, epoch in stream.indices())


@pytest.mark.exhaustive
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(("task", "family"), COMBINATIONS)
def test_trains_scores_exports_and_reloads(
    task, family, strategy, tiny_weights, tiny_settings, tmp_path
):
    settings = tiny_settings(task, strategy, tiny_weights(task, family))
    for part in (task, family):
        if (part, strategy) in REFUSED:
            with pytest.raises(UserError, match=REFUSED[part, strategy]):
                prepare(settings, Report())
            return
    run = prepare(settings, Report())
    assert not run.pretrained.report.new
    stage = stages.begin(run, 0, run.params)
    step = make_train_step(run.tuning.apply_fn, run.goal.loss_fn, make_tx(run, 0))
    state, stream = stage.state, batches_of(run)
    for _ in range(2):
        batch = jax.tree.map(jnp.asarray, next(stream)[1])
        state, info = step(state, stage.frozen, batch)
    assert np.isfinite(float(info.loss.value))
    assert float(info.grad_norm) > 0
    params = stages.assemble(stage._replace(state=state))
    examples = run.data.examples["validation"]
    means, outputs = predict(run.task, run.tuning.apply_fn, params, examples, run.data.eval_layout)
    scores = all_scores(run.task, means, outputs, examples)
    assert scores.keys() >= run.task.scores.higher_is_better.keys()
    card = {"task": task, "max_length": 16}
    adapter_folder.write(tmp_path, product_of(run), params, card, print)
    saved = open_saved(str(tmp_path / "model"))
    assert saved.task.name == task
    model = saved.pretrained
    assert model.class_names == run.pretrained.class_names
    _, again = predict(saved.task, model.apply_fn, model.params, examples, run.data.eval_layout)
    merged = injection.is_mergeable(run.tuning.strategy) and strategy in ("lora", "ia3")
    for one, other in zip(outputs, again, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5 if merged else 0, rtol=0)
    records = saved.task.output.decode(again, examples, model.class_names)
    joined = task in ("causal_lm", "masked_lm")  # into blocks that belong to no row
    assert len(records) == (6 if task == "image_classification" else 1 if joined else 5)
