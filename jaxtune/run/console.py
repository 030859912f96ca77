"""What a person sees: the summary at the start, progress with the time left, the end."""

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from jaxtune.run.columns import break_words, columns


class Report:
    """Writes to one console. Where that is no terminal there is no bar, only lines."""

    def __init__(self, console: Console | None = None, *, quiet: bool = False) -> None:
        """Writes to standard output unless another console is given; nothing at all if quiet."""
        terminal = sys.stdout.isatty()
        self.console = console or Console(
            highlight=False,
            width=None if terminal else 1000,  # a log wraps no line, and cuts no path
            quiet=quiet,
            force_terminal=terminal,  # FORCE_COLOR, which Jupyter and CI set, makes no bar of a log
            force_jupyter=False,  # a notebook gets the lines of a log, which it can redirect
        )

    def line(self, text: str) -> None:
        """One line of plain text, which only a terminal breaks."""
        self._print(break_words(text, self.console.width) if self.console.is_terminal else [text])

    def progress(self, text: str) -> None:
        """One line where no bar says the same: in a log file."""
        if not self.console.is_terminal:
            self.line(text)

    def table(self, title: str, rows: Iterable[tuple[str, Any]]) -> None:
        """Names and values, one pair a row."""
        pairs = [(name, str(value)) for name, value in rows]
        self._print([title], "italic")
        self._print(columns(pairs, 1, self.console.width))

    def grid(self, title: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """A table with named columns; all but the first are aligned to the right."""
        self._print([title], "italic")
        self._print(columns([header, *rows], 0, self.console.width))

    def _print(self, lines: Sequence[str], style: str = "") -> None:
        """Lines as they are, whatever they look like."""
        if lines:
            self.console.print(Text("\n".join(lines), style), soft_wrap=True)

    @contextlib.contextmanager
    def bar(self, name: str, total: int, done: int = 0) -> Iterator[Callable[..., None]]:
        """A progress bar with the time left.

        Call what it yields with `advance`, a `note`, and the seconds `left` where they are known
        better than from the pace so far.
        """
        if not self.console.is_terminal:
            yield lambda advance=1, note=None, left=None: None
            return
        from rich import progress as parts

        from jaxtune.run.left_column import LeftColumn

        columns = (
            parts.TextColumn("{task.description}"),
            parts.BarColumn(bar_width=30),
            parts.MofNCompleteColumn(),
            parts.TimeElapsedColumn(),
            parts.TextColumn("left"),
            LeftColumn(),
            parts.TextColumn("{task.fields[note]}"),
        )
        with parts.Progress(*columns, console=self.console, transient=True) as progress:
            task = progress.add_task(name, total=total, completed=done, note="", left=None)

            def update(
                advance: int = 1, note: str | None = None, left: float | None = None
            ) -> None:
                progress.update(task, advance=advance)
                if note is not None:
                    progress.update(task, note=note)
                if left is not None:
                    progress.update(task, left=left)

            yield update

    def track(self, name: str) -> Callable[[Iterable[Any]], Iterable[Any]]:
        """A wrapper that shows the progress of iterating over something with a length."""

        def wrap(items: Any) -> Iterator[Any]:
            with self.bar(name, len(items)) as update:
                for item in items:
                    yield item
                    update()

        return wrap
