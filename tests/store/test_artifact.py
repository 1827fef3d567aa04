import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.numpy import save_file

from kdnas.errors import KdnasError, UsageError
from kdnas.store import artifact
from kdnas.store.artifact import Artifact, build
from kdnas.store.digest import digest_of
from kdnas.store.disk import locked, require_space
from kdnas.store.json_files import append_jsonl, read_jsonl, to_json


def write(path: Path) -> dict[str, Any]:
    (path / "data.txt").write_text("42")
    return {"answer": 42}


def test_finished_artifact_is_reused(tmp_path: Path) -> None:
    first = build(tmp_path, "kind", "label", {"a": 1}, {}, write)
    second = build(tmp_path, "kind", "label", {"a": 1}, {}, lambda path: pytest.fail("made again"))
    assert second.path == first.path
    assert second.results == {"answer": 42}
    assert build(tmp_path, "kind", "label", {"a": 2}, {}, write).path != first.path
    assert build(tmp_path, "kind", "label", {"a": 1}, {"in": "x"}, write).path != first.path


def test_manifest_records_configuration_inputs_and_files(tmp_path: Path) -> None:
    made = build(tmp_path, "kind", "label", {"a": 1}, {"corpus": "abc"}, write)
    manifest = json.loads((made.path / "manifest.json").read_text())
    assert manifest["config"] == {"a": 1}
    assert manifest["inputs"] == {"corpus": "abc"}
    assert manifest["files"]["data.txt"] == "73475cb40a568e8da8a045ced110137e159f890ac4da883b6b17dc651b3a8049"
    assert manifest["host"]["cpu"]
    assert manifest["attempts"] == 1
    assert build(tmp_path / "other", "kind", "label", {"a": 1}, {"corpus": "abc"}, write).digest == made.digest
    assert not list(tmp_path.rglob("*.partial"))
    assert not list(tmp_path.rglob("*.lock"))


def test_files_have_the_permissions_of_new_files(tmp_path: Path) -> None:
    def work(path: Path) -> dict[str, Any]:
        (path / "model").mkdir()
        save_file(
            {"weight": np.zeros(2, np.float32)}, path / "model" / "model.safetensors"
        )  # readable by the owner only
        return write(path)

    made = build(tmp_path, "kind", "label", {}, {}, work)
    modes = {file.name: file.stat().st_mode & 0o777 for file in made.path.rglob("*") if file.is_file()}
    (tmp_path / "new").touch()
    assert modes == dict.fromkeys(
        ("data.txt", "model.safetensors", "manifest.json"), (tmp_path / "new").stat().st_mode & 0o777
    )


def test_next_attempt_continues_failed_work(tmp_path: Path) -> None:
    def work(path: Path) -> dict[str, Any]:
        done = read_jsonl(path / "log.jsonl")
        append_jsonl(path / "log.jsonl", {"n": len(done)})
        if not done:
            raise RuntimeError("stopped")
        return {"done": len(done) + 1}

    with pytest.raises(RuntimeError):
        build(tmp_path, "kind", "label", {}, {}, work)
    assert not list(tmp_path.rglob("manifest.json"))
    made = build(tmp_path, "kind", "label", {}, {}, work)
    assert made.results == {"done": 2}
    assert made.manifest["attempts"] == 2


def test_killed_work_resumes(tmp_path: Path) -> None:
    script = textwrap.dedent("""
        import os, signal, sys
        from pathlib import Path
        from kdnas.store.artifact import build
        from kdnas.store.json_files import append_jsonl, read_jsonl
        def work(path):
            for n in range(len(read_jsonl(path / "log.jsonl")), 5):
                append_jsonl(path / "log.jsonl", {"n": n})
                if n < 4:
                    (path / "log.jsonl").open("a").write('{"torn')
                    os.kill(os.getpid(), signal.SIGKILL)
            return {}
        print(build(Path(sys.argv[1]), "kind", "label", {}, {}, work).path)
    """)
    codes = [subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True).returncode for _ in range(5)]
    assert codes == [-signal.SIGKILL] * 4 + [0]
    [log] = tmp_path.rglob("log.jsonl")
    assert read_jsonl(log) == [{"n": n} for n in range(5)]


def test_two_processes_cannot_build_the_same_artifact(tmp_path: Path) -> None:
    with locked(tmp_path / "a.lock"), pytest.raises(KdnasError, match="another process"), locked(tmp_path / "a.lock"):
        pytest.fail("locked twice")
    with locked(tmp_path / "a.lock"):
        pass


def test_a_process_can_wait_for_another_that_builds_the_same(tmp_path: Path) -> None:
    begun, end = threading.Event(), threading.Event()

    def slow(path: Path) -> dict[str, Any]:
        begun.set()
        end.wait(30)
        return write(path)

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(build, tmp_path, "kind", "label", {}, {}, slow)
        assert begun.wait(30)
        second = pool.submit(build, tmp_path, "kind", "label", {}, {}, lambda _: pytest.fail("built twice"), wait=True)
        with pytest.raises(KdnasError, match="another process"):
            build(tmp_path, "kind", "label", {}, {}, write)
        end.set()
        assert first.result(30).path == second.result(30).path


def test_children_of_a_killed_process_do_not_hold_its_lock(tmp_path: Path) -> None:
    script = """
        import os, sys, time
        from pathlib import Path
        from kdnas.store.disk import locked
        with locked(Path(sys.argv[1])):
            if os.fork() == 0:
                print(os.getpid(), flush=True)
                time.sleep(60)
            time.sleep(60)
    """
    lock = tmp_path / "a.lock"
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), str(lock)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    try:
        with pytest.raises(KdnasError, match="another process"), locked(lock):
            pytest.fail("locked twice")
        parent.kill()
        parent.wait()
        with locked(lock):
            os.kill(child, 0)  # the child is alive
    finally:
        os.kill(child, signal.SIGKILL)


def test_changed_file_is_detected(tmp_path: Path) -> None:
    made = build(tmp_path, "kind", "label", {}, {}, write)
    made.verify()
    (made.path / "data.txt").write_text("43")
    with pytest.raises(KdnasError, match="changed since it was written"):
        made.verify()


def test_loading_other_folders_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no finished artifact here"):
        Artifact.load(tmp_path)
    made = build(tmp_path, "kind", "label", {}, {}, write)
    with pytest.raises(UsageError, match="this is a 'kind' artifact, a 'search' is needed"):
        Artifact.load(made.path, "search")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
    ids=["python", "rust"],
)
def test_full_disk_is_reported_and_work_is_kept(tmp_path: Path, error: Exception) -> None:
    def work(path: Path) -> dict[str, Any]:
        (path / "kept").write_text("x")
        raise error

    with pytest.raises(KdnasError, match="no disk space left; free some or set KDNAS_HOME"):
        build(tmp_path, "kind", "label", {}, {}, work)
    assert list(tmp_path.rglob("kept"))
    with pytest.raises(KdnasError, match="GB needed"):
        require_space(tmp_path, 10**18)


def test_unwritable_home_is_reported(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(KdnasError, match="cannot write here"):
        build(file, "kind", "label", {}, {}, write)


@given(st.lists(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=3), max_size=5))
def test_logs_return_the_appended_rows(rows: list[dict[str, Any]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log.jsonl"
        for row in rows:
            append_jsonl(log, row)
        with log.open("a") as file:
            file.write('{"torn": ')
        assert read_jsonl(log) == rows
        append_jsonl(log, {"after": 1})
        assert read_jsonl(log) == [*rows, {"after": 1}]


def test_digests_do_not_depend_on_key_order() -> None:
    assert digest_of({"a": 1, "b": (1, Path("x"))}) == digest_of({"b": [1, "x"], "a": 1})
    assert digest_of({"minutes": 10}) == digest_of({"minutes": 10.0}) != digest_of({"minutes": 10.5})
    assert to_json({"a": (Path("x"),)}) == {"a": ["x"]}
    assert artifact.SCHEMA == 1
