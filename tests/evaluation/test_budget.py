"""Plans that turn minutes into examples and epochs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdnas.evaluation.budget import (
    LEAST_EXAMPLES,
    MEASURE_SECONDS,
    PLANNED_SHARE,
    Speed,
    make_plan,
    per_second,
    score_speed,
    scoring_seconds,
)
from kdnas.evaluation.finetune import Plan
from kdnas.evaluation.rows import Split
from kdnas.evaluation.tasks import Task


def task(train: int, dev: int = 100, test: int = 100) -> Task:
    return Task(
        "toy", ["a", "b"], *(Split([f"text {n}" for n in range(size)], [0] * size) for size in (train, dev, test))
    )


SPEEDS = [Speed(100.0, 250.0), Speed(200.0, 500.0)]


def seconds_of(plan: Plan, given: Task, speeds: list[Speed], scored_rows: int | None = None) -> float:
    """Seconds of training, of all passes over dev and of scoring, on machines of exactly these speeds."""
    passes = plan.epochs * plan.learning_rates
    training = sum(passes * (plan.train_examples / one.train + plan.dev_examples / one.score) for one in speeds)
    return training + scoring_seconds(given, speeds, scored_rows)


def test_ample_time_gives_all_rates_and_five_epochs() -> None:
    plan = make_plan(task(1000), SPEEDS, seconds=10_000, rates=2, epochs=None)
    assert (plan.train_examples, plan.epochs, plan.learning_rates) == (1000, 5, 2)


def test_less_time_gives_one_rate() -> None:
    # 15 ms per example for both models: about 16 s per epoch, so 4 epochs fit.
    plan = make_plan(task(1000), SPEEDS, seconds=80, rates=2, epochs=None)
    assert (plan.train_examples, plan.epochs, plan.learning_rates) == (1000, 4, 1)


def test_little_time_reduces_the_rows() -> None:
    plan = make_plan(task(10_000), SPEEDS, seconds=60, rates=2, epochs=None)
    assert plan.epochs == plan.learning_rates == 1
    assert LEAST_EXAMPLES < plan.train_examples < 4000


def test_a_given_number_of_epochs_is_not_changed() -> None:
    plan = make_plan(task(1000, dev=5000), [], seconds=0.1, rates=2, epochs=7)
    assert (plan.train_examples, plan.epochs, plan.learning_rates, plan.dev_examples) == (1000, 7, 2, 1000)


def test_scoring_is_charged_at_its_own_speed() -> None:
    # As XNLI: 75,150 test rows, scored 20 times as fast as trained. At 0.4 of a training step each, they took 300 s of 150.
    given_task, speeds = task(10_000, dev=1000, test=75_150), [Speed(100.0, 2000.0)]
    plan = make_plan(given_task, speeds, seconds=150, rates=1, epochs=None)
    assert plan.train_examples > 8000
    assert 0.8 * 150 < seconds_of(plan, given_task, speeds) < 150


def test_rows_that_several_engines_score_leave_less_for_training() -> None:
    given_task, speeds = task(10_000, test=2000), [Speed(100.0, 500.0)]
    plans = [make_plan(given_task, speeds, seconds=60, rates=1, epochs=None, scored_rows=rows) for rows in (2000, 8000)]
    assert plans[0].train_examples - plans[1].train_examples == pytest.approx(100.0 * 6000 / 500.0, abs=1)


def test_more_epochs_than_five_are_planned_if_wanted() -> None:
    plan = make_plan(task(1000), SPEEDS, seconds=10_000, rates=2, epochs=None, most_epochs=10)
    assert (plan.train_examples, plan.epochs, plan.learning_rates) == (1000, 10, 2)
    plan = make_plan(task(1000), SPEEDS, seconds=60, rates=2, epochs=None, most_epochs=1)
    assert (plan.epochs, plan.learning_rates) == (1, 2)  # one epoch each is all that was wanted


class Clock:
    """Time that passes only when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_throughput_is_rows_per_second_of_the_clock() -> None:
    clock = Clock()

    def work(turn: int) -> int:
        clock.now += 0.25
        return 8 if turn % 2 else 4

    assert per_second(work, clock) == pytest.approx(6 / 0.25)
    assert clock.now == MEASURE_SECONDS


def test_the_speed_of_scoring_is_measured_over_all_languages() -> None:
    # The second language's rows take nine times as long, and come after all rows of the first.
    clock, languages = Clock(), ["a"] * 500 + ["b"] * 500
    rows = Split([(language, number) for number, language in enumerate(languages)], [0] * 1000, languages)

    def predict(texts: list[tuple[str, int]]) -> None:
        clock.now += sum({"a": 0.001, "b": 0.009}[language] for language, _ in texts)

    assert score_speed(predict, rows, clock) == pytest.approx(200, rel=0.05)


@given(
    st.integers(20, 30_000),
    st.integers(10, 100_000),
    st.floats(5, 2000),
    st.floats(0.5, 50),
    st.floats(1, 4000),
    st.integers(1, 3),
)
def test_a_plan_fits_into_the_time_or_is_the_minimum(
    train: int, test: int, speed: float, faster: float, seconds: float, rates: int
) -> None:
    given_task = task(train, test=test)
    speeds = [Speed(speed, faster * speed), Speed(2 * speed, 2 * faster * speed)]
    plan = make_plan(given_task, speeds, seconds, rates, None)
    assert 1 <= plan.train_examples <= train
    assert 1 <= plan.epochs <= 5
    planned = seconds_of(plan, given_task, speeds)
    least = plan.epochs == 1 and plan.train_examples == min(train, LEAST_EXAMPLES)
    assert least or planned == pytest.approx(min(planned, PLANNED_SHARE * seconds))
