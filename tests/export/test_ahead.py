"""The second process of an export: its calls, its errors and its end, and that it changes no file."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from kdnas.export import making
from kdnas.export.ahead import Ahead
from kdnas.export.options import ExportOptions
from kdnas.export.recipes import Quantising
from kdnas.export.run import run_export
from kdnas.models.teacher import Teacher
from kdnas.store.json_files import read_jsonl
from kdnas.text.corpus import Corpus

FORM, GIVEN = "onnxruntime-int8", Quantising(Path("no such folder"), "feature-extraction", [[5, 6]])


def test_an_error_is_an_answer(tmp_path: Path) -> None:
    with Ahead() as ahead:
        for name in ("dynamic", "no such recipe"):
            ahead.write(tmp_path / name, FORM, name, GIVEN)
            assert not ahead.has_written(tmp_path / name)
        assert not ahead.has_written(tmp_path / "never asked")
        assert psutil.Process(ahead.pid).is_running()


def test_a_killed_process_has_written_nothing(tmp_path: Path) -> None:
    with Ahead() as ahead:
        child = psutil.Process(ahead.pid)
        child.kill()
        child.wait()
        for name in ("dynamic", "block-wise"):
            ahead.write(tmp_path / name, FORM, name, GIVEN)
        ahead.wait()
        assert not ahead.has_written(tmp_path / "dynamic")


def test_it_ends_with_its_parent(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.onnx")  # reading it never ends: the process stays busy
    code = f"""if True:
        import pathlib
        from kdnas.export.ahead import Ahead
        from kdnas.export.recipes import Quantising
        folder, ahead = pathlib.Path({str(tmp_path)!r}), Ahead()
        ahead.write(folder / "out", {FORM!r}, "dynamic", Quantising(folder, "feature-extraction", []))
        print("asked", flush=True)
        ahead.wait()
    """
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "asked\n"
        [child] = psutil.Process(parent.pid).children()
        parent.send_signal(signal.SIGKILL)
        psutil.wait_procs([child], timeout=60)
        assert not child.is_running()


@pytest.mark.exhaustive
def test_an_export_has_the_same_graphs_with_a_second_process(
    tiny_teacher: Teacher, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ExportOptions(24, 24, recipes=("static-smoothquant", "weight-only", "dynamic"), max_loss_points=100)
    asked: list[Path] = []

    class Noted(Ahead):
        def has_written(self, folder: Path) -> bool:
            written = super().has_written(folder)
            if written:
                asked.append(folder)
            return written

    def export(home: str, least: float) -> dict[str, dict[str, Any]]:
        monkeypatch.setattr(making, "AHEAD_BYTES", least)
        made = run_export(tmp_path / home, tiny_teacher.path, tiny_teacher.digest, corpus, options)
        assert not list(made.path.glob("*.ahead"))
        rows = {row["form"]: row for row in read_jsonl(made.path / "forms.jsonl")}
        return {
            form: {name: found["loss_points"] for name, found in row.get("tried", {"": row}).items()}
            for form, row in rows.items()
        }

    monkeypatch.setattr(making, "Ahead", Noted)
    alone = export("alone", 1e12)
    assert not asked
    together = export("together", 0)
    assert {folder.name for folder in asked} == {"weight-only", "dynamic"}
    assert alone == together
