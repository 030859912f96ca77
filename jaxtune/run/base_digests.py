"""Digests of what a run takes from the base model's folder besides its weights."""

from pathlib import Path

from jaxtune.core.errors import UserError
from jaxtune.io.json_files import sha256_of
from jaxtune.settings import ModelSettings

_PROCESSOR = (
    *("tokenizer*", "vocab*", "merges*", "special_tokens_map.json", "added_tokens.json"),
    *("*.model", "*.spm", "*.tiktoken", "preprocessor_config.json", "processor_config.json"),
)
"""The files that a tokenizer or an image processor may be made from."""


def base_digests(folder: Path) -> dict[str, str]:
    """`config_sha256` and `tokenizer_sha256` of a model folder, as `ModelSettings` has them."""
    files = sorted({file for glob in _PROCESSOR for file in folder.glob(glob) if file.is_file()})
    return {
        "config_sha256": sha256_of([folder / "config.json"]),
        "tokenizer_sha256": sha256_of(files),
    }


def check_base(settings: ModelSettings, folder: Path) -> None:
    """Refuses a folder whose files are not those that the settings expect.

    Raises:
      UserError: names the setting, and which files it is about.
    """
    for name, found in base_digests(folder).items():
        expected = getattr(settings, name)
        if expected not in (None, found):
            what = name.removesuffix("_sha256")
            raise UserError(
                f"{folder}: the {what} has sha256 {found}, expected {expected}. Bring its files"
                f" back, or correct config.model.{name}."
            )
