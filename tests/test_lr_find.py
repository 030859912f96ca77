"""What a sweep of the learning rate suggests, on curves whose steepest point is known."""

import numpy as np
import pytest

from jaxtune.analysis.lr_curve import MIN_POINTS, fall, smooth, suggest
from jaxtune.run.lr_find import _plot


def curve(steepest, count=100, noise=0.0, seed=0, diverges=True):
    """A loss that falls around a rate and explodes above 0.2."""
    rates = np.geomspace(1e-7, 1, count)
    x = np.log10(rates)
    losses = 1.4 - 0.8 / (1 + np.exp(-(x - np.log10(steepest)) / 0.2))
    losses += np.exp(6 * (x + 0.7)) * diverges
    return rates, losses + noise * np.random.default_rng(seed).normal(size=count)


def decades(found, expected):
    return abs(np.log10(found / expected))


@pytest.mark.parametrize("count", [40, 100, 300])
@pytest.mark.parametrize("steepest", [3e-5, 1e-3, 5e-3])
@pytest.mark.parametrize("diverges", [True, False])
def test_the_suggestion_is_where_the_loss_falls_fastest(count, steepest, diverges):
    found = suggest(*curve(steepest, count, diverges=diverges))
    assert found.reason == ""
    assert decades(found.steepest, steepest) < 0.15
    assert found.lowest > found.steepest


def test_noise_neither_moves_it_far_nor_to_one_side():
    found = [suggest(*curve(1e-3, noise=0.05, seed=seed)).steepest for seed in range(50)]
    errors = np.log10(found) + 3
    assert abs(errors.mean()) < 0.05
    assert errors.std() < 0.2


def test_a_fall_in_the_first_steps_is_not_counted():
    rates, losses = curve(1e-3)
    losses[:5] += np.array([2.0, 1.5, 1.0, 0.6, 0.2])
    assert decades(suggest(rates, losses).steepest, 1e-3) < 0.15


def test_what_follows_the_lowest_point_is_not_counted():
    rates, losses = curve(1e-4)
    losses[-4:] = [50.0, 20.0, 5.0, 0.5]  # steep, on the way back from divergence
    assert decades(suggest(rates, losses).steepest, 1e-4) < 0.15


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("kind", ["flat", "rises", "noise"])
def test_a_loss_that_never_falls_suggests_nothing(kind, seed):
    rates = np.geomspace(1e-7, 1, 100)
    noise = 0.1 * np.random.default_rng(seed).normal(size=100)
    losses = {"flat": np.ones(100), "rises": np.linspace(1, 2, 100), "noise": 1 + noise}[kind]
    found = suggest(rates, losses)
    assert found.steepest is None
    assert found.lowest is None
    assert "never fell" in found.reason


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_losses_after_the_first_that_is_not_finite_are_left_out(value):
    rates, losses = curve(1e-3)
    losses[85:] = [value, *np.full(14, -1.0)]
    found = suggest(rates, losses)
    assert found == suggest(rates[:85], losses[:85])
    assert decades(found.steepest, 1e-3) < 0.15


@pytest.mark.parametrize("count", [0, 1, 2, MIN_POINTS - 1])
def test_too_few_points_suggest_nothing(count):
    rates, losses = np.geomspace(1e-7, 1, count + 1), np.linspace(2, 1, count + 1)
    losses[-1] = np.nan
    found = suggest(rates, losses)
    assert found.steepest is None
    assert f"only {count} finite losses" in found.reason


def test_the_smoothed_loss_has_no_bias():
    np.testing.assert_allclose(smooth(np.full(30, 3.0)), 3.0)
    losses = np.array([4.0, 2.0, 1.0])
    expected = [4.0, (0.09 * 4 + 0.1 * 2) / 0.19, (0.081 * 4 + 0.09 * 2 + 0.1 * 1) / 0.271]
    np.testing.assert_allclose(smooth(losses, 0.9), expected)


def test_the_suggestion_is_the_steepest_place_of_the_curve():
    rates, losses = curve(1e-3, noise=0.05)
    losses[90:] = np.nan
    found, drawn = suggest(rates, losses), fall(losses)
    known = np.isfinite(drawn)
    lowest = int(np.argmin(smooth(losses[:90])))
    np.testing.assert_array_equal(known, (np.arange(100) >= 9) & (np.arange(100) <= lowest))
    forwards = smooth(losses[: lowest + 1])
    backwards = smooth(losses[: lowest + 1][::-1])[::-1]
    np.testing.assert_allclose(drawn[known], ((forwards + backwards) / 2)[9:])
    place, x = int(np.argmin(np.abs(rates - found.steepest))), np.log(rates)
    slopes = {
        i: (drawn[i + 4] - drawn[i - 4]) / (x[i + 4] - x[i - 4]) for i in range(13, lowest - 3)
    }
    assert min(slopes, key=lambda i: slopes[i]) == place


@pytest.mark.parametrize(
    ("losses", "place"),
    [([2.0, 1.0, 9e9], None), ([2.0, 1.0, 9e9], 1), ([2.0, None], None), ([None], None)],
)
def test_every_sweep_can_be_drawn(losses, place):
    rates = np.geomspace(1e-7, 1, 3).tolist()[: len(losses)]
    results = {"rates": rates, "losses": losses, "smoothed": losses, "curve": losses}
    results |= {"suggestion": None if place is None else rates[place], "beta": 0.9, "reason": "$x"}
    results["settings"] = {
        "model": {"path": "some/$model"},
        "train": {"batch_size": 8},
        "tuning": {"name": "lora+layernorm"},
    }
    assert _plot(results).startswith(b"\x89PNG\r\n\x1a\n")
