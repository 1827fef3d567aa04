from pathlib import Path

import pytest
import torch
from transformers import AutoModel

from kdnas.models.arch import Arch
from kdnas.models.student import arch_of, new_student, student_from_teacher
from kdnas.models.teacher import Teacher, load_config, load_encoder


@pytest.mark.slow
@pytest.mark.parametrize("text", ["3,12,288,384,relu", "4,2,576,768,silu", "6,12,768,3072,gelu"])
def test_students_are_stock_models_with_the_requested_shape(text: str, tiny_teacher: Teacher, tmp_path: Path) -> None:
    arch = Arch.parse(text)
    student = new_student(arch, load_config(tiny_teacher.path))
    assert arch_of(student.config) == arch
    assert student.config.model_type == "bert"
    student.save_pretrained(tmp_path)
    assert arch_of(AutoModel.from_pretrained(tmp_path, add_pooling_layer=False).config) == arch
    ids = torch.randint(5, 1000, (2, 16))
    assert student(ids).last_hidden_state.shape == (2, 16, arch.hidden)


def test_wider_student_starts_with_the_whole_embedding_table(tiny_teacher: Teacher) -> None:
    model = load_encoder(tiny_teacher.path)
    student = student_from_teacher(Arch(3, 2, 288, 384), model, seed=0)
    source = model.embeddings.word_embeddings.weight[:500]
    mapped = student.embeddings.word_embeddings.weight[:500]
    # An orthogonal map preserves all inner products.
    torch.testing.assert_close(mapped @ mapped.T, source @ source.T, rtol=1e-3, atol=1e-4)


def test_narrower_student_gets_the_best_approximation_of_the_table(teacher: Teacher) -> None:
    model = load_encoder(teacher.path)
    student = student_from_teacher(Arch(3, 2, 288, 384), model, seed=0)
    source = model.embeddings.word_embeddings.weight
    singular = torch.linalg.svdvals(source)
    kept = student.embeddings.word_embeddings.weight.square().sum()
    torch.testing.assert_close(kept, singular[:288].square().sum(), rtol=1e-3, atol=0.0)


def test_same_seed_gives_the_same_student(tiny_teacher: Teacher) -> None:
    model = load_encoder(tiny_teacher.path)
    one, two, other = (student_from_teacher(Arch(3, 2, 288, 384), model, seed) for seed in (1, 1, 2))
    first = one.encoder.layer[0].output.dense.weight
    assert torch.equal(first, two.encoder.layer[0].output.dense.weight)
    assert not torch.equal(first, other.encoder.layer[0].output.dense.weight)
