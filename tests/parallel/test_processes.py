"""The command in several processes: who writes, and what happens when one of them ends."""

import json
import signal
import subprocess
import sys
import time

import pytest

from jaxtune import main
from jaxtune.run.config import load_config

LAST = 20
FIELDS = {
    "train.num_steps": LAST,
    "train.checkpoint_every_steps": 4,
    "train.log_every_steps": 4,
    "train.eval_every_steps": LAST,
}


class Processes:
    """Two processes of the command, with two devices each."""

    def __init__(self, start, config, workdir, fields):
        port, flags = start.free_port(), [f"--config.{k}={v}" for k, v in fields.items()]
        command = [sys.executable, "-m", "jaxtune.main", f"--config={config}"]
        command += [f"--workdir={workdir}", "--distributed", "--num_processes=2"]
        command += [f"--coordinator_address=localhost:{port}", *flags]
        self.all = [
            subprocess.Popen(
                [*command, f"--process_id={i}"],
                env=start.environment(2),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                cwd=start.root,
            )
            for i in range(2)
        ]

    def wait(self):
        return [process.communicate(timeout=300) for process in self.all]


def steps_of(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [row["step"] for row in map(json.loads, lines) if "train/loss" in row]


def wait_for(checkpoint, run):
    while not checkpoint.exists():
        assert run.all[0].poll() is None, run.wait()
        time.sleep(0.05)


def stop(run):
    """Both end together, with a checkpoint."""
    run.all[1].terminate()
    (out, said), _ = run.wait()
    assert [process.returncode for process in run.all] == [128 + signal.SIGTERM] * 2, said
    assert "stopped by SIGTERM at step" in out


def kill(run):
    """The other one ends too."""
    run.all[1].kill()
    killed = time.monotonic()
    (_, said), _ = run.wait()
    assert time.monotonic() - killed < 150
    assert run.all[0].returncode != 0
    assert "lost the others" in said or "another task died" in said


@pytest.mark.exhaustive
@pytest.mark.parametrize("end", [stop, kill])
def test_a_run_outlives_the_end_of_a_process(start, config, tmp_path, end):
    workdir = tmp_path / "run"
    run = Processes(start, config, workdir, FIELDS | {"parallel.fsdp": 2, "parallel.tensor": 2})
    wait_for(workdir / "checkpoints" / "4", run)
    end(run)
    assert max(int(folder.name) for folder in (workdir / "checkpoints").iterdir()) < LAST
    # On another mesh it ends as a run that was not stopped.
    again = Processes(start, config, workdir, FIELDS)
    (out, said), (other_out, _) = again.wait()
    assert [process.returncode for process in again.all] == [0, 0], said
    assert "going on from the checkpoint at step" in out
    assert "validation" not in other_out  # one of them speaks for both
    assert steps_of(workdir) == list(range(4, LAST + 1, 4))
    results = json.loads((workdir / "results.json").read_text())
    assert results["steps"] == LAST
    alone = tmp_path / "alone"
    fields = [f"--config.{k}={v}" for k, v in FIELDS.items()]
    main.main([f"--config={config}", f"--workdir={alone}", *fields])
    expected = json.loads((alone / "results.json").read_text())["scores"]["validation"]
    assert results["scores"]["validation"] == pytest.approx(expected, abs=2e-5)
    assert (workdir / "model" / "model.safetensors").exists()
    assert load_config(str(workdir / "config.json"), {}).parallel.fsdp == 1  # as it went on


def test_what_differs_between_processes_is_named(start, config, tmp_path):
    port = start.free_port()
    command = [sys.executable, "-m", "jaxtune.main", f"--config={config}", "--distributed"]
    command += [f"--workdir={tmp_path}", "--num_processes=2", "--config.train.num_steps=2"]
    command += [f"--coordinator_address=localhost:{port}"]
    processes = [
        subprocess.Popen(
            [*command, f"--process_id={i}", f"--config.optimizer.learning_rate={rate}"],
            env=start.environment(1),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=start.root,
        )
        for i, rate in enumerate((1e-3, 2e-3))
    ]
    said = [process.communicate(timeout=300)[1] for process in processes]
    assert all(process.returncode != 0 for process in processes)
    assert "is not the same in all processes" in said[0]
    assert "Start all of them with the same command" in said[0]
