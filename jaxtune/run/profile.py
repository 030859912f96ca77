"""A trace of some training steps, for TensorBoard or Perfetto."""

from pathlib import Path
from typing import Any

import jax

from jaxtune.run.console import Report


class Profile:
    """Traces the steps `steps[0]` to `steps[1] - 1`, counted from 0; none where that is None."""

    def __init__(self, steps: tuple[int, ...] | None, folder: Path, report: Report) -> None:
        """Nothing is traced yet.

        Args:
          steps: the first step, and the one after the last.
          folder: gets the trace.
          report: says where it is.
        """
        self._steps, self._folder, self._report = steps, folder, report
        self._is_on = False

    def before(self, step: int, pending: Any) -> None:
        """Begins the trace if `step` is the first; what is `pending` on the device is not in it."""
        if self._steps is not None and step == self._steps[0]:
            jax.block_until_ready(pending)
            options = jax.profiler.ProfileOptions()
            options.python_tracer_level = 0  # which slows the steps down and fills the trace
            jax.profiler.start_trace(
                str(self._folder), create_perfetto_trace=True, profiler_options=options
            )
            self._is_on = True

    def ends(self, step: int) -> bool:
        """Whether the trace that is on ends before `step`."""
        return self._is_on and self._steps is not None and step == self._steps[1]

    def after(self, step: int) -> None:
        """Writes the trace if it ends before `step`; the steps must be done on the device."""
        if self.ends(step):
            self.close()

    def close(self) -> None:
        """Writes the trace if one is on, which may be cut short."""
        if not self._is_on:
            return
        self._is_on = False
        jax.profiler.stop_trace()
        self._report.line(
            f"profile: {self._folder}: open its perfetto_trace.json.gz in https://ui.perfetto.dev,"
            f" or run tensorboard --logdir={self._folder} (with the package xprof)"
        )
