"""One server for the tests that change nothing of it."""

import pytest
from serving_client import serving


@pytest.fixture(scope="module")
def client(tiny_weights):
    """Of a classifier of single texts."""
    with serving(tiny_weights("classification", "bert", 1)) as found:
        yield found
