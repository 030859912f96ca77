"""The time left in a progress bar."""

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
        minutes, seconds = divmod(round(left), 60)
        hours, minutes = divmod(minutes, 60)
        return Text(f"{hours}:{minutes:02d}:{seconds:02d}", style="progress.remaining")
