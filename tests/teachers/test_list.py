"""`kdnas teachers` without a fetch."""

import json
from pathlib import Path

import pytest

from kdnas.arguments import parse
from kdnas.commands import load_command
from kdnas.errors import KdnasError, UsageError
from kdnas.models.packaged import HOME, PACKAGED, SHAPE, fetch_command, packaged_folder
from kdnas.models.teacher import Teacher, resolve_teacher
from kdnas.store.outcome import Outcome
from kdnas.teachers.run import teachers

from ..latency.table_fixture import law_rows, table_artifact


def test_list_has_every_teacher_and_what_to_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = teachers(home=tmp_path)
    assert isinstance(found, Outcome)
    rows = {row["name"]: row for row in json.loads(str(found.text))}
    assert list(rows) == ["minilm-l6", "multilingual-e5-small", "mpnet-base"]
    assert rows["minilm-l6"]["folder"] == str(resolve_teacher("builtin:minilm-l6").path)
    e5 = rows["multilingual-e5-small"]
    assert (e5["spec"], e5["family"], e5["layers"], e5["hidden"]) == ("builtin:multilingual-e5-small", "bert", 12, 384)
    assert (e5["licence"], e5["folder"], {"de", "sw", "zh"} <= set(e5["languages"])) == ("MIT", None, True)
    assert e5["fetch"] == f"kdnas teachers --fetch multilingual-e5-small --home {tmp_path}"
    mpnet = rows["mpnet-base"]
    assert (mpnet["family"], mpnet["layers"], mpnet["hidden"], mpnet["languages"]) == ("mpnet", 12, 768, ["en"])
    shown = capsys.readouterr().err
    assert all(name in shown for name in rows)
    assert "12 x 384" in shown
    assert "dequantised" in e5["remark"]


def test_facts_of_the_installed_teacher() -> None:
    known, found = PACKAGED["minilm-l6"], resolve_teacher("builtin:minilm-l6")
    assert (known.family, known.layers, known.hidden) == (found.config["model_type"], found.layers, found.hidden)


@pytest.mark.parametrize("name", ["multilingual-e5-small", "mpnet-base"])
def test_missing_teacher_names_the_command(name: str, tmp_path: Path) -> None:
    with pytest.raises(KdnasError, match=rf"run: kdnas teachers --fetch {name} --home {tmp_path}$"):
        resolve_teacher(f"builtin:{name}", tmp_path)
    assert fetch_command(HOME, name) == f"kdnas teachers --fetch {name}"


def test_unknown_teacher_suggests_the_nearest() -> None:
    with pytest.raises(
        UsageError, match=r"did you mean 'mpnet-base'.*there are minilm-l6, multilingual-e5-small, mpnet-base"
    ):
        packaged_folder("builtin:mpnet-bas", HOME)
    with pytest.raises(UsageError, match=SHAPE):
        packaged_folder("builtin:other", HOME)


# Options of every command that takes a teacher or a model, and what it finds first. TEACHER stands for the fetched teacher.
ARCH = "4,12,384,768,gelu"
CALLS = {
    "pipeline": ["--teacher=TEACHER"],
    "pipeline, dry run": ["--teacher=TEACHER", "--dry-run"],
    "latency-table": ["--teacher=TEACHER"],
    "latency-table, tokenizer": [f"--teacher={SHAPE}", "--tokenizer=TEACHER"],
    "recommend": ["--teacher=TEACHER", "--budget-ms=1"],
    "search": ["--teacher=TEACHER", "--table=TABLE"],
    "record": ["--teacher=TEACHER"],
    "distill": ["--teacher=TEACHER", f"--arch={ARCH}"],
    "refine": ["--teacher=TEACHER", f"--arch={ARCH}"],
    "pretrain": ["--start=TEACHER", f"--arch={ARCH}", "--corpus=builtin:pydocs"],
    "pretrain, tokenizer": ["--tokenizer=TEACHER", f"--arch={ARCH}", "--corpus=builtin:pydocs"],
    "export": ["--model=TEACHER"],
    "evaluate": ["--teacher=TEACHER", "--student=STUDENT"],
    "speed": ["--teacher=TEACHER", "--student=STUDENT", "--exported=STUDENT"],
    "suites": ["--model=TEACHER", "--tasks=glue/sst2"],
    "compare-suites": ["--models=TEACHER,TEACHER"],
}


@pytest.mark.parametrize("call", CALLS)
def test_commands_look_below_their_home(call: str, tmp_path: Path, tiny_teacher: Teacher) -> None:
    name = call.partition(",")[0]
    values = {"TEACHER": "builtin:mpnet-base", "STUDENT": str(tiny_teacher.path)}
    if "--table=TABLE" in CALLS[call]:
        values["TABLE"] = str(table_artifact(tmp_path, law_rows()).path)
    words = [f"--home={tmp_path}", *CALLS[call]]
    for key, value in values.items():
        words = [word.replace(key, value) for word in words]
    function = load_command(name)
    with pytest.raises(KdnasError, match=rf"kdnas teachers --fetch mpnet-base --home {tmp_path}"):
        function(**parse(name, function, words))
