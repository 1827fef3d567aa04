"""All tests of distillation start their students from a small sample."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def start_from_small_sample(small_sample: None) -> None:
    pass
