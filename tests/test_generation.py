"""Texts after prompts: beside transformers, beside whole passes, what a token costs, drawing."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cover import mark_rest
from scipy.stats import chisquare

import jaxtune as jt
from jaxtune.core import paths
from jaxtune.core.errors import UserError
from jaxtune.models.cached import decode, prefill
from jaxtune.models.continuation import Rule, write
from jaxtune.models.pretrained import load_pretrained
from jaxtune.models.sampling import Sampling, choose_draw, likely
from jaxtune.tuning import injection
from jaxtune.tuning.family_fields import family_fields
from jaxtune.tuning.registry import make_strategy

GOLDEN = Path(__file__).parent / "golden"
KEY = jax.random.key(3)
PROMPTS = ([7, 3, 31], [12, 0, 5, 9, 30, 2, 2], [4])
SLOTS = 16
RUN = jax.jit(write, static_argnames=("apply_fn", "draw", "slots"))


def golden_model(case="gpt2-causal_lm", dtype=jnp.float32):
    return load_pretrained(GOLDEN / "families" / case, head="causal_lm", compute_dtype=dtype)


@pytest.fixture(scope="module")
def model():
    return golden_model()


def batch_of(prompts, limit, width=None):
    width = width or max(map(len, prompts))
    batch = {name: np.zeros((len(prompts), width), np.int32) for name in ("input_ids",)}
    batch["attention_mask"] = np.zeros_like(batch["input_ids"])
    for i, prompt in enumerate(prompts):
        batch["input_ids"][i] = 9  # whatever stands in the padding
        batch["input_ids"][i, : len(prompt)] = prompt
        batch["attention_mask"][i, : len(prompt)] = 1
    batch["limits"] = np.full(len(prompts), limit, np.int32)
    return batch | {"rows": np.arange(len(prompts), dtype=np.int32)}


def written(apply_fn, params, batch, slots=24, sampling=Sampling(), end=-1):  # noqa: B008
    draw, numbers = choose_draw(sampling)
    rule = Rule(KEY, numbers, jnp.array([end]))
    found = RUN(apply_fn, draw, slots, params, batch, rule)
    assert found.is_finite.all()
    pairs = zip(np.asarray(found.tokens), np.asarray(found.counts), strict=True)
    return [tokens[:count].tolist() for tokens, count in pairs]


@pytest.mark.parametrize("case", ["gpt2-causal_lm", "gpt2-untied"])
def test_greedy_texts_are_those_of_transformers(case):
    found = json.loads((GOLDEN / "generation.json").read_text())[case]
    model = golden_model(case)
    batch = batch_of(found["prompts"], 10)
    assert found["margin"] > 1e-3  # of logits whose rounding is 1e-6
    assert written(model.apply_fn, model.params, batch) == found["free"]
    assert written(model.apply_fn, model.params, batch, end=found["end"]) == found["ended"]
    assert any(0 < len(text) < 10 for text in found["ended"])
    assert any(len(text) in (0, 10) for text in found["ended"])


def stepwise(apply_fn, params, prompts, tails):
    """Logits after each prompt and after each token of its tail, all rows together."""
    first = jax.jit(lambda *arguments: prefill(apply_fn, *arguments, SLOTS))
    step = jax.jit(lambda *arguments: decode(apply_fn, *arguments))
    logits, cache = first(params, batch_of(prompts, 0))
    lengths, found = jnp.array([len(prompt) for prompt in prompts]), [logits]
    for i, tokens in enumerate(np.array(tails).T):
        logits, cache = step(params, jnp.asarray(tokens), lengths + i, cache)
        found.append(logits)
    return np.asarray(jnp.stack(found, axis=1)), cache  # [b n v]


def check_stepwise(apply_fn, params, atol):
    """Holds the logits of steps against those of one pass over prompts and tails."""
    tails = [[1, 22, 3, 14], [40, 39, 38, 6], [5, 5, 17, 0]]
    whole = jax.jit(lambda params, batch: apply_fn(params, batch, key=None, train=False))
    rows = [prompt + tail for prompt, tail in zip(PROMPTS, tails, strict=True)]
    expected = np.asarray(whole(params, batch_of(rows, 0)))
    found, cache = stepwise(apply_fn, params, PROMPTS, tails)
    for prompt, logits, own in zip(PROMPTS, found, expected, strict=True):
        assert logits.std() > 0.3
        own = own[len(prompt) - 1 : len(prompt) + len(tails[0])]
        np.testing.assert_allclose(logits, own, atol=atol)
    return cache, expected


def test_logits_with_kept_keys_and_values_are_those_of_whole_passes(model):
    cache, expected = check_stepwise(model.apply_fn, model.params, 1e-5)
    assert {k.shape for pair in cache.values() for k in pair} == {(3, SLOTS, 3, 4)}
    assert len(cache) == 3  # layers
    rough = golden_model(dtype=jnp.bfloat16)
    cache, found = check_stepwise(rough.apply_fn, rough.params, 0.06)
    assert {k.dtype for pair in cache.values() for k in pair} == {jnp.dtype("bfloat16")}
    assert np.abs(found - expected)[:, 0].max() > 1e-3


STRATEGIES = {
    "lora": {"rank": 2},
    "prefix": {"prefix_length": 3},
    "adapter": {"bottleneck_size": 3},
    "ia3": {},
}


@pytest.mark.parametrize("name", mark_rest(STRATEGIES, ("prefix",)))
def test_what_a_strategy_adds_stays_in_use(model, name):
    source = model.design.source
    defaults = family_fields(source.family, model.design.head, model.config, None)
    strategy = make_strategy(name, STRATEGIES[name], defaults)
    params = injection.extend(strategy, model.params, KEY)
    params = paths.map_named(
        lambda leaf, x: x + 0.3 * jax.random.normal(injection.key_of(KEY, leaf), x.shape), params
    )
    apply_fn = injection.adapt(strategy, model.apply_fn)
    assert {*paths.leaf_names(params)} > {*paths.leaf_names(model.params)}
    check_stepwise(apply_fn, params, 2e-5)


def test_long_prompts_which_are_attended_to_in_blocks(monkeypatch, model):
    monkeypatch.setattr("jaxtune.models.attention_path.LONG", 6)
    found, _ = stepwise(model.apply_fn, model.params, PROMPTS, [[1, 2]] * 3)
    monkeypatch.undo()
    expected, _ = stepwise(model.apply_fn, model.params, PROMPTS, [[1, 2]] * 3)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert (found != expected).any()  # another order of sums


def products(jaxpr, inside=False):
    """(whether it is in the loop over tokens, its operations) of each product."""
    for equation in jaxpr.eqns:
        within = inside or equation.primitive.name == "while"
        for value in equation.params.values():
            for sub in value if isinstance(value, tuple | list) else (value,):
                if hasattr(getattr(sub, "jaxpr", sub), "eqns"):
                    yield from products(getattr(sub, "jaxpr", sub), within)
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            out = equation.outvars[0].aval.shape
            yield inside, 2 * int(np.prod(out)) * int(np.prod([shape[i] for i in contracted]))


def test_a_token_costs_one_step_on_one_token(model):
    """b rows, t tokens of a prompt, s slots, d features, v words: what is computed, by hand."""
    b, t, s, config = 3, 7, 16, model.config
    d, v, layers = config.n_embd, config.vocab_size, config.n_layer
    draw, numbers = choose_draw(Sampling())
    rule = Rule(KEY, numbers, jnp.array([0]))
    batch = batch_of(PROMPTS, 5)
    found = [
        *products(
            jax.make_jaxpr(lambda p, x: write(model.apply_fn, draw, s, p, x, rule))(
                model.params, batch
            ).jaxpr
        )
    ]
    matrices = 3 * d * d + d * d + 2 * d * 4 * d
    step = sum(count for inside, count in found if inside)
    assert step == 2 * b * (layers * (matrices + 2 * s * d) + d * v)
    first = sum(count for inside, count in found if not inside)
    above = t * 3 * d * d + (d * d + 2 * d * 4 * d) + 2 * t * d  # of the last layer: keys, values
    below = (layers - 1) * (t * matrices + 2 * t * t * d)
    assert first == 2 * b * (below + above + d * v)


def test_a_text_follows_from_its_prompt_its_number_and_the_seed_alone(model):
    warm = Sampling(1.3, 0.9)
    together = written(model.apply_fn, model.params, batch_of(PROMPTS, 8), 24, warm)
    assert len({tuple(text) for text in together}) == 3
    order = [2, 0, 1]  # among other prompts, in a wider row
    others = [[8, 8, 8], [1], *[PROMPTS[i] for i in order]]
    rows = {"rows": np.array([7, 9, *order], np.int32)}
    found = written(model.apply_fn, model.params, batch_of(others, 8, width=16) | rows, 24, warm)
    assert found[2:] == [together[i] for i in order]
    first, second, _ = written(
        model.apply_fn, model.params, batch_of([PROMPTS[1]] * 3, 8), 24, warm
    )
    assert second == together[1]
    assert first != second


LOGITS = np.array([2.0, -1.0, 0.5, 1.2, 1.9, -3.0, 0.1, 1.0])


def filtered(temperature, top_p, top_k):
    """Probabilities in float64, as transformers filters: temperature, then top-k, then top-p."""
    x = LOGITS / temperature
    order = np.argsort(-x)[: top_k or len(x)]
    probs = np.exp(x[order]) / np.exp(x[order]).sum()
    count = next(i + 1 for i in range(len(probs)) if probs[: i + 1].sum() >= top_p - 1e-12)
    found = np.zeros(len(x))
    found[order[:count]] = probs[:count] / probs[:count].sum()
    return found


@pytest.mark.parametrize(
    ("temperature", "top_p", "top_k"),
    [(1.0, 1.0, None), (0.7, 1.0, None), (1.0, 0.8, None), (1.6, 0.6, 5), (2.0, 1.0, 3)],
)
def test_tokens_are_drawn_by_their_filtered_probabilities(temperature, top_p, top_k):
    draw, numbers = choose_draw(Sampling(temperature, top_p, top_k))
    n = 20_000
    rows = jax.vmap(jax.random.fold_in, (None, 0))(KEY, jnp.arange(n))
    logits = jnp.broadcast_to(jnp.asarray(LOGITS, jnp.float32), (n, 8))
    counts = np.bincount(np.asarray(jax.jit(draw)(logits, rows, numbers)), minlength=8)
    expected = filtered(temperature, top_p, top_k)
    assert (counts[expected == 0] == 0).all()
    assert chisquare(counts[expected > 0], n * expected[expected > 0]).pvalue > 1e-3


def test_no_draw_depends_on_another():
    """Rows and positions have keys of their own: 3 tokens of each of 4,000 equal rows."""
    n, v = 4000, 4
    probs = np.array([0.1, 0.2, 0.3, 0.4])
    prompts = batch_of([[1]] * n, 3)

    def apply_fn(params, batch, *, key, train):
        return jnp.broadcast_to(params, (n, 1, v))

    found = np.array(written(apply_fn, jnp.log(probs), prompts, 8, Sampling(1.0)))
    assert found.shape == (n, 3)
    for a, b in (found[:, :2].T, found[:, 1:].T, (found[:-1, 0], found[1:, 0])):
        counts = np.bincount(a * v + b, minlength=v * v)
        assert chisquare(counts, len(a) * np.outer(probs, probs).ravel()).pvalue > 1e-3


@pytest.mark.parametrize(("top_p", "left"), [(0.49, 1), (0.51, 2), (0.75, 2), (0.76, 3), (1.0, 4)])
def test_the_token_that_reaches_top_p_is_left(top_p, left):
    logits = jnp.log(jnp.array([[0.125, 0.5, 0.125 - 1e-3, 0.25 + 1e-3]]))
    found = likely(logits, Sampling(1.0, top_p, 9))
    order = [1, 3, 0, 2]
    assert np.isfinite(np.asarray(found[0])[order]).tolist() == [i < left for i in range(4)]


def test_a_temperature_near_0_is_greedy():
    draw, numbers = choose_draw(Sampling(1e-45))
    logits = jnp.asarray(LOGITS, jnp.float32)[None]
    assert draw(logits, jax.random.split(KEY, 1), numbers).tolist() == [0]


@pytest.fixture(scope="module")
def saved(tiny_weights):
    return jt.load(tiny_weights("causal_lm", "gpt2"))


TEXTS = ["the cat sat on a", "film", "", "a dog ran on the film so bad"]


@pytest.mark.filterwarnings("ignore:1 of 4 prompts")
def test_records_in_the_order_of_the_prompts(saved):
    records = saved.generate(TEXTS, max_new_tokens=6, temperature=1.0, seed=5)
    assert [record["prompt"] for record in records] == TEXTS
    assert all(record.keys() == {"prompt", "text"} for record in records)
    options = {"max_new_tokens": 6, "temperature": 1.0, "seed": 5}
    assert saved.generate(TEXTS, **options, batch_size=1) == records
    assert saved.generate(TEXTS, max_new_tokens=6, temperature=1.0, seed=6) != records
    assert saved.generate({"text": TEXTS}, **options) == records
    words = [record["text"].split() for record in records]
    assert all(len(text) <= 6 for text in words)
    assert any(words)
    greedy = [saved.generate(TEXTS, max_new_tokens=6, seed=seed) for seed in (0, 9)]
    assert greedy[0] == greedy[1] != records


def test_an_empty_prompt_begins_a_text(saved):
    with pytest.warns(UserWarning, match=r"^1 of 2 prompts are empty: .* after <\|endoftext\|>"):
        _, empty = saved.generate(["film", ""], max_new_tokens=5)
    (same,) = saved.generate(["<|endoftext|>"], max_new_tokens=5)
    assert empty["text"] == same["text"]


def test_a_text_stops_at_the_positions_of_the_model(saved):
    limit = saved.saved.pretrained.config.n_positions
    prompts = [" ".join(["film"] * (limit - 2)), "a cat"]
    options = {"temperature": 1.5, "seed": 1}
    with pytest.warns(UserWarning, match=rf"^[12] of 2 texts stop where .* the {limit} tokens"):
        records = saved.generate(prompts, max_new_tokens=500, **options)
    assert len(records[0]["text"].split()) <= 2
    short = saved.generate(prompts[1:] * 2, max_new_tokens=3, **options)
    words = short[1]["text"].split()
    assert records[1]["text"].split()[: len(words)] == words
    told = rf"row 2: the prompt has {limit} tokens.*at most {limit - 1}"
    with pytest.raises(UserError, match=told):
        saved.generate(["film", prompts[0] + " film film"])


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        ({"temperature": -0.5}, "temperature is -0.5: expected 0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"temperature": 1.0, "top_p": 0.0}, "top_p is 0.0: expected more than 0"),
        ({"temperature": 1.0, "top_p": 1.5}, "top_p is 1.5"),
        ({"temperature": 1.0, "top_k": 0}, "top_k is 0"),
        ({"top_p": 0.9}, "top_p is 0.9, but temperature is 0"),
        ({"top_k": 4}, "top_k is 4, but temperature is 0"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_what_cannot_be_followed(saved, fields, parts):
    with pytest.raises(UserError, match=parts):
        saved.generate(["film"], **fields)


@pytest.mark.parametrize("prompts", [[], "the cat", [3], [None, 3.5]])
def test_what_are_no_prompts(saved, prompts):
    with pytest.raises(UserError):
        saved.generate(prompts)


def test_weights_that_are_not_finite(saved):
    pretrained = saved.saved.pretrained
    damaged = jax.tree.map(lambda x: x * np.nan, pretrained.params)
    other = saved.saved._replace(pretrained=pretrained._replace(params=damaged))
    with pytest.raises(UserError, match="outputs that are not finite"):
        saved._replace(saved=other).generate(["film"], max_new_tokens=6)


def test_a_model_for_another_task(tiny_weights):
    with pytest.raises(UserError, match="a model for classification, but only one for causal_lm"):
        jt.load(tiny_weights("classification", "gpt2")).generate(["film"])
