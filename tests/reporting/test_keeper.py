"""Of all evaluations, what the best one gave is kept, and nothing is computed again for it."""

from types import SimpleNamespace

import numpy as np
import pytest
from finished_runs import MADE

from jaxtune.run import predictions_folder
from jaxtune.run.at_best import AtBest
from jaxtune.run.keeper import keeping, write
from jaxtune.run.setup import Held
from jaxtune.settings.data import ColumnSettings
from jaxtune.tasks.registry import TASKS


def keeper_of(split, say=print):
    """Of a run that is evaluated after each second step, and the outputs of an evaluation."""
    outputs, examples = MADE["regression"]()
    texts = [(f"text {i}",) for i in range(len(outputs))]
    run = SimpleNamespace(
        task=TASKS["regression"],
        data=SimpleNamespace(held=Held(split, texts), examples={split: examples}, processor=None),
        settings=SimpleNamespace(
            data=SimpleNamespace(columns=ColumnSettings()),
            train=SimpleNamespace(eval_every_steps=2),
        ),
        goal=SimpleNamespace(steps_per_epoch=5),
    )
    return AtBest(run, split, keeping(run, say)), outputs


def moment(step, best):
    goal = SimpleNamespace(num_steps=6)
    progress = SimpleNamespace(best_step=best)
    return SimpleNamespace(step=step, progress=progress, run=SimpleNamespace(goal=goal))


def never(params, split):
    raise AssertionError("computed again")


def test_what_the_best_evaluation_gave_is_kept(tmp_path):
    keeper, outputs = keeper_of("validation")
    for step, best in ((2, 2), (4, 4), (6, 4)):
        assert keeper.hook.due(moment(step, best))
        assert not keeper.hook.due(moment(step - 1, best))
        keeper.see("validation", outputs + step)
        keeper.hook.act(moment(step, best))
    write(tmp_path, keeper.finish(4, None, never), print)
    kept = predictions_folder.read(tmp_path)
    assert (kept.split, kept.step) == ("validation", 4)
    np.testing.assert_array_equal(kept.arrays["predictions"], outputs + 4)
    off = np.abs(outputs + 4 - kept.arrays["targets"])[:, 0]
    assert [row["index"] for row in kept.rows] == np.argsort(-off, kind="stable")[:20].tolist()
    assert kept.rows[0]["texts"] == [["text", f"text {kept.rows[0]['index']}"]]


def test_a_run_that_goes_on_after_its_best_step_evaluates_that_once(tmp_path):
    keeper, outputs = keeper_of("validation")
    keeper.see("validation", outputs)
    keeper.hook.act(moment(6, 4))
    asked = []

    def scores_of(params, split):
        asked.append((params, split))
        keeper.see(split, outputs + 1)

    write(tmp_path, keeper.finish(4, "params", scores_of), print)
    assert asked == [("params", "validation")]
    kept = predictions_folder.read(tmp_path)
    np.testing.assert_array_equal(kept.arrays["predictions"], outputs + 1)


def test_the_test_split_takes_the_place_of_validation(tmp_path):
    keeper, outputs = keeper_of("test")
    keeper.see("validation", outputs + 1)
    keeper.hook.act(moment(2, 2))
    write(tmp_path, keeper.finish(-1, None, never), print)
    assert predictions_folder.read(tmp_path) is None
    keeper.see("test", outputs)
    write(tmp_path, keeper.finish(2, None, never), print)
    kept = predictions_folder.read(tmp_path)
    assert kept.split == "test"
    np.testing.assert_array_equal(kept.arrays["predictions"], outputs)


def test_what_cannot_be_kept_ends_no_run(tmp_path):
    told = []
    keeper, outputs = keeper_of("test", told.append)
    keeper.see("test", outputs[:, :0])
    write(tmp_path, keeper.finish(2, None, never), print)
    assert told[0].startswith("nothing is kept for a report: ValueError: ")
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("content", [b"", b"PK", b"\x93NUMPY"])
def test_a_damaged_folder_is_one_message(content, tmp_path):
    keeper, outputs = keeper_of("test")
    keeper.see("test", outputs)
    write(tmp_path, keeper.finish(2, None, never), print)
    (tmp_path / "predictions" / "outputs.npz").write_bytes(content)
    with pytest.raises(predictions_folder.UserError, match="is damaged"):
        predictions_folder.read(tmp_path)
