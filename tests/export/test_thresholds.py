"""Reading of `thresholds.json`."""

import json
import math
from pathlib import Path

import pytest

from kdnas.errors import UsageError
from kdnas.export.thresholds import THRESHOLDS, read_thresholds

DATA = {
    "schema": 1,
    "wanted": {"precision": 0.9},
    "labels": {"hate": {"threshold": 0.6, "languages": {"de": {"threshold": 0.7}, "fr": {"threshold": None}}}},
}


def write(folder: Path, data: object) -> Path:
    (folder / THRESHOLDS).write_text(data if isinstance(data, str) else json.dumps(data))
    return folder


def test_a_language_has_its_own_threshold_or_the_common_one(tmp_path: Path) -> None:
    assert read_thresholds(tmp_path) is None
    found = read_thresholds(write(tmp_path, DATA))
    assert found is not None
    assert [found.of("hate", code) for code in ("de", "en", "")] == [0.7, 0.6, 0.6]
    assert found.of("hate", "fr") is None  # not reachable
    assert found.wanted == {"precision": 0.9}
    assert [found.of("hate", code) for code in ("de-AT", "DE_ch", "fr-CA", "deu")] == [0.7, 0.7, None, 0.6]
    assert found.limits(["hate", "spam"], "fr") == [math.inf, 0.5]
    assert found.languages == ["de", "fr"]
    assert found.describe() == "precision 0.9 on dev rows"
    with pytest.raises(UsageError, match="no label 'spam'; it has hate"):
        found.of("spam")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("{", "not a file of thresholds"),
        ({"schema": 1}, "not a file of thresholds"),
        ({**DATA, "schema": 2}, "schema 2, this version reads 1"),
        ({**DATA, "labels": {"hate": {"threshold": 1.5}}}, "a threshold is 1.5"),
        ({**DATA, "labels": {"hate": 3}}, "not a file of thresholds"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, data: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_thresholds(write(tmp_path, data))
