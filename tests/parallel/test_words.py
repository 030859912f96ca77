"""Language models of more words than one chunk takes, whose rows or words several devices share."""

import numpy as np
import pytest
from copies import copy_model

from jaxtune.run.config import default_config

DEVICES = 4
PLACES = {
    "rows": {"parallel.fsdp": 2},
    "words": {"parallel.tensor": 2, "parallel.rules": "word_embeddings/embedding$=tensor -"},
    "words alone": {"parallel.tensor": 4, "parallel.rules": "word_embeddings/embedding$=tensor -"},
    "pmap": {"parallel.mode": "pmap"},
}
STEPS = 2


@pytest.fixture(scope="module")
def jobs(tiny_families, tmp_path_factory):
    """By place, and for one device: a job of the same steps."""
    folder = tmp_path_factory.mktemp("words")
    rng = np.random.default_rng(0)
    words = "the a cat dog film is was good bad so ran sat".split()  # noqa: SIM905
    (folder / "texts.txt").write_text("\n".join(" ".join(rng.choice(words, 40)) for _ in range(60)))
    model = copy_model(tiny_families["bert"], folder / "model", {"vocab_size": 8192})
    config = default_config()
    config.task, config.model.path, config.model.from_scratch = "masked_lm", str(model), True
    config.data.path, config.data.max_length = str(folder / "texts.txt"), 32
    config.data.mask_probability, config.data.layout = 0.5, "padded"
    config.train.batch_size, config.train.num_steps = 32, 6
    config.optimizer.name, config.optimizer.learning_rate = "sgd", 0.1
    config.optimizer.schedule = "constant"
    file = folder / "config.json"
    file.write_text(config.to_json())
    return {
        name: {"name": name.replace(" ", "-"), "config": str(file), "overrides": fields}
        for name, fields in (PLACES | {"one": {}}).items()
    }


@pytest.mark.parametrize(
    "places",
    [
        ("words",),
        pytest.param(("rows", "words alone", "pmap"), marks=pytest.mark.exhaustive),
    ],
)
def test_steps_are_those_of_one_device(places, jobs, run_on):
    """Of a device's 256 tokens half are scored: two or three chunks of 64."""
    jobs = {name: job | {"steps": STEPS} for name, job in jobs.items()}
    alone = run_on([jobs["one"]], 1)["one"]
    assert "error" not in alone.facts, alone.facts
    for name, found in run_on([jobs[place] for place in places], DEVICES).items():
        assert "error" not in found.facts, (name, found.facts)
        np.testing.assert_allclose(found.losses, alone.losses, rtol=1e-5, err_msg=name)
        for leaf, value in alone.params.items():
            np.testing.assert_allclose(
                found.params[leaf], value, rtol=0, atol=2e-5, err_msg=f"{name} {leaf}"
            )
