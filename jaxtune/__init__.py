"""jaxtune: fine-tune pretrained models in JAX, and pay only for what you train.

The public names below are imported when they are first used, so that `import jaxtune` is quick.
Every other name is imported from the module that defines it, for example
`from jaxtune.training.step import make_train_step`; the README's map says where each lives.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxtune.core.errors import UserError
    from jaxtune.run.config import default_config

__version__ = "0.1.0"
__all__ = ["UserError", "default_config"]

_HOMES = {
    "UserError": "jaxtune.core.errors",
    "default_config": "jaxtune.run.config",
}
"""The module that each public name comes from."""


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used (PEP 562)."""
    import importlib

    if name not in _HOMES:
        raise AttributeError(f"module 'jaxtune' has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]
