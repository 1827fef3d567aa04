"""`--output`: plain files, which never overwrite other content."""

import json
import shutil
from inspect import signature
from pathlib import Path
from typing import Any

import pytest

from kdnas.cli import load_command
from kdnas.errors import UsageError
from kdnas.store import output as module
from kdnas.store.artifact import Artifact, build
from kdnas.store.output import RECORD, deliver, deliver_all, require_output


def made(home: Path, kind: str, files: dict[str, str]) -> Artifact:
    def work(folder: Path) -> dict[str, Any]:
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        return {"count": len(files)}

    return build(home, kind, "x", {"files": files}, {}, work)


def below(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()} - {RECORD}


def test_result_without_output_is_the_artifact(tmp_path: Path) -> None:
    artifact = made(tmp_path, "thing", {"a.txt": "1"})
    assert deliver(artifact, None) == artifact


def test_output_has_all_files_and_loads_as_an_artifact(tmp_path: Path) -> None:
    artifact = made(tmp_path / "home", "thing", {"a.txt": "1", "deep/b.txt": "2"})
    result = deliver(artifact, tmp_path / "new" / "out")
    assert (result.path, result.results, result.exit_code) == (tmp_path / "new" / "out", {"count": 2}, 0)
    assert below(tmp_path / "new" / "out") == {"a.txt", "deep/b.txt", "manifest.json"}
    Artifact.load(tmp_path / "new" / "out", "thing").verify()
    artifact.verify()
    (tmp_path / "new" / "out" / "a.txt").write_text("changed")
    artifact.verify()  # the artifact does not share the file


def test_output_of_a_model_is_its_hugging_face_folder(tmp_path: Path) -> None:
    artifact = made(tmp_path / "home", "distill", {"student/config.json": "{}", "history.jsonl": ""})
    deliver(artifact, tmp_path / "out")
    assert below(tmp_path / "out") == {"config.json"}


def test_earlier_output_of_the_same_kind_is_replaced_and_other_files_stay(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()  # empty
    deliver(made(tmp_path / "home", "thing", {"a.txt": "1", "old.txt": "1"}), out)
    (out / "mine.txt").write_text("of the user")
    deliver(made(tmp_path / "home", "thing", {"a.txt": "2"}), out)
    assert below(out) == {"a.txt", "manifest.json", "mine.txt"}
    assert (out / "a.txt").read_text() == "2"


@pytest.mark.parametrize("kind", ["foreign", "other kind", "file", "damaged"])
def test_folders_with_other_content_are_rejected(kind: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    if kind == "file":
        out.write_text("thesis")
    elif kind == "other kind":
        deliver(made(tmp_path / "home", "other", {"a.txt": "1"}), out)
    else:
        out.mkdir()
        (out / (RECORD if kind == "damaged" else "thesis.txt")).write_text("{")
    with pytest.raises(UsageError, match=r"give a new or an empty"):
        require_output(out, "thing")
    with pytest.raises(UsageError, match=r"give a new or an empty"):
        deliver(made(tmp_path / "home", "thing", {"a.txt": "1"}), out)


def test_next_run_completes_an_interrupted_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact, out = made(tmp_path / "home", "thing", {"a.txt": "1", "b.txt": "2"}), tmp_path / "out"
    copy = shutil.copyfile

    def dying(source: Path, target: Path) -> None:
        if source.name == "b.txt":
            raise KeyboardInterrupt
        copy(source, target)

    monkeypatch.setattr(module.shutil, "copyfile", dying)
    with pytest.raises(KeyboardInterrupt):
        deliver(artifact, out)
    monkeypatch.undo()
    deliver(artifact, out)
    assert below(out) == {"a.txt", "b.txt", "manifest.json"}
    assert json.loads((out / RECORD).read_text())["kind"] == "thing"


def test_each_of_several_results_gets_a_folder(tmp_path: Path) -> None:
    artifacts = [made(tmp_path / "home", "thing", {"a.txt": text}) for text in "12"]
    found = deliver_all(artifacts, tmp_path / "out")
    assert [one.path for one in found] == [tmp_path / "out" / artifact.path.name for artifact in artifacts]
    assert [(one.path / "a.txt").read_text() for one in found if one.path] == ["1", "2"]
    assert deliver_all(artifacts, None) == artifacts
    deliver_all(artifacts[1:], tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"output.json", artifacts[1].path.name}


@pytest.mark.parametrize("name", [
    "pipeline", "latency-table", "search", "record", "compare-strategies", "pretrain", "distill", "refine", "export", "evaluate",
    "suites", "speed", "fidelity",
])  # fmt: skip
def test_every_command_that_builds_an_artifact_has_the_option_output(name: str) -> None:
    parameter = signature(load_command(name)).parameters["output"]
    assert (parameter.annotation, parameter.default) == (Path | None, None)
