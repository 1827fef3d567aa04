import logging
import sys

import pytest

from kdnas.store import progress
from kdnas.store.progress import Meter, clock, stage


def test_time_left_depends_only_on_the_work_of_this_run(monkeypatch: pytest.MonkeyPatch) -> None:
    time = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: time[0])
    meter = Meter("search", total=10, done=4)
    assert meter.seconds_left is None
    time[0] += 30
    meter.done = 6  # two in 30 seconds; the four of an earlier run do not count
    assert meter.seconds_left == 60
    meter.note = "loss 0.5"
    assert meter.text() == " 60 %  0:30 spent, 1:00 left  loss 0.5"


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (187, "3:07"), (3787, "1:03:07")])
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_progress_is_plain_lines_without_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0)
    with stage("distill", 2) as bar:
        bar.advance(1, "loss 0.7")
        bar.update(2)
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("distill: started\ndistill:  50 %")
    assert "loss 0.7" in output.err
    assert output.err.count("100 %") == 1  # the end is not told twice


def test_messages_are_not_duplicated_by_a_root_handler(capsys: pytest.CaptureFixture[str]) -> None:
    root, handler = logging.getLogger(), logging.StreamHandler(sys.stderr)
    root.addHandler(handler)
    try:
        progress.show_messages()
        progress.say("once")
    finally:
        root.removeHandler(handler)
    assert capsys.readouterr().err == "once\n"
