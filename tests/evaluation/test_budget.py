"""Plans that turn minutes into examples and epochs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdnas.evaluation.budget import FORWARD_COST, LEAST_EXAMPLES, PLANNED_SHARE, make_plan
from kdnas.evaluation.rows import Split
from kdnas.evaluation.tasks import Task


def task(train: int, dev: int = 100, test: int = 100) -> Task:
    return Task(
        "toy", ["a", "b"], *(Split([f"text {n}" for n in range(size)], [0] * size) for size in (train, dev, test))
    )


def test_ample_time_gives_all_rates_and_five_epochs() -> None:
    plan = make_plan(task(1000), [100.0, 200.0], seconds=10_000, rates=2, epochs=None)
    assert (plan.train_examples, plan.epochs, plan.learning_rates) == (1000, 5, 2)


def test_less_time_gives_one_rate() -> None:
    # 15 ms per example for both models: about 16 s per epoch, so 4 epochs fit.
    plan = make_plan(task(1000), [100.0, 200.0], seconds=80, rates=2, epochs=None)
    assert (plan.train_examples, plan.epochs, plan.learning_rates) == (1000, 4, 1)


def test_little_time_reduces_the_rows() -> None:
    plan = make_plan(task(10_000), [100.0, 200.0], seconds=60, rates=2, epochs=None)
    assert plan.epochs == plan.learning_rates == 1
    assert LEAST_EXAMPLES < plan.train_examples < 4000


def test_a_given_number_of_epochs_is_not_changed() -> None:
    plan = make_plan(task(1000, dev=5000), [], seconds=0.1, rates=2, epochs=7)
    assert (plan.train_examples, plan.epochs, plan.learning_rates, plan.dev_examples) == (1000, 7, 2, 1000)


@given(st.integers(20, 30_000), st.floats(5, 2000), st.floats(1, 4000), st.integers(1, 3))
def test_a_plan_fits_into_the_time_or_is_the_minimum(train: int, speed: float, seconds: float, rates: int) -> None:
    given_task = task(train)
    plan = make_plan(given_task, [speed, 2 * speed], seconds, rates, None)
    assert 1 <= plan.train_examples <= train
    assert 1 <= plan.epochs <= 5
    cost = 1.5 / speed
    passes = plan.epochs * plan.learning_rates * (plan.train_examples + FORWARD_COST * plan.dev_examples)
    planned = cost * (passes + FORWARD_COST * len(given_task.test))
    least = plan.epochs == 1 and plan.train_examples == min(train, LEAST_EXAMPLES)
    assert least or planned == pytest.approx(min(planned, PLANNED_SHARE * seconds))
