"""A changed byte is detected in every file of an export, and a session refuses a folder if a file that it needs has changed."""

import os
import random
import shutil
from pathlib import Path

import pytest

from kdnas.errors import KdnasError
from kdnas.export.session import Session
from kdnas.store.artifact import MANIFEST, Artifact

FLIPS = 1000


@pytest.fixture
def folder(classifier_export: Artifact, tmp_path: Path) -> Path:
    return Path(shutil.copytree(classifier_export.path, tmp_path / "copy"))


@pytest.mark.slow
def test_every_flipped_byte_is_detected(classifier_export: Artifact, folder: Path) -> None:
    """Half of the flips by size, half spread evenly over the files, so that small files are covered too."""
    rng = random.Random(0)
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    sizes = [file.stat().st_size for file in files]
    assert MANIFEST in {file.name for file in files}
    for number in range(FLIPS):
        file = rng.choices(files, sizes)[0] if number % 2 else files[number // 2 % len(files)]
        index, mask = rng.randrange(file.stat().st_size), rng.randrange(1, 256)
        with file.open("r+b") as stream:
            stream.seek(index)
            old = stream.read(1)[0]
            stream.seek(index)
            stream.write(bytes([old ^ mask]))
        with pytest.raises(KdnasError):
            Artifact.load(folder, "export").verify()
        with file.open("r+b") as stream:
            stream.seek(index)
            stream.write(bytes([old]))
    Artifact.load(folder, "export").verify()


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("onnx/model.onnx", "onnxruntime-f32"),
        ("openvino/openvino_model.bin", "openvino-f32"),
        ("openvino/int8/openvino_model.bin", "openvino-int8"),
        ("tokenizer.json", "openvino-f32"),
        ("tokie.json", "onnxruntime-int8"),
    ],
)
def test_the_error_names_the_changed_file(name: str, form: str, folder: Path) -> None:
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(KdnasError, match=f"{name}: missing or changed since it was written"):
        Session(folder, form, threads=1)
    (folder / name).write_bytes(content[:-1])
    with pytest.raises(KdnasError, match=f"{name}: missing or changed"):
        Session(folder, form, threads=1)
    (folder / name).unlink()
    with pytest.raises(KdnasError, match=f"{name}"):
        Session(folder, form, threads=1)


@pytest.mark.parametrize("name", ["onnx/model.onnx", "openvino/int8/openvino_model.bin", "model.safetensors"])
def test_files_that_a_form_does_not_need_must_only_exist(name: str, folder: Path) -> None:
    """To start, a session of one form does not read the graphs of the other forms."""
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:-1])
    assert Session(folder, "openvino-f32", threads=1).form == "openvino-f32"
    (folder / name).unlink()
    with pytest.raises(KdnasError, match=f"{name}: missing or changed"):
        Session(folder, "openvino-f32", threads=1)


@pytest.mark.parametrize("form", ["onnxruntime-f32", "onnxruntime-int8"])
def test_swapped_files_are_detected(form: str, folder: Path) -> None:
    first, second = folder / "onnx/model.onnx", folder / "onnx-int8/model_quantized.onnx"
    os.rename(first, folder / "kept")
    os.rename(second, first)
    os.rename(folder / "kept", second)
    with pytest.raises(KdnasError, match=r"onnx.*\.onnx: missing or changed"):
        Session(folder, form, threads=1)


def test_a_link_out_of_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    graph = folder / "openvino/openvino_model.bin"
    shutil.move(graph, tmp_path / "elsewhere.bin")
    graph.symlink_to(tmp_path / "elsewhere.bin")
    with pytest.raises(KdnasError, match=r"openvino_model\.bin: a link to a file outside"):
        Session(folder, "openvino-f32", threads=1)


def test_a_changed_value_or_white_space_in_the_manifest_is_detected(folder: Path) -> None:
    file = folder / MANIFEST
    text = file.read_text()
    for changed in (text.replace('"max_seq_len": 1', '"max_seq_len": 2'), text.replace("  ", " ", 1), text + " "):
        file.write_text(changed if changed != text else text.replace('"task"', '"tusk"'))
        with pytest.raises(KdnasError, match=r"manifest\.json: changed since it was written"):
            Session(folder, "openvino-f32", threads=1)


def test_verification_can_be_turned_off(folder: Path) -> None:
    (folder / "README.md").write_text("changed")
    with pytest.raises(KdnasError, match=r"README\.md"):
        Session(folder, "openvino-f32", threads=1)
    assert Session(folder, "openvino-f32", threads=1, verify=False).predict(["One sentence."]).shape == (1, 3)
