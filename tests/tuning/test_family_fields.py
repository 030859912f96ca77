"""What the names of each family are to each strategy."""

import json
import re
from pathlib import Path

import jax.numpy as jnp
import pytest

from jaxtune.core import paths
from jaxtune.models.registry import FAMILIES, parameter_shapes
from jaxtune.tuning.family_fields import family_fields
from jaxtune.tuning.registry import STRATEGIES, make_strategy

GOLDEN = Path(__file__).parents[1] / "golden" / "families"
CASES = [(family, head) for family in FAMILIES for head in FAMILIES[family].heads]
NEEDED = {name: {"num_layers": 1} for name in ("last_layers", "first_layers_frozen")}


def model_of(family_name, head, **fields):
    """The family, its config and the names of a small model's parameters."""
    family = FAMILIES[family_name]
    case = f"{family_name}-{'sequence' if 'sequence' in family.heads else 'image'}"
    hf_config = json.loads((GOLDEN / case / "config.json").read_text()) | fields
    config = family.config_from_hf(hf_config, "config.json")
    module = family.make_module(head, config, 2, jnp.float32)
    return family, config, parameter_shapes(module)


@pytest.mark.parametrize(("family_name", "head_name"), CASES)
def test_a_model_without_a_head_of_its_own_says_so(family_name, head_name):
    untied = {"tie_word_embeddings": False}
    choices = [{}, untied] if head_name == "causal_lm" else [{}]
    if family_name == "modernbert":
        choices = [{}, untied, {"decoder_bias": False}]
    for fields in choices:
        family, config, params = model_of(family_name, head_name, **fields)
        head = family.heads[head_name]
        tops = tuple(f"{name}/" for name in head.modules[-1:])
        own = [n for n in paths.leaf_names(params) if n.startswith(tops)]
        assert head.is_tied(config) is not bool(own) or not head.modules
        assert (family_fields(family, head, config)["head"]["head"] is None) is not bool(own)


@pytest.mark.parametrize("family_name", FAMILIES)
def test_every_strategy_that_fits_finds_its_parameters(family_name):
    head_name = next(iter(FAMILIES[family_name].heads))
    family, config, params = model_of(family_name, head_name)
    fields = family_fields(family, family.heads[head_name], config)
    assert set(fields) == set(STRATEGIES) - {"full", "rules"}
    names = list(paths.leaf_names(params))
    for name, own in fields.items():
        if own.get("targets") == ():
            assert family.names.matrices is None
            continue
        assert type(make_strategy(name, NEEDED.get(name, {}), fields)) is STRATEGIES[name]
        for regexes in own.values():
            for regex in (regexes,) if isinstance(regexes, str) else regexes or ():
                assert any(re.search(regex, leaf) for leaf in names), (name, regex)


def test_adapters_of_houlsby_follow_attention_too():
    family, config, _ = model_of("bert", "sequence")
    fields = [
        family_fields(family, family.heads["sequence"], config, placement)["adapter"]["targets"]
        for placement in (None, "pfeiffer", "houlsby")
    ]
    feedforward = r"/\d+/output/dense/kernel$"
    assert fields[0] == fields[1] == (feedforward,)
    assert fields[2] == (r"attention/output/dense/kernel$", feedforward)


def test_one_matrix_for_all_is_named_once():
    family, config, _ = model_of("gpt2", "sequence")
    fields = family_fields(family, family.heads["sequence"], config)
    for name in ("lora", "ia3", "prefix"):
        assert fields[name]["targets"] == (r"/attn/c_attn/kernel$",)
