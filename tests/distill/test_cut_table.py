"""Training with the rows of the corpus only: lookups, equality with all rows, killed and resumed runs."""

import json
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoTokenizer, BertConfig, BertModel

from kdnas.distill import loaded_teacher
from kdnas.distill.building import deciding, settled
from kdnas.distill.checkpoint import FOLDER
from kdnas.distill.cut_table import CutEmbedding, cut_table, ids_of, restore_table
from kdnas.distill.fast_training import FastTraining
from kdnas.distill.loop import make_optimizer
from kdnas.distill.options import EMBEDDING, LARGE_VOCABULARY, DistillOptions, RefineOptions
from kdnas.distill.run import run_distill, run_refine
from kdnas.distill.student_folder import find_student
from kdnas.distill.updates import update
from kdnas.errors import UsageError
from kdnas.models.teacher import Teacher
from kdnas.store.artifact import Artifact
from kdnas.store.digest import file_sha256
from kdnas.store.json_files import read_jsonl
from kdnas.text.corpus import Corpus

from .distill_fixture import ARCH, COMMON

IDS = np.array([0, 2, 3, 7])
WORDS = "embeddings.word_embeddings.weight"
EXACT = {**COMMON, "precision": "f32", "pair_fraction": 0.25}

# Saves a checkpoint after step 5 only, and dies at step 8.
CHILD = """
import json, os, signal, sys
from pathlib import Path
from kdnas.distill import loaded_teacher
from kdnas.distill.history import Log
from kdnas.distill.options import DistillOptions
from kdnas.distill.run import run_distill
from kdnas.distill.saver import Saver
from kdnas.models.arch import Arch
from kdnas.models.teacher import resolve_teacher
from kdnas.store.artifact import Artifact
from kdnas.text.corpus import Corpus

home, teacher, corpus, options, sentences = sys.argv[1:]
loaded_teacher.SAMPLE_SENTENCES = int(sentences)
Saver.save_when_due = lambda self, position: self.save(position) if position.step == 5 else None
real = Log.write_loss
def dying(self, position, *rest):
    if position.step == 8:
        os.kill(os.getpid(), signal.SIGKILL)
    real(self, position, *rest)
Log.write_loss = dying
options = DistillOptions(**json.loads(options))
run_distill(Path(home), resolve_teacher(teacher), Corpus(Artifact.load(Path(corpus)), 0), Arch(2, 4, 24, 64), options)
"""


def tiny_student(pad: int = 0) -> BertModel:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, pad_token_id=pad
    )
    return BertModel(config, add_pooling_layer=False)


def step(student: nn.Module, optimizer: torch.optim.AdamW, ids: Tensor) -> None:
    with FastTraining():
        student(input_ids=ids).last_hidden_state[..., 0].square().sum().backward()
    update(optimizer, 0.01)


def test_a_cut_table_is_looked_up_by_the_ids_of_the_whole_one() -> None:
    whole = nn.Embedding(9, 4, padding_idx=2)
    cut = CutEmbedding(whole, IDS)
    ids = torch.tensor([[7, 0], [2, 3]])
    assert torch.equal(cut(ids), whole(ids))
    assert (cut.num_embeddings, cut.padding_idx) == (4, 1)
    assert list(cut.state_dict()) == ["weight"]
    assert [name for name, _ in cut.named_parameters()] == ["weight"]
    with pytest.raises(AssertionError, match="outside the corpus"):
        cut(torch.tensor([1]))


def test_only_the_rows_of_the_ids_are_trained() -> None:
    student = tiny_student()
    start = student.embeddings.word_embeddings.weight.detach().clone()
    cut_table(student, IDS[1:])  # the padding row is added
    optimizer = make_optimizer(student, 0.01)
    for _ in range(3):
        step(student, optimizer, torch.tensor([[2, 7, 7]]))
    restore_table(student)
    table = student.embeddings.word_embeddings
    assert type(table) is nn.Embedding
    rest = [1, 4, 5, 6, 8]
    assert torch.equal(table.weight[rest], start[rest])
    decayed = start[[0, 3]] * (1 - 0.01 * 0.01) ** 3  # in the corpus, but not in a batch
    torch.testing.assert_close(table.weight.detach()[[0, 3]], decayed)
    assert not torch.isclose(table.weight[[2, 7]], start[[2, 7]]).all(1).any()


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_training_equals_that_of_the_whole_table(weight_decay: float) -> None:
    batches = [torch.tensor([[2, 3, 7]]), torch.tensor([[7, 7, 2]]), *[torch.tensor([[0, 2, 2]])] * 9]
    found = {}
    for cut in (False, True):
        student = tiny_student().eval()
        if cut:
            cut_table(student, IDS)
        optimizer = make_optimizer(student, 0.01, weight_decay, embedding_lr_factor=0.5)
        for ids in batches:
            step(student, optimizer, ids)
        restore_table(student)
        found[cut] = dict(student.named_parameters())
    for name, expected in found[False].items():
        rows = IDS if name == WORDS else slice(None)
        torch.testing.assert_close(found[True][name][rows], expected[rows], atol=1e-5, rtol=1e-4)


def test_restoring_a_whole_table_changes_nothing() -> None:
    student = tiny_student()
    table = student.get_input_embeddings()
    restore_table(student)
    assert student.get_input_embeddings() is table


def test_ids_are_those_of_the_corpus_and_the_special_tokens(corpus: Corpus, tiny_teacher: Teacher) -> None:
    found = set(ids_of(corpus, tiny_teacher).tolist())
    special = set(AutoTokenizer.from_pretrained(tiny_teacher.path).all_special_ids)
    assert found == {*corpus.train.tokens.tolist(), *corpus.validation.tokens.tolist(), *special}
    assert len(found) < tiny_teacher.config["vocab_size"]


def test_options_are_settled_by_the_vocabulary(corpus: Corpus, tiny_teacher: Teacher) -> None:
    large = replace(tiny_teacher, config={**tiny_teacher.config, "vocab_size": LARGE_VOCABULARY + 1})
    assert settled(DistillOptions(), corpus, tiny_teacher).embedding_rows == "all"
    assert settled(DistillOptions(), corpus, large).embedding_rows == "corpus"
    assert settled(DistillOptions(embedding_rows="all"), corpus, large).embedding_rows == "all"
    assert settled(DistillOptions(embedding_rows="corpus"), corpus, tiny_teacher).embedding_rows == "corpus"


def test_keys_of_runs_on_all_rows_are_those_of_earlier_versions(corpus: Corpus, tiny_teacher: Teacher) -> None:
    added = {"embedding_rows", "objective", *EMBEDDING}
    earlier = set(asdict(DistillOptions())) - added - {"checkpoint_seconds", "data_workers", "trackers"}
    decided = deciding(settled(DistillOptions(), corpus, tiny_teacher))
    assert set(decided) == earlier
    assert decided["language_power"] is None
    assert set(deciding(DistillOptions(embedding_rows="corpus"))) == earlier | {"embedding_rows"}


def test_unknown_rows_are_an_error() -> None:
    with pytest.raises(UsageError, match="embedding_rows is 'some'; allowed are auto, all, corpus"):
        DistillOptions(embedding_rows="some")  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def whole(home: Path, tiny_teacher: Teacher, corpus: Corpus) -> Artifact:
    """An uninterrupted run on the rows of the corpus."""
    options = DistillOptions(**{**EXACT, "embedding_rows": "corpus", "checkpoint_seconds": 1e6})
    return run_distill(home / "cut", tiny_teacher, corpus, ARCH, options)


def weights_of(artifact: Artifact) -> dict[str, Tensor]:
    return load_file(artifact.path / "student" / "model.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["distill", "refine"])
def test_a_run_on_the_rows_of_the_corpus_equals_one_on_all_rows(
    home: Path, tiny_teacher: Teacher, corpus: Corpus, whole: Artifact, stage: str
) -> None:
    """Without weight decay, the rows outside the corpus keep their start, bit for bit, in both."""
    found = {}
    for rows in ("all", "corpus"):
        values = {**EXACT, "weight_decay": 0.0, "embedding_rows": rows}
        if stage == "distill":
            found[rows] = run_distill(home / "cut", tiny_teacher, corpus, ARCH, DistillOptions(**values))
        else:
            student = find_student(whole.path)
            found[rows] = run_refine(home / "cut", tiny_teacher, corpus, *student, RefineOptions(**values))
    one, other = (weights_of(found[rows]) for rows in ("all", "corpus"))
    assert one.keys() == other.keys()
    ids = ids_of(corpus, tiny_teacher)
    rest = np.setdiff1d(np.arange(len(one[WORDS])), ids)
    assert torch.equal(one[WORDS][rest], other[WORDS][rest])
    for name in one:
        torch.testing.assert_close(one[name], other[name], atol=2e-3, rtol=2e-3)
    assert found["corpus"].results["embedding_rows"] == len(ids)
    assert found["corpus"].results["parameters_millions"] == found["all"].results["parameters_millions"]
    losses = [found[rows].results["validation_loss"] for rows in ("all", "corpus")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@pytest.mark.slow
def test_a_run_that_was_killed_between_checkpoints_is_bit_identical(
    tmp_path: Path, tiny_teacher: Teacher, corpus: Corpus, whole: Artifact
) -> None:
    """The uninterrupted run writes no checkpoint before its end, so saving one must not change later steps either."""
    options = {**EXACT, "embedding_rows": "corpus"}
    paths = [str(tmp_path), str(tiny_teacher.path), str(corpus.artifact.path)]
    arguments = [*paths, json.dumps(options), str(loaded_teacher.SAMPLE_SENTENCES)]
    done = subprocess.run([sys.executable, "-c", CHILD, *arguments], stderr=subprocess.PIPE, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    partial = next(tmp_path.glob("distill/*.partial"))
    assert [path.name for path in (partial / FOLDER).iterdir()] == ["step-000000005"]
    state = load_file(partial / FOLDER / "step-000000005" / "state.safetensors")
    assert len(state[f"module/student.{WORDS}"]) == len(ids_of(corpus, tiny_teacher))
    resumed = run_distill(tmp_path, tiny_teacher, corpus, ARCH, DistillOptions(**options))
    assert resumed.manifest["attempts"] == 2
    for name in ("student/model.safetensors", "projections.safetensors"):
        assert file_sha256(resumed.path / name) == file_sha256(whole.path / name)
    rows = [
        [
            {key: value for key, value in row.items() if key != "seconds"}
            for row in read_jsonl(one.path / "history.jsonl")
        ]
        for one in (resumed, whole)
    ]
    assert rows[0] == rows[1]


@pytest.mark.slow
def test_a_student_of_a_cut_table_has_the_whole_vocabulary(whole: Artifact, tiny_teacher: Teacher) -> None:
    assert len(weights_of(whole)[WORDS]) == tiny_teacher.config["vocab_size"]
    assert json.loads((whole.path / "student" / "config.json").read_text())["vocab_size"] == len(
        weights_of(whole)[WORDS]
    )
