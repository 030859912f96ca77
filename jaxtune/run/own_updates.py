"""The schedule and the optimizer that settings name, functions of a person's own among them."""

import ast
import inspect
import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxtune.core.errors import UserError
from jaxtune.run.own_code import Use, checked, find, said
from jaxtune.settings import OptimizerSettings
from jaxtune.settings.fields import is_code
from jaxtune.training import optimizers
from jaxtune.training.optimizers import Scaler

SCHEDULE = Use(
    "(learning_rate, num_steps, warmup_steps)",
    "a function of the step that gives the rate",
    "def FUNCTION(learning_rate, num_steps, warmup_steps):"
    " return optax.linear_schedule(learning_rate, 0.0, num_steps)",
)


def schedule_of(settings: OptimizerSettings, num_steps: int) -> optax.Schedule:
    """The learning rate by step, in a run of so many.

    Raises:
      UserError: a function of one's own that is none, or gives no rate.
    """
    rate, name = settings.learning_rate, settings.schedule
    warmup_steps = round(settings.warmup_fraction * num_steps)
    if not is_code(name):
        final = settings.final_fraction
        return optimizers.make_schedule(name, rate, num_steps, warmup_steps, final)
    function = checked("optimizer.schedule", name, SCHEDULE)
    try:
        schedule = function(rate, num_steps, warmup_steps)
        value = np.asarray(jax.jit(schedule)(jnp.asarray(0)))
    except Exception as error:
        raise UserError(f"config.optimizer.schedule is {name!r}: {said(error, name)}") from None
    if value.shape != () or not np.issubdtype(value.dtype, np.number):
        raise UserError(
            f"config.optimizer.schedule is {name!r}: at step 0 it gives {value!r}, but expected"
            " one number."
        )
    return schedule


def scaler_of(settings: OptimizerSettings) -> Scaler:
    """What turns gradients into steps before the learning rate.

    A function with a `learning_rate`, such as `optax:lion`, is called with 1: the schedule and the
    decay that the settings name come after it.

    Raises:
      UserError: a function of one's own that is none, arguments that it does not take, or steps
        that are not in proportion to the rate.
    """
    name = settings.name
    if not is_code(name):
        return optimizers.named(name, vars(settings))
    function = find("optimizer.name", name)
    if "schedule_free" in name:
        raise UserError(
            f"config.optimizer.name is {name!r}, which is evaluated on other parameters than it"
            " trains: expected another, or a loop of your own."
        )
    arguments = _arguments(settings.arguments)
    try:
        taken = inspect.signature(function).parameters
    except ValueError:
        taken = {}
    if "weight_decay" in arguments and "learning_rate" in taken:
        raise UserError("config.optimizer.arguments has weight_decay: expected it as"
                        " config.optimizer.weight_decay.")  # fmt: skip
    if "weight_decay" in taken and "learning_rate" in taken:
        arguments["weight_decay"] = 0.0

    def made(rate: float) -> optax.GradientTransformationExtraArgs:
        more = {"learning_rate": rate} if "learning_rate" in taken else {}
        return optax.with_extra_args_support(function(**more, **arguments))

    try:
        whole = made(1.0)
        first, second = (_steps(made(rate)) for rate in (1.0, 0.5))
    except Exception as error:
        known = ", ".join(taken)
        raise UserError(
            f"config.optimizer.name is {name!r}: {said(error, name)}. It takes {known}, of which"
            " config.optimizer.arguments may set others than learning_rate."
        ) from None
    if "learning_rate" not in taken:
        return whole
    if not np.allclose(first, 2 * second, rtol=1e-4):
        raise UserError(
            f"config.optimizer.name is {name!r}, whose steps are not in proportion to its rate, so"
            " that no schedule can come after it: expected another, or a loop of your own."
        )
    return optax.chain(whole, optax.scale(-1.0))


def _steps(tx: optax.GradientTransformationExtraArgs) -> np.ndarray:
    """What a transformation makes of a few gradients of a small matrix."""
    params = {"kernel": jnp.asarray(np.linspace(-1, 1, 12), jnp.float32).reshape(4, 3)}
    state, found = tx.init(params), []
    for i in range(3):
        grads = jax.tree.map(lambda p, i=i: jnp.cos(3 * p + i), params)
        updates: Any
        updates, state = tx.update(grads, state, params)
        found.append(np.asarray(updates["kernel"]))
    return np.stack(found)


def _arguments(words: Sequence[str]) -> dict[str, Any]:
    """`NAME=VALUE` words as keyword arguments; a value is a number, a text, a tuple or None."""
    found: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not re.fullmatch(r"\w+", name):
            raise UserError(f"config.optimizer.arguments has {word!r}: expected NAME=VALUE.")
        try:
            found[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            found[name] = text
    return found
