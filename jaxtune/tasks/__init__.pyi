from .registry import TASKS as TASKS
from .registry import find_task as find_task
from .task import Task as Task
