"""Settings of short runs."""

import pytest


@pytest.fixture
def head_settings(tiny_settings, tiny_weights):
    """A function: overrides -> settings of a head on a tiny BERT, four steps, two evaluations."""
    model = tiny_weights("classification", "bert", 1)

    def make(**overrides):
        fixed = {"train.num_steps": 4, "train.eval_every_steps": 2, "optimizer.learning_rate": 1e-2}
        named = {name.replace("__", "."): value for name, value in overrides.items()}
        return tiny_settings("classification", "head", model, **(fixed | named))

    return make
