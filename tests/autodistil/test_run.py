"""Training of a family with a tiny teacher: killed and resumed runs, the folder on disk, extraction, bad input."""

import json
import random
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel

from kdnas.autodistil.cutting import sliced
from kdnas.autodistil.extract import extract
from kdnas.autodistil.family import SCORES, SPACE, Family
from kdnas.autodistil.options import FamilyOptions
from kdnas.autodistil.recipes import planned
from kdnas.autodistil.run import PAGE, autodistil, run_autodistil
from kdnas.distill.options import DistillOptions
from kdnas.distill.run import run_distill
from kdnas.distill.student_folder import find_student
from kdnas.errors import KdnasError, UsageError
from kdnas.models.arch import Arch
from kdnas.models.teacher import Teacher
from kdnas.store.artifact import SEAL, Artifact, file_hashes, write_manifest
from kdnas.store.digest import file_sha256
from kdnas.store.json_files import read_jsonl
from kdnas.text.corpus import Corpus

from ..latency.table_fixture import law_rows, table_artifact

pytestmark = pytest.mark.slow

COMMON = {
    "steps": 14,
    "batch_tokens": 512,
    "validations": 2,
    "validation_sentences": 60,
    "log_every": 1,
    "checkpoint_seconds": 0.0,
    "members_per_pass": 3,
    "dropout": True,  # makes results depend on the random state
}
SHAPE = {"layers": (2, 3), "ffn": (24, 96), "heads": (4, 12), "hidden": 48, "activation": "gelu"}

CHILD = """
import json, os, signal, sys
from pathlib import Path
from kdnas.autodistil.options import FamilyOptions
from kdnas.autodistil.recipes import planned
from kdnas.autodistil.run import run_autodistil
from kdnas.autodistil.updates import FamilyUpdates
from kdnas.distill import checkpoint
from kdnas.models.teacher import resolve_teacher
from kdnas.store.artifact import Artifact
from kdnas.text.corpus import Corpus

home, teacher, corpus, options, shape, moment, number = sys.argv[1:]
rename, apply, done = checkpoint.os.rename, FamilyUpdates.apply, []
def dying_after_checkpoint(source, target):
    rename(source, target)
    if f"step-{int(number):09d}" in str(target):
        os.kill(os.getpid(), signal.SIGKILL)
def dying_after_update(updates, lr):
    norm = apply(updates, lr)
    done.append(norm)
    if len(done) == int(number):
        os.kill(os.getpid(), signal.SIGKILL)
    return norm
if moment == "checkpoint":
    checkpoint.os.rename = dying_after_checkpoint
else:
    FamilyUpdates.apply = dying_after_update
teacher = resolve_teacher(teacher)
nets = planned(teacher, FamilyOptions(**json.loads(options)), **json.loads(shape), sub_spaces=1)
run_autodistil(Path(home), teacher, Corpus(Artifact.load(Path(corpus)), 0), nets)
"""


def train(home: Path, teacher: Teacher, corpus: Corpus, sub_spaces: int = 1, **changes: object) -> Artifact:
    options = FamilyOptions(**{**COMMON, **changes})
    return run_autodistil(home, teacher, corpus, planned(teacher, options, **SHAPE, sub_spaces=sub_spaces))


@pytest.fixture(scope="module")
def family(home: Path, tiny_teacher: Teacher, corpus: Corpus) -> Artifact:
    """An uninterrupted run."""
    return train(home / "family", tiny_teacher, corpus)


@pytest.fixture(scope="module")
def opened(family: Artifact) -> Family:
    return Family.load(family.path)


def test_the_family_on_disk(family: Artifact, opened: Family, tiny_teacher: Teacher) -> None:
    assert (opened.teacher.digest, opened.teacher.sizes) == (tiny_teacher.digest, tiny_teacher.sizes)
    (space,) = opened.spaces
    assert len(opened.rows) == len(space.members) == 8
    assert all(0 < row["loss"] < 1.5 and row["latency_ms"] is None for row in opened.rows.values())
    assert AutoModel.from_pretrained(opened.net(space)).config.num_hidden_layers == 3
    tensors = load_file(family.path / space.name / "projections.safetensors")
    assert tensors["3.projections.0.weight"].shape == (96, 48)
    names = {path.split("/")[-1] for path in family.manifest["files"]}
    assert {SPACE, SCORES, PAGE, "model.safetensors", "tokenizer.json", "history.jsonl", "README.md"} <= names
    page = (family.path / PAGE).read_text()
    assert all(str(arch) in page for arch in space.members)
    assert family.results["members"] == 8
    assert family.results["best"]["loss"] <= family.results["mean_loss"] <= family.results["worst"]["loss"]


# Checkpoint 5 of 14 is between the members of one batch, 12 is between two batches. The updates count from the start of
# each process; their weights have changed and are in no checkpoint.
KILLS = {
    "checkpoints": [("checkpoint", 5), ("checkpoint", 12)],
    "random updates": [("update", number) for number in random.Random(37).choices(range(2, 6), k=2)],
}


@pytest.mark.parametrize(
    "kills",
    [
        pytest.param(KILLS["checkpoints"], id="checkpoints"),
        pytest.param(KILLS["random updates"], id="random updates", marks=pytest.mark.exhaustive),
    ],
)
def test_a_killed_run_is_bit_identical(
    kills: list[tuple[str, int]], tmp_path: Path, tiny_teacher: Teacher, corpus: Corpus, family: Artifact
) -> None:
    for kill in kills:
        arguments = [tmp_path, tiny_teacher.path, corpus.artifact.path, json.dumps(COMMON), json.dumps(SHAPE), *kill]
        command = [sys.executable, "-c", CHILD, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == -signal.SIGKILL, done.stderr
    resumed = train(tmp_path, tiny_teacher, corpus)
    assert resumed.manifest["attempts"] == len(kills) + 1
    for name in family.manifest["files"]:
        if name.endswith((".safetensors", ".csv")):
            assert file_sha256(resumed.path / name) == file_sha256(family.path / name), name
    rows = [
        [{key: value for key, value in row.items() if key != "seconds"} for row in read_jsonl(path)]
        for path in (one.path / "L2-3-D48" / "history.jsonl" for one in (family, resumed))
    ]
    assert rows[0] == rows[1]


@pytest.mark.parametrize("schedule", [pytest.param("one", marks=pytest.mark.exhaustive), "large-to-small", "sandwich"])
def test_other_schedules_and_relations_lower_the_loss(
    schedule: str, tmp_path: Path, tiny_teacher: Teacher, corpus: Corpus
) -> None:
    objective = "relations" if schedule == "sandwich" else "hidden-states"
    changes = {"member_schedule": schedule, "objective": objective, "dropout": False, "checkpoint_seconds": 60.0}
    found = train(tmp_path, tiny_teacher, corpus, **changes)
    (net,) = found.results["nets"]
    first = next(row for row in read_jsonl(found.path / net["space"] / "history.jsonl") if row["kind"] == "validation")
    assert net["validation_loss"] < first["validation_loss"]
    explained = {row["explained_variance"] is None for row in Family.load(found.path).rows.values()}
    assert explained == {objective == "relations"}


def test_depths_over_two_nets(tmp_path: Path, tiny_teacher: Teacher, corpus: Corpus) -> None:
    found = train(tmp_path, tiny_teacher, corpus, sub_spaces=2, steps=2, members_per_pass=2, checkpoint_seconds=60.0)
    opened = Family.load(found.path)
    assert [space.layers for space in opened.spaces] == [(2,), (3,)]
    assert [space.name for space in opened.spaces] == ["L2-2-D48", "L3-3-D48"]
    extract(found.path, tmp_path / "member", "3,4,48,24,gelu")
    assert AutoModel.from_pretrained(tmp_path / "member").config.num_hidden_layers == 3


def test_minutes_become_updates(tmp_path: Path, tiny_teacher: Teacher, corpus: Corpus) -> None:
    changes = {"steps": None, "minutes": 0.05, "checkpoint_seconds": 60.0, "validations": 1}
    found = train(tmp_path, tiny_teacher, corpus, **changes)
    plan = json.loads((found.path / "L2-3-D48" / "plan.json").read_text())
    assert plan["steps"] == found.results["nets"][0]["steps"] >= 1


def test_extracted_members_are_the_slices_and_can_be_distilled_further(
    family: Artifact, opened: Family, tmp_path: Path, tiny_teacher: Teacher, corpus: Corpus
) -> None:
    (space,) = opened.spaces
    tensors = load_file(opened.net(space) / "model.safetensors")
    for arch in (space.largest, space.smallest, Arch(2, 12, 48, 96)):
        result = extract(family.path, tmp_path / arch.name, str(arch))
        assert result.results["arch"] == str(arch)
        stock = AutoModel.from_pretrained(tmp_path / arch.name, add_pooling_layer=False).state_dict()
        expected = sliced(tensors, space, arch)
        assert set(stock) == set(expected)
        assert all(torch.equal(stock[name], value) for name, value in expected.items())
    student = find_student(tmp_path / space.smallest.name)
    options = DistillOptions(steps=1, batch_tokens=256, validations=1, validation_sentences=20)
    further = run_distill(tmp_path / "home", tiny_teacher, corpus, space.smallest, options, student)
    assert further.results["arch"] == str(space.smallest)


def test_bad_extractions(family: Artifact, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(UsageError, match="architecture 4,4,48,24,gelu is not in the family; the nearest members are"):
        extract(family.path, out, "4,4,48,24,gelu")
    for both in ({}, {"arch": "2,4,48,24,gelu", "budget_ms": 1.0}):
        with pytest.raises(UsageError, match="give --arch for one member, or --budget-ms"):
            extract(family.path, out, **both)
    with pytest.raises(UsageError, match="the family has no latencies; give a table with --table"):
        extract(family.path, out, budget_ms=1.0)
    with pytest.raises(UsageError, match="budget_ms is -1"):
        extract(family.path, out, budget_ms=-1.0)
    with pytest.raises(UsageError, match="no finished artifact here"):
        extract(tmp_path, out, "2,4,48,24,gelu")
    damaged = Path(shutil.copytree(family.path, tmp_path / "damaged"))
    weights = damaged / "L2-3-D48" / "net" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8] + bytes(8))
    with pytest.raises(KdnasError, match="missing or changed since it was written"):
        extract(damaged, out, "2,4,48,24,gelu")
    assert not out.exists()


def test_a_family_with_bad_content(family: Artifact, tmp_path: Path) -> None:
    """Its hashes are right, so another version wrote it."""

    def changed(name: str, text: str) -> Path:
        folder = Path(shutil.copytree(family.path, tmp_path / name))
        (folder / name).write_text(text)
        manifest = {key: value for key, value in family.manifest.items() if key != SEAL}
        write_manifest(folder, {**manifest, "files": file_hashes(folder)})
        return folder

    known = json.loads((family.path / SPACE).read_text())
    kept = [{**space, "kept": {"2": [1, 2], "3": [1, 2, 3]}} for space in known["sub_spaces"]]
    with pytest.raises(UsageError, match="trained with other kept layers than this version has"):
        Family.load(changed(SPACE, json.dumps({**known, "sub_spaces": kept})))
    lines = (family.path / SCORES).read_text().splitlines(keepends=True)
    with pytest.raises(UsageError, match=r"a damaged family \(ValueError: family.csv and space.json have different"):
        Family.load(changed(SCORES, "".join(lines[:-1])))


def test_bad_families_are_rejected_before_the_corpus_is_built(tmp_path: Path, tiny_teacher: Teacher) -> None:
    home, options = tmp_path / "home", FamilyOptions(**COMMON)

    def rejected(message: str, changed: FamilyOptions = options, **changes: object) -> None:
        with pytest.raises(UsageError, match=message):
            autodistil(changed, **(SHAPE | changes), teacher=str(tiny_teacher.path), home=home)

    rejected("student has 5 layers, its teacher 4", layers=(2, 5))
    rejected("7 heads do not divide hidden size 48", heads=(7,))
    for name in ("layers", "ffn", "heads"):
        rejected(f"{name} is empty", **{name: ()})
        rejected(f"{name} is 4, 4: a value is there twice", **{name: (4, 4)})
        rejected(f"{name} is 0; a whole number of at least 1", **{name: (0, 4)})
    rejected("members_per_pass is 9, sub-space L2-3-D48 has 8", replace(options, members_per_pass=9))
    rejected("has one member only, 2,4,48,24,gelu; use `kdnas distill", layers=(2,), ffn=(24,), heads=(4,))
    rejected("sub_spaces is 3; allowed are 1 to 2", sub_spaces=3)
    rejected("recipe paper: sub-space base has 9 to 12 layers, the teacher 4", recipe="paper")
    rejected("paper_sub_spaces is huge", recipe="paper", paper_sub_spaces=("huge",))
    relations = replace(options, objective="relations", relation_heads=36)
    rejected("relation_heads is 36, which does not divide", relations)
    other = table_artifact(tmp_path / "tables", law_rows(), teacher="a" * 64)
    rejected("the latency table was measured with another teacher", table=other.path)
    own = table_artifact(tmp_path / "tables", law_rows(), teacher=tiny_teacher.digest)
    rejected("the latency table has no rows with 12 heads, hidden size 48", table=own.path)
    manifest = {**own.manifest, "host": {**own.manifest["host"], "cpu": "Old CPU"}}
    (own.path / "manifest.json").write_text(json.dumps(manifest))
    rejected("measured on another host: Old CPU", table=own.path)
    rejected("no finished artifact here", table=tmp_path)
    assert not home.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["autodistil", "--layers", "3,7"], "the student has 7 layers, its teacher 6"),
        (["autodistil", "--heads", "5"], "5 heads do not divide hidden size 384"),
        (["autodistil", "--layers", "3", "--ffn", "96"], "has one member only, 3,12,384,96,gelu; use `kdnas distill"),
        (["autodistil", "--ffn", "96,96"], "ffn is 96, 96: a value is there twice"),
        (["extract", "--family", "nowhere", "--arch", "3,12,384,96,gelu"], "nowhere: no finished artifact here"),
        (["extract", "--family", "nowhere"], "give --arch for one member, or --budget-ms"),
    ],
)
def test_the_command_says_one_line(arguments: list[str], message: str, tmp_path: Path) -> None:
    more = ["--output", str(tmp_path / "out")] if arguments[0] == "extract" else ["--home", str(tmp_path / "home")]
    done = subprocess.run([sys.executable, "-m", "kdnas", *arguments, *more], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("kdnas: ")
    assert message in line
    assert not list(tmp_path.iterdir())
