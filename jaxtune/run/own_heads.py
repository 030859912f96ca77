"""The head that settings, or a command that opens a model, name as code of a person's own."""

import contextlib
from collections.abc import Iterator

import flax.linen as nn

from jaxtune.core.errors import UserError
from jaxtune.models.own_head import MakeHead
from jaxtune.run.own_code import Use, checked, said

HEAD = Use(
    "(num_outputs)",
    "a flax.linen.Module from features [... d] to outputs [... num_outputs]",
    "def FUNCTION(num_outputs): return nn.Sequential([nn.Dense(256), nn.relu,"
    " nn.Dense(num_outputs)])",
)


def head_of(name: str) -> MakeHead:
    """The head of that name.

    Raises:
      UserError: as `checked`; or, when it is made, it is no Linen module.
    """
    function = checked("model.head", name, HEAD)

    def make(num_outputs: int) -> nn.Module:
        with told_of_head(name):
            module = function(num_outputs)
        if not isinstance(module, nn.Module):
            raise UserError(
                f"config.model.head is {name!r}, which gives a {type(module).__name__}: expected"
                f" {HEAD.gives}."
            )
        return module

    return make


@contextlib.contextmanager
def told_of_head(name: str | None) -> Iterator[None]:
    """Says of an error that a head of a person's own raises, if there is one, whose it is."""
    try:
        yield
    except Exception as error:
        if name is None or isinstance(error, UserError):
            raise
        raise UserError(
            f"config.model.head is {name!r}: {said(error, name)}. Expected {HEAD.gives}."
        ) from None
