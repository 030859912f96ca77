"""Tasks by the name that `config.task` gives them."""

from collections.abc import Mapping

from jaxtune.errors import UserError, nearest
from jaxtune.tasks.classification import CLASSIFICATION
from jaxtune.tasks.regression import REGRESSION
from jaxtune.tasks.task import Task

TASKS: Mapping[str, Task] = {task.name: task for task in (CLASSIFICATION, REGRESSION)}


def find_task(name: str) -> Task:
    """The task of that name.

    Raises:
      UserError: an unknown name.
    """
    if name not in TASKS:
        raise UserError(
            f"config.task is {name!r}: expected one of {', '.join(TASKS)}.{nearest(name, TASKS)}"
        )
    return TASKS[name]
