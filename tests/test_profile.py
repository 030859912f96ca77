import gzip
import io
import json

import jax.numpy as jnp
import pytest
from rich.console import Console

from jaxtune.core.errors import UserError
from jaxtune.run.config import load_config
from jaxtune.run.console import Report
from jaxtune.run.profile import Profile


@pytest.fixture
def shown():
    return io.StringIO()


def run(profile, count):
    for step in range(count):
        profile.before(step, [])
        jnp.sin(jnp.ones(3)).block_until_ready()
        profile.after(step + 1)


def test_some_steps_are_traced(tmp_path, shown):
    folder = tmp_path / "profile"
    profile = Profile((2, 4), folder, Report(Console(file=shown, width=500)))
    run(profile, 2)
    assert not folder.exists()
    assert not shown.getvalue()
    run(profile, 6)
    profile.close()
    (trace,) = folder.rglob("*.trace.json.gz")
    assert "traceEvents" in json.loads(gzip.decompress(trace.read_bytes()))
    assert len([*folder.rglob("*.xplane.pb")]) == 1
    assert len([*folder.rglob("perfetto_trace.json.gz")]) == 1
    assert shown.getvalue().count("\n") == 1
    assert str(folder) in shown.getvalue()
    assert "perfetto" in shown.getvalue()


def test_what_was_traced_is_written_when_the_run_ends_early(tmp_path, shown):
    profile = Profile((1, 100), tmp_path, Report(Console(file=shown)))
    run(profile, 3)
    profile.close()
    profile.close()
    assert len([*tmp_path.rglob("*.xplane.pb")]) == 1


def test_nothing_is_traced_unless_asked_for(tmp_path, shown):
    for steps in (None, (7, 9)):
        profile = Profile(steps, tmp_path / "profile", Report(Console(file=shown)))
        run(profile, 5)
        profile.close()
    assert not (tmp_path / "profile").exists()


def load(tmp_path, steps, **train):
    file = tmp_path / "config.json"
    fields = {"model": {"path": "m"}, "data": {"path": "d"}, "train": train}
    file.write_text(json.dumps(fields))
    return load_config(str(file), {"profile.steps": steps}).profile.steps


def test_steps_are_two_numbers(tmp_path):
    assert load(tmp_path, "10,12") == (10, 12)
    assert load(tmp_path, "(0, 1)", num_steps=1) == (0, 1)
    assert load(tmp_path, "None") is None


@pytest.mark.parametrize("steps", ["5", "5,5", "7,5", "-1,5", "1,2,3", "a,b", "1.5,2"])
def test_other_steps_are_refused(tmp_path, steps):
    with pytest.raises(UserError, match=r"config\.profile\.steps is"):
        load(tmp_path, steps)


def test_steps_after_the_last_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"profile\.steps is \(5, 9\).*num_steps 8"):
        load(tmp_path, "5,9", num_steps=8)
