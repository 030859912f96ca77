"""Workdirs of finished runs."""

from functools import partial

import pytest
from finished_runs import write_workdir


@pytest.fixture
def workdir_of(tmp_path):
    """A function: task, split, card, what is kept -> a workdir, in folders of telling names."""
    return partial(write_workdir, tmp_path)
