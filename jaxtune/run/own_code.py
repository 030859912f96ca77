"""Code of a person's own that settings name as `MODULE:FUNCTION`.

The module is imported from the folder that the command was started in, or is an installed one. A
file of data, such as a run's config.json, is not enough to have it imported: the command line or a
config in Python must name it too.
"""

import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jaxtune.core.errors import UserError, nearest
from jaxtune.settings import Settings
from jaxtune.settings.fields import is_code

_OURS = Path(__file__).parent.parent


class Use(NamedTuple):
    """How a function is called.

    Attributes:
      call: with what, as in Python.
      gives: what it must return, in words.
      example: one in a line, in which FUNCTION stands for its name.
    """

    call: str
    gives: str
    example: str


def find(field: str, name: str) -> Any:
    """What a setting names.

    Args:
      field: of the setting.
      name: `MODULE:NAME`; either may have dots.

    Raises:
      UserError: no such module or name, or a module that cannot be imported.
    """
    module_name, _, path = name.partition(":")
    found: Any = _module(field, name, module_name)
    for part in path.split("."):
        if not hasattr(found, part):
            public = [known for known in dir(found) if not known.startswith("_")]
            raise UserError(
                f"config.{field} is {name!r}, but {getattr(found, '__name__', module_name)} has no"
                f" {part!r}.{nearest(part, public)}"
            )
        found = getattr(found, part)
    return found


def checked(field: str, name: str, use: Use) -> Callable[..., Any]:
    """As `find`, of a function that can be called so.

    Raises:
      UserError: as `find`; or it takes other arguments.
    """
    found = find(field, name)
    expected = f"expected a function of {use.call} that gives {use.gives}, such as: " + (
        use.example.replace("FUNCTION", name.rpartition(":")[2])
    )
    if not callable(found):
        raise UserError(f"config.{field} is {name!r}, a {type(found).__name__}: {expected}")
    try:
        taken = inspect.signature(found)
    except ValueError:  # written in C
        return found
    try:
        taken.bind(*use.call.strip("()").split(","))
    except TypeError:
        raise UserError(f"config.{field} is {name!r}, which takes {taken}: {expected}") from None
    return found


def said(error: Exception, name: str) -> str:
    """What an error in a person's own code says, and where."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [
        frame
        for frame in frames
        if not Path(frame.filename).is_relative_to(_OURS)
        and "site-packages" not in frame.filename
        and not frame.filename.startswith("<")
    ]
    place = f", {os.path.basename(own[-1].filename)} line {own[-1].lineno}" if own else ""
    text = " ".join(str(error).split()) or "no message"
    return f"{name} fails{place}: {type(error).__name__}: {text}"


def named_code(settings: Settings) -> Mapping[str, tuple[str, ...]]:
    """The code that settings name, by field."""
    names = {
        "model.head": (settings.model.head or "",),
        "loss.function": (settings.loss.function or "",),
        "optimizer.name": (settings.optimizer.name,),
        "optimizer.schedule": (settings.optimizer.schedule,),
        "train.scores": settings.train.scores,
        "train.hooks": settings.train.hooks,
    }
    found = {field: tuple(filter(is_code, of_field)) for field, of_field in names.items()}
    return {field: of_field for field, of_field in found.items() if of_field}


def _module(field: str, name: str, module: str) -> Any:
    """Imports a module, that of the working folder before an installed one."""
    here, top = os.getcwd(), module.partition(".")[0]
    own = [Path(here, top, "__init__.py"), Path(here, f"{top}.py")]
    old = sys.modules.get(top)
    if old is not None and any(file.is_file() for file in own):
        file = getattr(old, "__file__", None)
        if file is None or Path(file) not in own:
            raise UserError(
                f"config.{field} is {name!r}, but {top!r} is an installed module in use:"
                " expected another name of the file."
            )
    sys.path.insert(0, here)
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and module != error.name and not module.startswith(f"{error.name}."):
            raise UserError(
                f"config.{field} is {name!r}: {module} imports {error.name}, which is not there."
            ) from None
        raise UserError(
            f"config.{field} is {name!r}: there is no module {module!r}: expected {top}.py in the"
            " folder where the command is started, or an installed one."
        ) from None
    except Exception as error:
        raise UserError(f"config.{field} is {name!r}: {said(error, module)}.") from None
    finally:
        sys.path.remove(here)
        if here not in sys.path:  # for what the module imports later; installed ones come first
            sys.path.append(here)
