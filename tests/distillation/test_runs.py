"""Runs with a teacher: their batches, in any layout, on a restart, and what is refused."""

import gc
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from copies import copy_model
from cover import mark_rest
from safetensors.numpy import load_file, save_file
from scipy.special import log_softmax

from jaxtune.core import dropout, paths
from jaxtune.core.errors import UserError
from jaxtune.data.batching.batches import BatchIndex
from jaxtune.data.sources.rows import Rows
from jaxtune.run import lesson, stages
from jaxtune.run.console import Report
from jaxtune.run.hooks import Hook, every
from jaxtune.run.predictions import outputs_of
from jaxtune.run.prepare import prepare
from jaxtune.run.saved import open_saved
from jaxtune.run.train import train
from jaxtune.tasks.registry import TASKS
from jaxtune.training.state import init_state
from jaxtune.training.step import make_train_step
from jaxtune.tuning import partition

TAUGHT = [name for name, task in TASKS.items() if task.loss.soft is not None]
FAMILY = dict.fromkeys(TAUGHT, "bert") | {"image_classification": "vit"}
LAYOUTS = ("padded", "packed", "bucketed")


class Lines(Report):
    def __init__(self):
        super().__init__(quiet=True)
        self.lines = []

    def line(self, text):
        self.lines.append(text)


@pytest.fixture
def loud(tiny_weights, once):
    """A function: task, family -> a model of two layers that tells rows apart."""

    def make(task, family):
        def fill(place):
            shutil.copytree(tiny_weights(task, family, 2), place / "model")
            file = place / "model" / "model.safetensors"
            tensors = load_file(file)
            save_file({n: x * (30 if x.ndim > 1 else 1) for n, x in tensors.items()}, file)

        return once(f"loud-{task}-{family}", fill) / "model"

    return make


@pytest.fixture
def settings(tiny_settings, tiny_weights, loud):
    """A function: task, overrides -> a student of one layer beside a teacher of two."""

    def make(task="classification", teacher=None, student=None, strategy="full", **overrides):
        family = FAMILY.get(task, "bert")
        teacher = teacher or loud(task, family)
        student = student or tiny_weights(task, family, 1)
        fields = {"distillation.teacher": teacher, "distillation.alpha": 0.7} | overrides
        return tiny_settings(task, strategy, student, **fields)

    return make


def first_step(run):
    """Loss and gradients of the first batch, with dropout."""
    trainable, frozen = partition.partition(run.params, run.tuning.stage_labels[0])
    tx = optax.GradientTransformation(lambda params: params, lambda grads, *_: (grads, grads))
    step = make_train_step(
        run.task.loss.read(run.tuning.train_fn(run.pretrained.module)),
        run.goal.loss_fn,
        tx,
        num_microbatches=run.settings.train.num_microbatches,
        part_key=dropout.same_key,
    )
    stream = run.data.stream
    index, epoch = next(stream.indices())
    batch = jax.tree.map(jnp.asarray, stream.collate(index, epoch))
    state, info = jax.jit(step)(init_state(trainable, tx, jax.random.key(0)), frozen, batch)
    return batch, info, paths.flatten(jax.device_get(state.opt_state))


@pytest.mark.parametrize(
    "task", mark_rest(TAUGHT, ("token_classification", "image_classification"))
)
def test_batches_have_what_the_teacher_gives_for_each_example_alone(task, settings):
    made = settings(task, **{"data.layout": "packed"})
    run = prepare(made, Report(quiet=True))
    teacher = open_saved(made.distillation.teacher, data=made.data)
    stream = run.data.stream
    index, epoch = next(stream.indices())
    batch = stream.collate(index, epoch)
    examples, lengths = run.data.examples["train"], stream.examples.lengths
    for i, _, row, slot, start, stop in index.spans(lengths):
        alone = examples.collate(BatchIndex(np.array([i]), int(lengths[i])), 1)
        del alone["labels"]
        _, outputs = teacher.step(teacher.pretrained.params, alone)
        found = batch["teacher_outputs"]
        if run.task.output.per_token:
            found = found[row, start:stop]
        else:
            found = found[row] if index.rows is None else found[row, slot]
        np.testing.assert_allclose(found, np.asarray(outputs)[0], atol=5e-5)


@pytest.mark.parametrize(
    ("task", "hidden"),
    mark_rest(
        [(task, hidden) for task in TAUGHT for hidden in (0.0, 0.4)],
        [("multi_label", 0.0), ("question_answering", 0.4)],  # of examples, and of tokens
    ),
)
def test_loss_and_gradients_are_the_same_in_any_layout_and_in_microbatches(task, hidden, settings):
    fields = {"distillation.hidden_weight": hidden, "distillation.alpha": 0.9}
    if hidden:
        fields["distillation.layer_map"] = "1=2"
    found = {}
    for layout in LAYOUTS[:2]:
        run = prepare(settings(task, **fields | {"data.layout": layout}), Report(quiet=True))
        found[layout] = first_step(run)
    parts = {"train.num_microbatches": 2, "data.layout": "padded"}
    found["parts"] = first_step(prepare(settings(task, **fields | parts), Report(quiet=True)))
    batch, wanted, grads = found["padded"]
    assert ("teacher_states" in batch) == bool(hidden)
    top = max(float(np.abs(g).max()) for g in grads.values())
    assert top > 0
    for _, info, others in found.values():
        assert float(info.loss.value) == pytest.approx(float(wanted.loss.value), rel=1e-5)
        assert float(info.loss.weight) == float(wanted.loss.weight)
        for name, grad in others.items():
            np.testing.assert_allclose(grad, grads[name], atol=1e-5 * top, err_msg=name)


def test_the_loss_is_the_sum_of_its_parts(settings):
    """By hand, from hidden states and outputs of both models."""
    fields = {"distillation.hidden_weight": 0.4, "distillation.layer_map": "1=2"}
    fields |= {"distillation.temperature": 3, "data.layout": "padded"}
    made = settings(**fields)
    run = prepare(made, Report(quiet=True))
    index, epoch = next(run.data.stream.indices())
    batch = jax.tree.map(jnp.asarray, run.data.stream.collate(index, epoch))
    student, teacher = (
        open_saved(folder).pretrained for folder in (made.model.path, made.distillation.teacher)
    )
    own, other = (
        model.module.apply({"params": model.params}, batch, method="hidden_states")
        for model in (student, teacher)
    )
    z, wanted_z = (
        np.asarray(model.apply_fn(model.params, batch, key=None, train=False), np.float64)
        for model in (student, teacher)
    )
    log_p, log_q = (log_softmax(x / 3.0, axis=-1) for x in (wanted_z, z))
    soft = 9 * (np.exp(log_p) * (log_p - log_q)).sum(-1)
    labels = np.asarray(batch["labels"])
    hard = -np.take_along_axis(log_softmax(z, axis=-1), labels[:, None], 1)[:, 0]
    errors = ((np.asarray(own[1], np.float64) - np.asarray(other[2], np.float64)) ** 2).mean(-1)
    mask = np.asarray(batch["attention_mask"])
    hidden = (errors * mask).sum(1) / mask.sum(1)
    wanted = (np.asarray(batch["weight"]) * (0.3 * hard + 0.7 * soft + 0.4 * hidden)).sum()

    apply_fn = run.tuning.train_fn(run.pretrained.module)
    found = run.goal.loss_fn(apply_fn(student.params, batch, key=None, train=False), batch)
    assert float(found.total) == pytest.approx(wanted, rel=1e-4)
    assert min(abs(part).max() for part in (hard, soft, hidden)) > 1e-3


class StopError(Exception):
    """Ends a run in the midst of it."""


def stop(moment):
    if moment.step == 3:
        raise StopError


RESUMED = {
    "packed, hidden states": {
        "data.layout": "packed",
        "distillation.hidden_weight": 0.5,
        "distillation.layer_map": "1=2",
    },
    "kept activations": {
        "tuning.name": "last_layers",
        "tuning.num_layers": 0,
        "data.layout": "padded",
    },
    "lora, microbatches": {"tuning.name": "lora", "tuning.rank": 2, "train.num_microbatches": 2},
}


@pytest.mark.parametrize("kind", mark_rest(RESUMED, ("packed, hidden states",)))
def test_a_resumed_run_ends_with_the_same_bits(kind, settings, tmp_path):
    fields = RESUMED[kind]
    more = {"train.checkpoint_every_steps": 2, "train.eval_every_steps": 2}
    made = settings(**fields | more)
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    train(made, straight, Report(quiet=True))
    with pytest.raises(StopError):
        train(made, stopped, Report(quiet=True), hooks=[Hook(stop, every(1))])
    train(made, stopped, Report(quiet=True))
    one, other = (
        load_file(folder / "model" / "model.safetensors") for folder in (straight, stopped)
    )
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name], err_msg=name)


def test_an_export_is_the_student_and_config_json_runs_again(settings, tmp_path, tiny_weights):
    made = settings(
        student=tiny_weights("classification", "bert", 2),
        **{"model.layers": "every 2", "distillation.temperature": 4},
    )
    train(made, tmp_path / "run", Report(quiet=True))
    kept = json.loads((tmp_path / "run" / "config.json").read_text())
    assert len(kept["distillation"]["teacher_sha256"]) == 64
    config = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    assert config["num_hidden_layers"] == 1
    saved = open_saved(tmp_path / "run" / "model")
    assert not saved.pretrained.report.unused


def test_outputs_are_kept_from_run_to_run(settings, tmp_path, monkeypatch):
    folder = tmp_path / "kept"
    folder.mkdir()
    report = Lines()
    first = prepare(settings(), report, folder)
    assert any("ran once over 9 training examples" in line for line in report.lines)
    calls = []
    monkeypatch.setattr(lesson, "_run_teacher", lambda *args: calls.append(args))
    again = prepare(settings(), report, folder)
    assert not calls
    assert any("kept from a run before" in line for line in report.lines)
    for run in (first, again):
        index, epoch = next(run.data.stream.indices())
        run.data.stream.collate(index, epoch)
    np.testing.assert_array_equal(
        *(run.data.stream.examples.lesson.outputs.values for run in (first, again))
    )
    for changed in ({"data.layout": "bucketed"}, {"precision.compute_dtype": "bfloat16"}):
        calls.clear()
        prepare(settings(**changed), report, folder)
        assert calls, changed


def permuted(folder, copy):
    """The same model with its classes in another order."""
    config = json.loads((folder / "config.json").read_text())
    names = [config["id2label"][str(i)] for i in range(len(config["id2label"]))]
    order = [1, 0]
    names = [names[i] for i in order]
    copy_model(
        folder,
        copy,
        {
            "id2label": {str(i): name for i, name in enumerate(names)},
            "label2id": {name: i for i, name in enumerate(names)},
        },
    )
    tensors = load_file(copy / "model.safetensors")
    for part in ("weight", "bias"):
        tensors[f"classifier.{part}"] = np.ascontiguousarray(tensors[f"classifier.{part}"][order])
    save_file(tensors, copy / "model.safetensors")
    return copy


def test_a_teacher_may_have_its_classes_in_another_order(settings, loud, tmp_path):
    teacher = loud("classification", "bert")
    other = permuted(teacher, tmp_path / "permuted")
    found = [
        prepare(
            settings(teacher=one), Report(quiet=True)
        ).data.stream.examples.lesson.outputs.values
        for one in (teacher, other)
    ]
    np.testing.assert_allclose(*found, atol=1e-5)
    assert np.abs(found[0][:, 0] - found[0][:, 1]).max() > 0.1


def test_a_teacher_of_whole_texts_may_have_its_own_tokenizer(settings, loud):
    made = settings(teacher=loud("classification", "gpt2"))
    run = prepare(made, Report(quiet=True))
    teacher = open_saved(made.distillation.teacher, data=made.data)
    lines = Path(made.data.source.path, "train.jsonl").read_text().splitlines()
    rows = Rows([(json.loads(line)["text"],) for line in lines], None)
    examples, _ = teacher.task.data.encode(rows, teacher.processor, made.data, iter)
    _, wanted = outputs_of(teacher, examples, 4, Report(quiet=True), "rows")
    order = [teacher.pretrained.class_names.index(name) for name in run.pretrained.class_names]
    found = run.data.stream.examples.lesson.outputs.values
    np.testing.assert_allclose(found, wanted[:, order], atol=5e-5)
    assert np.ptp(found, axis=0).max() > 0.1


def test_nothing_of_the_teacher_stays_on_the_device(settings):
    """Its weights are freed; what it gave is on the host."""

    def living():
        gc.collect()
        return sum(x.nbytes for x in jax.live_arrays() if jnp.issubdtype(x.dtype, jnp.inexact))

    before = living()
    run = prepare(
        settings(**{"distillation.hidden_weight": 1, "distillation.layer_map": "1=2"}),
        Report(quiet=True),
    )
    own = sum(x.nbytes for x in jax.tree.leaves(run.params))
    assert own <= living() - before < own + 300


def test_a_step_has_no_forward_pass_of_the_teacher(settings, tiny_weights):
    """The compiled step does the operations of one without a teacher, and those of the loss."""

    def flops(**fields):
        run = prepare(settings(**fields), Report(quiet=True))
        run, stage = stages.begin_run(run)
        _, batch = next(stage.loader.on_devices())
        program = stage.step.program(stage.state, stage.frozen, batch)
        return program.cost_analysis()["flops"]

    teacher = tiny_weights("classification", "roberta", 2)
    with_one = flops(teacher=teacher)
    without = flops(**{"distillation.teacher": None, "distillation.alpha": 0.5})
    forward = 2 * 2 * 4 * 16 * (4 * 16 * 16 + 2 * 16 * 32)  # products of its two layers alone
    assert without < with_one < without + 0.1 * forward


ERRORS = {
    "another task": ({"teacher": "token_classification"}, "is a model of token_classification"),
    "a vocabulary": ({"task": "masked_lm"}, "has a vocabulary for classes"),
    "few texts": ({"task": "few_shot"}, "few_shot compares texts with each other"),
    "no folder": ({"distillation.teacher": "/nowhere/x"}, "/nowhere/x does not exist"),
    "dropout of tokens": ({"data.token_dropout": 0.1}, "config.data.token_dropout changes"),
    "weights": ({"distillation.teacher_sha256": "ab"}, "expected ab"),
    "a map": (
        {"distillation.hidden_weight": 1, "distillation.layer_map": "2=1"},
        r"has '2=1': expected STUDENT=TEACHER",
    ),
    "frozen": (
        {"distillation.hidden_weight": 1, "tuning.name": "head"},
        "its lower 1 layers are frozen",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_what_cannot_be_learnt_is_refused(case, settings, tiny_weights, monkeypatch):
    fields, words = ERRORS[case]
    fields = dict(fields)
    if "teacher" in fields:
        fields["teacher"] = tiny_weights(fields["teacher"], "bert", 2)
    made = settings(**fields)
    if case != "weights":
        monkeypatch.setattr(lesson, "load_weights", None)
        monkeypatch.setattr("jaxtune.run.prepare.load_weights", None)
    with pytest.raises(UserError, match=words):
        prepare(made, Report(quiet=True))


def test_other_classes_are_refused(settings, tiny_weights, tmp_path):
    teacher = tiny_weights("classification", "bert", 2)
    names = {"id2label": {"0": "up", "1": "down"}, "label2id": {"up": 0, "down": 1}}
    other = copy_model(teacher, tmp_path / "other", names)
    with pytest.raises(
        UserError, match=r"other classes: up, down.*Expected a teacher with no, yes"
    ):
        prepare(settings(teacher=other), Report(quiet=True))


@pytest.mark.parametrize("task", ["token_classification", "classification"])
def test_tokens_of_another_tokenizer_are_refused(task, settings, tiny_weights):
    fields = {} if task == "token_classification" else {"distillation.hidden_weight": 1}
    made = settings(task, teacher=tiny_weights(task, "gpt2", 2), **fields)
    with pytest.raises(UserError, match="another tokenizer than the student, so its tokens are"):
        prepare(made, Report(quiet=True))


def test_states_of_another_width_are_refused(settings, tiny_weights, tiny_tasks, tmp_path):
    teacher = tiny_weights("classification", "bert", 2)
    wide = copy_model(teacher, tmp_path / "wide", {"hidden_size": 32})
    made = settings(
        teacher=wide, **{"distillation.hidden_weight": 1, "distillation.layer_map": "1=1"}
    )
    with pytest.raises(
        UserError, match=r"state 1 of the student, of shape .* 16\] for a batch, with"
    ):
        prepare(made, Report(quiet=True))


def test_a_teacher_without_a_head_is_refused(settings, tiny_weights, tmp_path):
    teacher = tiny_weights("classification", "bert", 2)
    base = copy_model(teacher, tmp_path / "base", {"architectures": ["BertModel"]})
    (base / "jaxtune.json").unlink(missing_ok=True)
    with pytest.raises(UserError, match="has no head: expected a model fine-tuned on this task"):
        prepare(settings(teacher=base), Report(quiet=True))
