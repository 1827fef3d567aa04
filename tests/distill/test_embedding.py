"""Embeddings: losses against loops and hand-worked values, prompts, the start of the head, exact resume, the folder."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from torch.nn.functional import normalize

import kdnas.distill.loop as loop
from kdnas.distill.building import deciding
from kdnas.distill.contrast import contrast
from kdnas.distill.embedding import EmbeddingLoss, EmbeddingObjective, TeacherVectors, pooled
from kdnas.distill.hidden_state import HiddenStateLoss, TeacherStates
from kdnas.distill.loop import make_accelerator
from kdnas.distill.options import DistillOptions
from kdnas.distill.pairs import neighbours
from kdnas.distill.prompting import Prompting, read_prompting
from kdnas.distill.run import run_distill
from kdnas.distill.validation import validate
from kdnas.errors import UsageError
from kdnas.models.arch import Arch
from kdnas.models.folder import model_digest
from kdnas.models.head import Prompts, read_head, read_prompts
from kdnas.models.pooling import write_modules
from kdnas.models.student import student_from_teacher
from kdnas.models.teacher import Teacher, load_encoder, resolve_teacher
from kdnas.store.artifact import Artifact
from kdnas.store.digest import file_sha256
from kdnas.text.corpus import Corpus

from .distill_fixture import ARCH, COMMON

OPTIONS = DistillOptions(
    **COMMON, objective="hidden-state+embedding", similarity_weight=0.5, matryoshka=(16, 48), contrastive_weight=0.1
)


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(1000, 2000, (6, 8), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[0, 3:] = 0
    mask[4, 5:] = 0
    return ids, mask


def make(tiny_teacher: Teacher, hidden: bool = False, prompting: Prompting = Prompting()) -> EmbeddingObjective:
    teacher = load_encoder(tiny_teacher.path)
    torch.manual_seed(1)
    student = student_from_teacher(Arch(2, 4, 48, 64), teacher, seed=0).eval()
    pairs = HiddenStateLoss([(1, 2), (2, 4)], 48, 96, torch.tensor([2.0, 0.5])) if hidden else None
    around = (TeacherStates(teacher, [2, 4]), TeacherVectors("mean", None))
    return EmbeddingObjective(student, *around, EmbeddingLoss(48, 96, "cosine", (32,)), prompting, 0.5, pairs, 3.0)


@pytest.mark.parametrize("kind", ["cosine", "mse"])
def test_losses_equal_those_of_plain_loops(kind: str) -> None:
    torch.manual_seed(0)
    loss = EmbeddingLoss(5, 8, kind, (3, 6))
    outputs, targets = loss.outputs(torch.randn(4, 5)), normalize(torch.randn(4, 8), dim=-1)
    assert loss.widths == [8, 6, 3]
    for index, width in enumerate(loss.widths):
        expected = []
        for ours, theirs in zip(outputs[:, :width].tolist(), targets[:, :width].tolist(), strict=True):
            one, other = np.array(ours), np.array(theirs)
            cosine = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
            expected.append(1 - cosine if kind == "cosine" else ((one - other) ** 2).sum())
        assert float(loss.distances(outputs, targets)[index].detach()) == pytest.approx(np.mean(expected), rel=1e-5)
        differences = []
        for row in range(4):
            for column in range(4):
                if row != column:
                    one, other = (outputs[at, :width].detach().numpy() for at in (row, column))
                    ours = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
                    differences.append((ours - float(targets[row] @ targets[column])) ** 2)
        found = float(loss.similarities(outputs, targets)[index].detach())
        assert found == pytest.approx(np.mean(differences), rel=1e-5)


def test_losses_of_hand_worked_vectors() -> None:
    """Vectors at 60 degrees have cosine 1/2; (1, 1) is at squared distance 1 from (1, 0)."""
    cosine, squared = EmbeddingLoss(2, 2, "cosine"), EmbeddingLoss(2, 2, "mse")
    targets = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    at_60 = torch.tensor([[0.5, 3**0.5 / 2], [3**0.5 / 2, 0.5]])
    torch.testing.assert_close(cosine.distances(7 * at_60, targets), torch.tensor([0.5]))
    torch.testing.assert_close(squared.distances(torch.ones(2, 2), targets), torch.tensor([1.0]))
    # The student's two vectors have cosine sqrt(3)/2, the teacher's 0.
    torch.testing.assert_close(cosine.similarities(at_60, targets), torch.tensor([0.75]))
    torch.testing.assert_close(cosine.similarities(at_60[:1], targets[:1]), torch.tensor([0.0]))


def test_contrast_of_hand_worked_vectors() -> None:
    """With partners equal and others at right angles, the cross entropy is log(1 + e^(-1/t))."""
    equal = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).repeat(2, 1)
    assert float(contrast(equal, 0.5)) == pytest.approx(np.log(1 + np.exp(-2)))
    assert float(contrast(torch.ones(6, 2), 0.5)) == pytest.approx(np.log(3))


def test_neighbours_are_in_the_same_group() -> None:
    assert neighbours(np.array([0, 0, 0, 1, 2, 2])).tolist() == [1, 2, 1, 3, 5, 4]


@pytest.mark.parametrize("hidden", [False, True])
def test_loss_is_the_weighted_sum_of_its_parts_and_ignores_padding(tiny_teacher: Teacher, hidden: bool) -> None:
    objective, (ids, mask) = make(tiny_teacher, hidden), batch()
    with torch.no_grad():
        found = objective(ids, mask)
        parts = objective.unscaled(found)
        longer = objective(torch.nn.functional.pad(ids, (0, 5)), torch.nn.functional.pad(mask, (0, 5)))
    torch.testing.assert_close(longer, found, rtol=1e-4, atol=1e-5)
    weights = {"distance": 3.0, "similarity": 1.5, "hidden": 1.0} if hidden else {"distance": 1.0, "similarity": 0.5}
    assert set(parts) == set(weights)
    torch.testing.assert_close(found.mean(), sum(weight * parts[name].mean() for name, weight in weights.items()))
    metrics = validate(objective, [(ids, mask)], make_accelerator("f32"))
    assert metrics["validation_loss"] == pytest.approx(float(parts["distance"][0]), rel=1e-5)
    assert list(metrics["distances"]) == ["96", "32"]
    assert (metrics["explained_variance"] is not None) == hidden


def test_a_student_equal_to_its_teacher_has_no_loss_after_the_start_of_the_head(tiny_teacher: Teacher) -> None:
    objective, (ids, mask) = make(tiny_teacher), batch()
    objective.student = load_encoder(tiny_teacher.path)
    objective.loss = EmbeddingLoss(96, 96, "mse", (32,))
    many = torch.randint(1000, 4000, (400, 8), generator=torch.Generator().manual_seed(2))
    before = float(objective(ids, mask)[0].detach())
    objective.start_head([(many, torch.ones_like(many))])
    assert float(objective(ids, mask)[0].detach()) < 0.02 * before


def test_a_prompt_gives_the_ids_of_the_joined_text(tiny_teacher: Teacher) -> None:
    tokenizer = Tokenizer.from_file(str(tiny_teacher.path / "tokenizer.json"))
    tokenizer.no_padding()
    prompting = read_prompting(tiny_teacher.path, Prompts({"query": "query: "}), 64)
    ids = torch.tensor([tokenizer.encode("how to sort an array").ids])
    joined, mask, types = prompting(ids, torch.ones_like(ids), torch.zeros_like(ids))
    assert joined.tolist()[0] == tokenizer.encode("query: how to sort an array").ids
    assert types is not None
    assert mask.shape == types.shape == joined.shape
    assert bool(mask.all())
    full = torch.zeros(1, 63, dtype=torch.long)
    assert prompting(full, full, None)[0] is full  # no position is left for the prompt


def test_prompts_change_what_teacher_and_student_read(tiny_teacher: Teacher) -> None:
    ids, mask = batch()
    plain, prompted = make(tiny_teacher), make(tiny_teacher, prompting=Prompting([[2001, 2002]], 1, 64))
    assert not torch.allclose(plain(ids, mask), prompted(ids, mask))


@pytest.mark.parametrize(
    "wrong",
    [
        {"similarity_weight": 1.0},
        {"objective": "embedding", "relation_weight": 1.0},
        {"objective": "embedding", "matryoshka": (8, 8)},
        {"objective": "embedding", "embedding_loss": "euclid"},
        {"objective": "embedding", "contrastive_weight": -1.0},
    ],
)
def test_options_that_do_not_fit_are_rejected(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        DistillOptions(**wrong)  # type: ignore[arg-type]


def test_hidden_state_artifacts_of_earlier_versions_keep_their_keys() -> None:
    assert not {"objective", "matryoshka", "similarity_weight"} & set(deciding(DistillOptions()))
    assert {"objective", "matryoshka"} <= set(deciding(DistillOptions(objective="embedding")))


def test_widths_above_the_teachers_are_rejected(tmp_path: Path, tiny_teacher: Teacher, corpus: Corpus) -> None:
    with pytest.raises(UsageError, match="96 dimensions"):
        run_distill(tmp_path, tiny_teacher, corpus, ARCH, DistillOptions(objective="embedding", matryoshka=(96,)))


@pytest.fixture(scope="module")
def prompted_teacher(tiny_teacher: Teacher, tmp_path_factory: pytest.TempPathFactory) -> Teacher:
    """The tiny teacher with prompts."""
    folder = tmp_path_factory.mktemp("prompted")
    for file in tiny_teacher.path.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    write_modules(folder, 96, 64, prompts=Prompts({"query": "query: ", "passage": "passage: "}, "query"))
    return resolve_teacher(str(folder))


@pytest.fixture(scope="module")
def whole(home: Path, prompted_teacher: Teacher, corpus: Corpus) -> Artifact:
    """An uninterrupted run with all parts of the loss."""
    return run_distill(home / "embedding", prompted_teacher, corpus, ARCH, OPTIONS)


@pytest.mark.slow
def test_interrupted_run_resumes_with_the_same_weights(
    tmp_path: Path, prompted_teacher: Teacher, corpus: Corpus, whole: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = loop.backward, []

    def interrupted(*arguments: object) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 13:
            raise KeyboardInterrupt
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "backward", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_distill(tmp_path, prompted_teacher, corpus, ARCH, OPTIONS)
    monkeypatch.setattr(loop, "backward", real)
    resumed = run_distill(tmp_path, prompted_teacher, corpus, ARCH, OPTIONS)
    assert resumed.manifest["attempts"] == 2
    names = [name for name in whole.manifest["files"] if name.endswith(".safetensors")]
    assert any("2_Dense" in name for name in names)
    assert all(file_sha256(whole.path / name) == file_sha256(resumed.path / name) for name in names)


@pytest.mark.slow
def test_sentence_transformers_gives_the_vectors_of_the_objective(
    whole: Artifact, prompted_teacher: Teacher, tmp_path: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    folder = whole.path / "student"
    texts = ["How do I sort an array?", "A short one.", "The quick brown fox jumps over the lazy dog, twice."]
    head, student = read_head(folder), load_encoder(folder)
    assert head is not None
    assert head.weight.shape == (96, 24)
    assert read_prompts(folder).default == "query"
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    expected = []
    for text in texts:
        ids = torch.tensor([tokenizer.encode("query: " + text).ids])
        with torch.no_grad():
            states = student(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
        vector = head(pooled(states, torch.ones_like(ids), "mean").numpy())[0]
        expected.append(vector / np.linalg.norm(vector))
    found = SentenceTransformer(str(folder), device="cpu").encode(texts)  # with the default prompt
    np.testing.assert_allclose(found, np.array(expected), atol=1e-4)


@pytest.mark.slow
def test_continued_student_keeps_its_head_and_the_head_is_part_of_its_identity(
    tmp_path: Path, prompted_teacher: Teacher, corpus: Corpus, whole: Artifact
) -> None:
    folder = whole.path / "student"
    options = replace(OPTIONS, objective="embedding", peak_lr=1e-12, contrastive_weight=0.0, steps=2)
    continued = run_distill(tmp_path, prompted_teacher, corpus, ARCH, options, (folder, model_digest(folder)))
    before, after = read_head(folder), read_head(continued.path / "student")
    assert before is not None
    assert after is not None
    np.testing.assert_allclose(before.weight, after.weight, atol=1e-6)
    row = json.loads((continued.path / "history.jsonl").read_text().splitlines()[-1])
    assert set(row["distances"]) == {"96", "48", "16"}
    digest = model_digest(folder)
    (continued.path / "student" / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    assert model_digest(continued.path / "student") != digest or (before.weight == after.weight).all()
