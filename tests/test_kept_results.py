"""Functions that are values, and results that are kept for equal arguments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtune.core import paths
from jaxtune.core.bound import bind
from jaxtune.core.kept_results import keep_results
from jaxtune.models import registry
from jaxtune.models.families.bert_config import BertConfig

CONFIG = BertConfig(vocab_size=31, num_hidden_layers=1)  # of no other test


def test_functions_with_equal_first_arguments_are_equal():
    assert bind(max, 1, 2) == bind(max, 1, 2) != bind(max, 1, 3)
    assert hash(bind(max, 1, 2)) == hash(bind(max, 1, 2))
    assert bind(int, "11")(base=3) == 4
    assert bind(max, 3)(1, 2) == 3


def test_what_cannot_be_hashed_is_computed_each_time():
    calls = []

    @keep_results(2)
    def total(values):
        calls.append(values)
        return sum(values)

    assert [total((1, 2)), total((1, 2)), total([1, 2]), total([1, 2])] == [3] * 4
    assert calls == [(1, 2), [1, 2], [1, 2]]


@pytest.mark.parametrize("head", registry.FAMILIES["bert"].heads)
def test_modules_of_one_config_are_equal_and_traced_once(head, monkeypatch):
    traced = []
    init = registry.init_params
    monkeypatch.setattr(registry, "init_params", lambda *a: traced.append(1) or init(*a))
    make = registry.FAMILIES["bert"].make_module
    one, other = make(head, CONFIG, 3, jnp.float32), make(head, CONFIG, 3, jnp.float32)
    assert one == other
    assert one != make(head, CONFIG, 3, jnp.bfloat16)
    found = [registry.parameter_shapes(module) for module in (one, other)]
    assert len(traced) == 1
    wanted = jax.eval_shape(lambda: init(one, jax.random.key(0)))
    found[0].clear()  # its caller's own
    for name, leaf in paths.flatten(wanted).items():
        again = paths.flatten(found[1])[name]
        assert (again.shape, again.dtype) == (leaf.shape, np.dtype("float32"))
