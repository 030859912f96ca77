"""What peft's `adapter_config.json` says, which may be anybody's."""

from pathlib import Path
from typing import Any

from jaxtune.core.errors import UserError
from jaxtune.models.source import read_json

CONFIG = "adapter_config.json"

_UNSUPPORTED = (
    "rank_pattern",
    "alpha_pattern",
    "lora_bias",
    "layer_replication",
    "target_parameters",
    "trainable_token_indices",
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
    "velora_config",
    "use_bdlora",
    "use_qalora",
)
_SECONDS = 0.5  # for one name and the pattern of a folder
_PLAIN_STARTS = (None, True, False, "gaussian", "eva", "orthogonal")  # the others change W


def read_config(folder: Path) -> dict[str, Any]:
    """A config that `peft.load_lora` can follow.

    Raises:
      UserError: another kind of adapter, or a field that jaxtune does not have.
    """
    file = folder / CONFIG
    config = read_json(file)
    if config.get("peft_type") != "LORA":
        raise UserError(
            f"{file}: peft_type is {config.get('peft_type')!r}: expected 'LORA', the only kind of"
            " peft's that jaxtune reads."
        )
    unset = {name: config.get(name) or "unset" for name in _UNSUPPORTED}
    expected = dict.fromkeys(unset, ("unset",))
    fields = unset | {
        "bias": config.get("bias", "none"),
        "init_lora_weights": config.get("init_lora_weights"),
    }
    expected |= {"bias": ("none",), "init_lora_weights": _PLAIN_STARTS}
    for name, value in fields.items():
        if value not in expected[name]:
            raise UserError(
                f"{file}: {name} is {config[name]!r}, which jaxtune does not have. Merge the"
                " adapter with peft (merge_and_unload), and save the whole model instead."
            )
    for name, kinds in (("r", int), ("lora_alpha", (int, float)), ("lora_dropout", (int, float))):
        value = config.get(name, 0.0 if name == "lora_dropout" else None)
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise UserError(f"{file}: {name} is {value!r}, expected a number.")
    for name in ("modules_to_save", "target_modules"):
        value = config.get(name) or []
        names = value if isinstance(value, list) else [name == "target_modules" and value]
        if not all(isinstance(item, str) for item in names):
            raise UserError(f"{file}: {name} is {value!r}, expected a list of names.")
    return config


def is_target(module: str, targets: Any) -> bool:
    """Whether peft's `target_modules` choose a module.

    Raises:
      UserError: they are a pattern that is none, or that takes for ever.
    """
    if isinstance(targets, str):
        return targets != "all-linear" and _fits(targets, module)
    return any(f".{module}".endswith(f".{target}") for target in targets)


def _fits(pattern: str, module: str) -> bool:
    """Whether the whole name fits a pattern."""
    import regex  # which knows a limit in time

    try:
        return regex.fullmatch(pattern, module, timeout=_SECONDS) is not None
    except (regex.error, TimeoutError, RecursionError) as error:
        raise UserError(
            f"{CONFIG}: target_modules is {pattern[:80]!r}: {str(error) or 'it takes for ever'}."
            " Expected a regex of names, or a list of their ends."
        ) from None
