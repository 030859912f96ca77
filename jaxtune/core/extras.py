"""Packages that not everybody needs, and the extras of jaxtune that bring them."""

import importlib.util

from jaxtune.core.errors import UserError


def is_installed(package: str) -> bool:
    """Whether there is such a package; a folder of that name, as a tracker may leave, is none."""
    try:
        found = importlib.util.find_spec(package)
    except ModuleNotFoundError:  # not even the package that it is a part of
        return False
    return found is not None and found.origin is not None


def check_extra(what: str, extra: str, *packages: str) -> None:
    """Refuses what needs packages that are not installed.

    Args:
      what: it is, as a person typed it.
      extra: of jaxtune, which brings the packages.
      packages: as they are imported.

    Raises:
      UserError: names those that are absent.
    """
    absent = [package for package in packages if not is_installed(package)]
    if absent:
        brought = "it" if len(absent) == 1 else "them"
        raise UserError(
            f'{what} needs {" and ".join(absent)}: pip install "jaxtune[{extra}]" brings {brought}.'
        )
