"""Where a config file is: at a path, or among those that come with jaxtune, by its name."""

import os
from pathlib import Path

from jaxtune.core.errors import UserError, nearest


def find_config(name: str) -> Path:
    """The config file that a person means.

    Args:
      name: a path, or the name of a config of jaxtune, such as `agnews`.

    Raises:
      UserError: it is neither.
    """
    known = named_configs()
    if name in known:
        return known[name]
    path = Path(os.path.expanduser(name))
    if os.path.isfile(path):
        return path
    listed = "" if path.name != path.stem else f" Those of jaxtune: {', '.join(known)}."
    raise UserError(f"--config={name}: there is no such file.{listed}{nearest(path.stem, known)}")


def named_configs() -> dict[str, Path]:
    """The config files that come with jaxtune, by name; none where they are not installed.

    A wheel has them within the package, a clone beside it.
    """
    package = Path(__file__).parents[1]
    inside = package / "configs"
    folder = inside if inside.is_dir() else package.parent / "configs"
    return {file.stem: file for file in sorted(folder.glob("*.py"))}
