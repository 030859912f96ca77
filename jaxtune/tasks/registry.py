"""Tasks by the name that `config.task` gives them."""

from collections.abc import Mapping

from jaxtune.core.errors import UserError, nearest
from jaxtune.tasks.causal_lm import CAUSAL_LM
from jaxtune.tasks.classification import CLASSIFICATION
from jaxtune.tasks.embedding import EMBEDDING
from jaxtune.tasks.few_shot import FEW_SHOT
from jaxtune.tasks.image_classification import IMAGE_CLASSIFICATION
from jaxtune.tasks.masked_lm import MASKED_LM
from jaxtune.tasks.multi_label import MULTI_LABEL
from jaxtune.tasks.multiple_choice import MULTIPLE_CHOICE
from jaxtune.tasks.question_answering import QUESTION_ANSWERING
from jaxtune.tasks.regression import REGRESSION
from jaxtune.tasks.reranking import RERANKING
from jaxtune.tasks.task import Task
from jaxtune.tasks.token_classification import TOKEN_CLASSIFICATION

TASKS: Mapping[str, Task] = {
    task.name: task
    for task in (
        CLASSIFICATION,
        MULTI_LABEL,
        REGRESSION,
        TOKEN_CLASSIFICATION,
        QUESTION_ANSWERING,
        CAUSAL_LM,
        MASKED_LM,
        IMAGE_CLASSIFICATION,
        EMBEDDING,
        FEW_SHOT,
        RERANKING,
        MULTIPLE_CHOICE,
    )
}


def task_of(head: str, problem_type: str | None, is_regression: bool) -> Task:
    """The task of a saved model.

    Args:
      head: of the model.
      problem_type: what its config.json says.
      is_regression: whether its outputs are numbers.

    Raises:
      UserError: no task has that head and problem type.
    """
    fitting = [task for task in TASKS.values() if task.head == head]
    for task in fitting:
        if len(fitting) == 1 or problem_type == task.problem_type is not None:
            return task
    if problem_type is None and fitting:
        wanted = "regression" if is_regression else "single_label_classification"
        return next(task for task in fitting if task.problem_type == wanted)
    raise UserError(f"problem_type is {problem_type!r}, of which jaxtune knows nothing.")


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
