"""Extraction without torch: the same files as torch writes, what comes with them, export parity, damaged families."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from kdnas.autodistil.cutting import sliced
from kdnas.autodistil.extract import extract, write_member
from kdnas.autodistil.family import NET, SCORES, SPACE
from kdnas.distill.student_folder import find_student
from kdnas.errors import KdnasError, UsageError
from kdnas.export.options import ExportOptions
from kdnas.export.run import run_export
from kdnas.models.arch import Arch
from kdnas.models.card import read_card
from kdnas.models.folder import TOKENIZER_FILES, model_digest
from kdnas.models.pooling import pooling_of, write_modules
from kdnas.models.teacher import Teacher
from kdnas.store.artifact import Artifact
from kdnas.text.corpus import Corpus

from .family_nets import TYPES, extracted, extremes, tiny_net, tiny_space, untrained_family


@pytest.fixture(scope="module", params=TYPES)
def family(request: pytest.FixtureRequest, home: Path, teacher: Teacher) -> Artifact:
    """A family with the packaged tokenizer."""
    space = tiny_space(request.param)
    net = tiny_net(space, teacher.config["vocab_size"])
    return untrained_family(home / "extract" / request.param, space, net, teacher.path)


@pytest.mark.parametrize("model_type", TYPES)
def test_members_have_the_bytes_that_torch_and_transformers_write(model_type: str, tmp_path: Path) -> None:
    space = tiny_space(model_type)
    net = tiny_net(space)
    net.save_pretrained(tmp_path / "net")
    for arch in extremes(space):
        ours, theirs = tmp_path / f"{arch.name}-ours", tmp_path / f"{arch.name}-theirs"
        write_member(ours, tmp_path / "net", space, arch, "# A member\n")
        extracted(net.state_dict(), net.config, space, arch).save_pretrained(theirs)
        assert (ours / "model.safetensors").read_bytes() == (theirs / "model.safetensors").read_bytes()
        assert json.loads((ours / "config.json").read_text()) == json.loads((theirs / "config.json").read_text())


def test_a_member_is_a_stock_folder_with_the_tokenizer_and_licence_of_its_net(
    family: Artifact, teacher: Teacher, tmp_path: Path
) -> None:
    (net,) = family.path.glob(f"*/{NET}")
    space = tiny_space(json.loads((net / "config.json").read_text())["model_type"])
    tensors = AutoModel.from_pretrained(net, add_pooling_layer=False).state_dict()
    for arch in (space.largest, space.smallest, Arch(3, 2, 48, 96)):
        folder = tmp_path / arch.name
        assert extract(family.path, folder, str(arch)).path == folder
        stock, info = AutoModel.from_pretrained(folder, add_pooling_layer=False, output_loading_info=True)
        assert not info["missing_keys"]
        assert not info["unexpected_keys"]
        expected = sliced(tensors, space, arch)
        assert set(stock.state_dict()) == set(expected)
        assert all(torch.equal(value, expected[name]) for name, value in stock.state_dict().items())
        for name in TOKENIZER_FILES:
            assert (folder / name).is_file() == (net / name).is_file()
        assert AutoTokenizer.from_pretrained(folder)("hello")["input_ids"]
        metadata, text = read_card(folder)
        assert metadata["license"] == "mit"
        assert f"# {arch}" in text
        assert find_student(folder) == (folder, model_digest(folder))


def test_a_member_pools_as_its_net_does(tmp_path: Path) -> None:
    space = tiny_space()
    tiny_net(space).save_pretrained(tmp_path / "net")
    write_modules(tmp_path / "net", 48, 40, "first")
    write_member(tmp_path / "member", tmp_path / "net", space, space.smallest, "# A member\n")
    assert pooling_of(tmp_path / "member") == "first"


def test_extraction_imports_neither_torch_nor_transformers(family: Artifact, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from kdnas.autodistil.extract import extract\n"
        "extract(Path(sys.argv[1]), Path(sys.argv[2]), '1,2,48,8,gelu')\n"
        "heavy = {'torch', 'transformers', 'huggingface_hub', 'scipy', 'pandas'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    command = [sys.executable, "-c", code, str(family.path), str(tmp_path / "member")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_members_pass_export_parity(family: Artifact, corpus: Corpus, tmp_path: Path) -> None:
    """An export fails if its graph differs from PyTorch by more than the bound."""
    options = ExportOptions(forms=("onnxruntime-f32",), calibration_sentences=16, parity_sentences=16)
    space = tiny_space()
    for arch in (space.smallest, Arch(5, 2, 48, 8)):
        folder = tmp_path / arch.name
        extract(family.path, folder, str(arch))
        done = run_export(tmp_path / "home", folder, model_digest(folder), corpus, options)
        found = done.results["forms"]["onnxruntime-f32"]
        assert found["max_abs_diff"] <= options.float_bound * max(1, found["max_abs_value"])


@pytest.mark.parametrize(
    ("arch", "message"),
    [
        (
            "5,6,48,97,gelu",
            "architecture 5,6,48,97,gelu is not in the family; the nearest members are 5,6,48,96,gelu; ",
        ),
        ("2,6,48,40,gelu", "architecture 2,6,48,40,gelu is not in the family; the nearest members are "),
        ("5,4,48,96,gelu", "is not in the family; the nearest members are 5,6,48,96,gelu; "),
        ("5,6,96,96,gelu", "is not in the family"),
        ("5,6,48,96,relu", "is not in the family; the nearest members are 5,6,48,96,gelu; "),
        ("5,5,48,96,gelu", "5 heads do not divide hidden size 48"),
        ("5,6,48", "write layers,heads,hidden,ffn,activation, as in"),
    ],
)
def test_architectures_that_are_no_member(family: Artifact, tmp_path: Path, arch: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        extract(family.path, tmp_path / "member", arch)
    assert not (tmp_path / "member").exists()


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-9])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: _cut(folder / "tiny" / NET / "model.safetensors"), "missing or changed since it was written"),
        (lambda folder: (folder / "tiny" / NET / "config.json").unlink(), "missing or changed since it was written"),
        (lambda folder: _cut(folder / SPACE), "missing or changed since it was written"),
        (lambda folder: (folder / SCORES).write_text("member,loss\n"), "missing or changed since it was written"),
        (lambda folder: _cut(folder / "manifest.json"), "no finished artifact here"),
        (lambda folder: (folder / "manifest.json").unlink(), "no finished artifact here"),
    ],
)
def test_a_damaged_family(family: Artifact, tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    damaged = Path(shutil.copytree(family.path, tmp_path / "damaged"))
    damage(damaged)
    with pytest.raises(KdnasError, match=message):
        extract(damaged, tmp_path / "member", "5,6,48,96,gelu")
    assert not (tmp_path / "member").exists()
    assert not list(tmp_path.glob(".extract-*"))
