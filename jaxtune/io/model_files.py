"""What is checked of a folder with a model, an adapter or a tokenizer before any file is opened."""

from pathlib import Path

from jaxtune.core.errors import UserError
from jaxtune.io.json_files import read_json_object

_SUFFIXES = (".json", ".safetensors", ".msgpack", ".txt", ".model", ".spm", ".tiktoken", ".jinja")
_CONFIGS = ("config", "tokenizer_config", "preprocessor_config", "processor_config")


def check_folder(folder: Path) -> None:
    """Refuses a folder whose files cannot be read as data alone.

    Raises:
      UserError: a FIFO, a device or a folder in the place of a file, or a link to one; or a config
        that names code of its own (`auto_map`).
    """
    for file in sorted(folder.iterdir()):
        if file.suffix in _SUFFIXES and not file.is_file():
            kind = "a link to nothing" if file.is_symlink() and not file.exists() else "no file"
            raise UserError(f"{file} is {kind}, but expected a regular file. Fetch it again.")
    for file in (folder / f"{name}.json" for name in (*_CONFIGS, "adapter_config")):
        code = read_json_object(file).get("auto_map") if file.exists() else None
        if code:
            raise UserError(
                f"{file} names code of its own (auto_map: {str(code)[:100]}), which jaxtune does"
                " not run. Choose a model that transformers holds itself."
            )
