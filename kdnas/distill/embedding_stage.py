"""Builds the objective of embeddings from a teacher's files and the options of a distillation."""

from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch import Tensor
from transformers import PreTrainedModel

from kdnas.distill.embedding import EmbeddingLoss, EmbeddingObjective, TeacherVectors, width_of
from kdnas.distill.hidden_state import HiddenStateLoss, TeacherStates
from kdnas.distill.options import DistillOptions, LoopOptions
from kdnas.distill.prompting import read_prompting
from kdnas.distill.validation import sample_batches, validate
from kdnas.errors import UsageError
from kdnas.models.family import shape_of
from kdnas.models.head import read_head, read_prompts
from kdnas.models.pooling import pooling_of
from kdnas.models.teacher import Teacher
from kdnas.text.corpus import Corpus

HEAD_SENTENCES = 4000  # for the start of the head: ten for each dimension of a vector of 384


def embedding_objective(
    teacher: Teacher,
    encoder: PreTrainedModel,
    student: PreTrainedModel,
    options: DistillOptions,
    hidden: HiddenStateLoss | None,
    variance: Tensor | None,
) -> EmbeddingObjective:
    """The objective; its head is random until `start_head`.

    Args:
        teacher: the teacher, whose files say how its states become a vector.
        encoder: the same teacher, loaded.
        student: encoder without pooler.
        options: kinds and weights of the losses.
        hidden: Eq. 1, for embeddings beside hidden states.
        variance: as in `HiddenStateObjective`.

    Raises:
        UsageError: a width of `matryoshka` is not below that of the teacher's vectors.
    """
    own, sizes = read_head(teacher.path), shape_of(student.config)
    last, width = shape_of(encoder.config).layers, width_of(encoder, own)
    layers = [last, *(layer for _, layer in hidden.pairs)] if hidden is not None else [last]
    if max(options.matryoshka, default=0) >= width:
        raise UsageError(f"matryoshka is {list(options.matryoshka)}; the teacher's vectors have {width} dimensions")
    loss = EmbeddingLoss(sizes.hidden, width, options.embedding_loss, options.matryoshka)
    return EmbeddingObjective(
        student,
        TeacherStates(encoder, layers),
        TeacherVectors(pooling_of(teacher.path), own),
        loss,
        read_prompting(teacher.path, read_prompts(teacher.path), sizes.positions),
        options.similarity_weight,
        hidden,
        options.embedding_weight,
        variance,
        options.contrastive_weight,
    )


def start_head(
    objective: EmbeddingObjective, corpus: Corpus, options: LoopOptions, start: Path | None, accelerator: Accelerator
) -> None:
    """Start the head with that of the student in `start`, else in closed form on train sentences."""
    device = next(objective.student.parameters()).device
    batches = sample_batches(corpus.train, HEAD_SENTENCES, options.batch_tokens, corpus.pad_id, device)
    objective.student.eval()  # no dropout
    with accelerator.autocast():
        objective.start_head(batches, read_head(start) if start is not None else None)


def objective_of_head(
    before: Path, teacher: Teacher, encoder: PreTrainedModel, student: PreTrainedModel
) -> EmbeddingObjective | None:
    """The objective that fits a new head to a student whose states change; None if it has no head.

    Args:
        before: folder of the student before the change.
        teacher: the teacher, whose files say how its states become a vector.
        encoder: the same teacher, loaded.
        student: the student.
    """
    if read_head(before) is None:
        return None
    objective = embedding_objective(teacher, encoder, student, DistillOptions(objective="embedding"), None, None)
    return objective.to(encoder.device)


def fit_again(
    objective: EmbeddingObjective, corpus: Corpus, options: LoopOptions, accelerator: Accelerator
) -> dict[str, Any]:
    """Fit the head in closed form on train sentences; returns its distance on held-out ones, for the manifest."""
    start_head(objective, corpus, options, None, accelerator)
    sizes = (options.validation_sentences, options.batch_tokens)
    held_out = sample_batches(corpus.validation, *sizes, corpus.pad_id, accelerator.device)
    return {"embedding_distance": validate(objective, held_out, accelerator)["validation_loss"]}
