"""The work of distillation and refinement, inside an artifact's working folder."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from kdnas.distill.batches import Batch
from kdnas.distill.cut_table import ids_of
from kdnas.distill.embedding import EmbeddingObjective
from kdnas.distill.embedding_stage import embedding_objective, fit_again, objective_of_head, start_head
from kdnas.distill.fit import finish, finished, fit
from kdnas.distill.hidden_state import (
    HiddenStateLoss,
    HiddenStateObjective,
    TeacherStates,
    loss_divisors,
    paired_states,
    teacher_layer_variance,
)
from kdnas.distill.loop import make_accelerator, use_all_cores
from kdnas.distill.mapping import Mapping, layer_pairs
from kdnas.distill.mixed import MixedObjective
from kdnas.distill.moments import cut_layers, kept_moments
from kdnas.distill.objective import Objective
from kdnas.distill.options import DistillOptions, RefineOptions, StudentOptions
from kdnas.distill.pairs import partners_of
from kdnas.distill.processes import processes
from kdnas.distill.projection import fit_projections
from kdnas.distill.relation import RelationObjective, Relations, resolve_relation_heads, resolve_teacher_layer
from kdnas.distill.starting import start_student
from kdnas.distill.student_folder import student_card
from kdnas.distill.validation import sample_batches
from kdnas.distill.warm_start import TeacherLayers
from kdnas.models.arch import Arch
from kdnas.models.family import shape_of
from kdnas.models.folder import save_model
from kdnas.models.head import Head
from kdnas.models.teacher import Teacher, load_encoder
from kdnas.text.corpus import Corpus

SAMPLE_SENTENCES = 1000  # for the teacher's variance and the initial projections


def distill_into(
    folder: Path,
    home: Path,
    teacher: Teacher,
    corpus: Corpus,
    arch: Arch,
    options: DistillOptions,
    start: Path | None = None,
) -> dict[str, Any]:
    """Distil hidden states, embeddings or both into a new student or the one in `start`; writes `student/`.

    With hidden states it also writes `projections.safetensors`.
    """
    done = finished(folder)
    if done is not None:
        return done
    use_all_cores()
    accelerator = make_accelerator(options.precision)
    encoder = load_encoder(teacher.path).to(accelerator.device)
    samples = sample_batches(corpus.train, SAMPLE_SENTENCES, options.batch_tokens, corpus.pad_id, encoder.device)
    student = (
        _given(start, options.seed) if start else begun_student(arch, home, teacher, corpus, encoder, samples, options)
    )
    student = student.to(accelerator.device)
    pairs = layer_pairs(arch.layers, teacher.layers, Mapping(options.mapping))
    variance, loss = None, None
    if options.objective != "embedding":
        variance = layer_variance(encoder, pairs, samples, accelerator)
        loss = HiddenStateLoss(pairs, arch.hidden, teacher.hidden, loss_divisors(options.loss_scale, variance))
        loss = loss.to(accelerator.device)
    objective: HiddenStateObjective | MixedObjective | EmbeddingObjective
    if options.teaches_embeddings:
        objective = embedding_objective(teacher, encoder, student, options, loss, variance)
    elif options.relation_weight:
        assert loss is not None
        relations = _relations(options, student, encoder)
        objective = MixedObjective(student, encoder, loss, relations, (1.0, options.relation_weight), "pairs", variance)
    else:
        assert loss is not None
        objective = HiddenStateObjective(student, TeacherStates(encoder, [layer for _, layer in pairs]), loss, variance)
    objective = objective.to(accelerator.device)
    assert objective.teacher is not None
    if loss is not None and options.projections == "fitted":
        with accelerator.autocast():
            fit_projections(loss, paired_states(objective.student, objective.teacher, samples))
    if isinstance(objective, EmbeddingObjective):
        start_head(objective, corpus, options, start, accelerator)
    results = fit(
        folder,
        objective,
        corpus,
        options,
        accelerator,
        "distil",
        teacher.path,
        trained_ids(corpus, teacher, options),
        partners_of(corpus) if options.contrastive_weight else None,
    )
    if loss is None:
        return _finish(folder, objective, teacher, corpus, results | {"teacher_layers_used": [teacher.layers]})
    used = sorted({layer for _, layer in pairs})
    results |= {"teacher_layers_used": used, "mapping": options.mapping, "pairs": pairs}
    if processes().is_main_process:
        projections = {name: value.contiguous().cpu() for name, value in loss.state_dict().items()}
        _save_tensors(folder / "projections.safetensors", projections)
    return _finish(folder, objective, teacher, corpus, results)


def refine_into(
    folder: Path, home: Path, teacher: Teacher, corpus: Corpus, student: Path | Arch, options: RefineOptions
) -> dict[str, Any]:
    """Refine a student, or train a new one of this architecture, by MiniLM-v2; writes `student/` to `folder`."""
    done = finished(folder)
    if done is not None:
        return done
    use_all_cores()
    accelerator = make_accelerator(options.precision)
    encoder = load_encoder(teacher.path).to(accelerator.device)
    if isinstance(student, Arch):
        samples = sample_batches(corpus.train, SAMPLE_SENTENCES, options.batch_tokens, corpus.pad_id, encoder.device)
        model = begun_student(student, home, teacher, corpus, encoder, samples, options).to(accelerator.device)
    else:
        model = _given(student, options.seed).to(accelerator.device)
    relations = _relations(options, model, encoder)
    objective = _refined(encoder, model, relations, corpus, options, accelerator)
    vectors = None if isinstance(student, Arch) else objective_of_head(student, teacher, encoder, model)
    results = fit(
        folder,
        objective,
        corpus,
        options,
        accelerator,
        "refine",
        teacher.path,
        trained_ids(corpus, teacher, options),
    )
    results |= {"teacher_layers_used": [relations.teacher_layer], "relation_heads": relations.heads}
    if vectors is None:
        return _finish(folder, objective, teacher, corpus, results)
    results |= fit_again(vectors, corpus, options, accelerator)
    return _finish(folder, objective, teacher, corpus, results, vectors.head())


def begun_student(
    arch: Arch,
    home: Path,
    teacher: Teacher,
    corpus: Corpus,
    encoder: PreTrainedModel,
    samples: list[Batch],
    options: StudentOptions,
) -> PreTrainedModel:
    """A new student with its start (`StudentOptions.start`).

    Args:
        arch: the student's architecture.
        home: root of all artifacts, for the moments of the teacher.
        teacher: identity of the teacher.
        corpus: corpus of the sentences.
        encoder: the same teacher, loaded.
        samples: ids and mask of sample sentences.
        options: start and seed.
    """
    moments = None
    layers = cut_layers([arch.layers], arch.ffn, encoder) if options.start == "layers" else []
    if layers or (options.start != "random" and arch.hidden < teacher.hidden):
        moments = kept_moments(home, teacher, corpus, encoder, samples, layers)
    return start_student(arch, encoder, options.start, options.seed, TeacherLayers(encoder, samples, moments))


def trained_ids(corpus: Corpus, teacher: Teacher, options: StudentOptions) -> np.ndarray | None:
    """Ids of the tokens whose embeddings are trained; None for all."""
    return ids_of(corpus, teacher) if options.embedding_rows == "corpus" else None


def _given(student: Path, seed: int) -> PreTrainedModel:
    torch.manual_seed(seed)
    return load_encoder(student).requires_grad_(True)


def _relations(options: StudentOptions, student: PreTrainedModel, teacher: PreTrainedModel) -> Relations:
    ours, theirs = shape_of(student.config), shape_of(teacher.config)
    return Relations(
        resolve_teacher_layer(options.teacher_layer, theirs.layers),
        resolve_relation_heads(options.relation_heads, ours.hidden, theirs.hidden),
        options.relations,
    )


def _refined(
    teacher: PreTrainedModel,
    student: PreTrainedModel,
    relations: Relations,
    corpus: Corpus,
    options: RefineOptions,
    accelerator: Accelerator,
) -> RelationObjective | MixedObjective:
    """The objective of refinement: relations, plus the last layer's hidden states if they have a weight."""
    if not options.hidden_state_weight:
        return RelationObjective(student, teacher, relations)
    ours, theirs = shape_of(student.config), shape_of(teacher.config)
    last, widths = ours.layers, (ours.hidden, theirs.hidden)
    pairs = layer_pairs(last, theirs.layers, Mapping.UNIFORM_LAST)
    pairs = [pair for pair in pairs if pair[0] == last]
    samples = sample_batches(corpus.train, SAMPLE_SENTENCES, options.batch_tokens, corpus.pad_id, teacher.device)
    anchor = HiddenStateLoss(pairs, *widths, layer_variance(teacher, pairs, samples, accelerator)).to(
        accelerator.device
    )
    count = len(relations.names)
    weights = (options.hidden_state_weight / (count + 1), count / (count + 1))
    objective = MixedObjective(student, teacher, anchor, relations, weights, "relations")
    with accelerator.autocast():
        fit_projections(anchor, paired_states(objective.student, objective.teacher, samples))
    return objective


def layer_variance(
    teacher: PreTrainedModel, pairs: Sequence[tuple[int, int]], samples: list[Batch], accelerator: Accelerator
) -> Tensor:
    """Variance of each pair's teacher layer, (n_pairs,)."""
    with accelerator.autocast():
        by_layer = teacher_layer_variance(TeacherStates(teacher, [layer for _, layer in pairs]), samples)
    return torch.tensor([by_layer[layer] for _, layer in pairs])


def _save_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    temporary = path.with_name(path.name + ".tmp")
    save_file(tensors, temporary)
    os.replace(temporary, path)


def _finish(
    folder: Path,
    objective: Objective,
    teacher: Teacher,
    corpus: Corpus,
    results: dict[str, Any],
    head: Head | None = None,
) -> dict[str, Any]:
    card = student_card(teacher, corpus.name, results)
    head = objective.head() if isinstance(objective, EmbeddingObjective) else head
    return finish(
        folder, results, lambda: save_model(folder / "student", objective.student.cpu(), teacher.path, card, head)
    )
