"""The time left in a progress bar."""

from datetime import timedelta

from rich.progress import Task, TimeRemainingColumn
from rich.text import Text


class LeftColumn(TimeRemainingColumn):
    """What the caller says is left (`left` of the task, in seconds), else what the pace says."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        """Hours, minutes and seconds."""
        left = task.fields.get("left")
        if left is None or task.finished:
            return super().render(task)
        return Text(str(timedelta(seconds=round(left))), style="progress.remaining")
