"""The work of distillation and refinement, inside an artifact's working folder."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from kdnas.distill.batches import Batch
from kdnas.distill.cut_table import ids_of
from kdnas.distill.embedding import EmbeddingObjective
from kdnas.distill.embedding_stage import embedding_objective, fit_again, objective_of_head, start_head
from kdnas.distill.fit import Fitting, finish, finished, prepare, train_alone
from kdnas.distill.hidden_state import (
    HiddenStateLoss,
    HiddenStateObjective,
    TeacherStates,
    loss_divisors,
    paired_states,
)
from kdnas.distill.loaded_teacher import LoadedTeacher
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
from kdnas.distill.warm_start import TeacherLayers
from kdnas.models.arch import Arch
from kdnas.models.family import shape_of
from kdnas.models.folder import save_model
from kdnas.models.head import Head
from kdnas.models.teacher import Teacher, load_encoder
from kdnas.text.corpus import Corpus


@dataclass
class Distillation:
    """A distillation that is ready to train.

    Args:
        teacher: the teacher and the sentences.
        fitting: the training.
        pairs: (student layer, teacher layer), 1-based; empty for embeddings alone.
        loss: Eq. 1 with its linear maps; None for embeddings alone.
        options: the options.
    """

    teacher: LoadedTeacher
    fitting: Fitting
    pairs: list[tuple[int, int]]
    loss: HiddenStateLoss | None
    options: DistillOptions

    def finish(self, results: dict[str, Any]) -> dict[str, Any]:
        """Write `student/` and `projections.safetensors`; returns the results for the manifest."""
        folder, own = self.fitting.folder, self.teacher
        if self.loss is None:
            results |= {"teacher_layers_used": [own.teacher.layers]}
        else:
            used = sorted({layer for _, layer in self.pairs})
            results |= {"teacher_layers_used": used, "mapping": self.options.mapping, "pairs": self.pairs}
            if processes().is_main_process:
                projections = {name: value.contiguous().cpu() for name, value in self.loss.state_dict().items()}
                _save_tensors(folder / "projections.safetensors", projections)
        return _finish(folder, self.fitting.objective, own.teacher, own.corpus, results)


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
    begun = begin_distillation(folder, home, LoadedTeacher(teacher, corpus, options), arch, options, start)
    return begun.finish(train_alone(begun.fitting))


def begin_distillation(
    folder: Path,
    home: Path,
    loaded: LoadedTeacher,
    arch: Arch,
    options: DistillOptions,
    start: Path | None = None,
) -> Distillation:
    """The student, its objective and its data; restores the state of an interrupted run.

    Args:
        folder: working folder of the artifact.
        home: root of all artifacts.
        loaded: the teacher and the sentences.
        arch: the student's architecture.
        options: training options.
        start: folder of a student to continue with; None starts a new one.
    """
    teacher, corpus, encoder, accelerator = loaded.teacher, loaded.corpus, loaded.encoder, loaded.accelerator
    if start:
        student = _given(start, options.seed)
    else:
        student = begun_student(arch, home, teacher, corpus, encoder, loaded.samples, options)
    student = student.to(accelerator.device)
    pairs = (
        [] if options.objective == "embedding" else layer_pairs(arch.layers, teacher.layers, Mapping(options.mapping))
    )
    variance, loss = None, None
    if pairs:
        variance = loaded.variance(pairs)
        loss = HiddenStateLoss(pairs, arch.hidden, teacher.hidden, loss_divisors(options.loss_scale, variance))
        loss = loss.to(accelerator.device)
    objective = _objective(loaded, student, options, loss, variance).to(accelerator.device)
    assert objective.teacher is not None
    if loss is not None and options.projections == "fitted":
        with accelerator.autocast():
            fit_projections(loss, paired_states(objective.student, objective.teacher, loaded.samples))
    if isinstance(objective, EmbeddingObjective):
        start_head(objective, corpus, options, start, accelerator)
    ids = trained_ids(corpus, teacher, options)
    partners = partners_of(corpus) if options.contrastive_weight else None
    given = (folder, objective, corpus, options, accelerator, "distil", teacher.path, ids, partners)
    return Distillation(loaded, prepare(*given), pairs, loss, options)


def _objective(
    loaded: LoadedTeacher,
    student: PreTrainedModel,
    options: DistillOptions,
    loss: HiddenStateLoss | None,
    variance: Tensor | None,
) -> HiddenStateObjective | MixedObjective | EmbeddingObjective:
    """The objective of a distillation, from Eq. 1 and the variance of its teacher layers, if hidden states are taught."""
    if options.teaches_embeddings:
        return embedding_objective(loaded.teacher, loaded.encoder, student, options, loss, variance)
    assert loss is not None
    if options.relation_weight:
        relations = _relations(options, student, loaded.encoder)
        weights = (1.0, options.relation_weight)
        return MixedObjective(student, loaded.encoder, loss, relations, weights, "pairs", variance)
    states = TeacherStates(loaded.encoder, [layer for _, layer in loss.pairs])
    return HiddenStateObjective(student, states, loss, variance)


def refine_into(
    folder: Path, home: Path, teacher: Teacher, corpus: Corpus, student: Path | Arch, options: RefineOptions
) -> dict[str, Any]:
    """Refine a student, or train a new one of this architecture, by MiniLM-v2; writes `student/` to `folder`."""
    done = finished(folder)
    if done is not None:
        return done
    loaded = LoadedTeacher(teacher, corpus, options)
    accelerator, encoder = loaded.accelerator, loaded.encoder
    if isinstance(student, Arch):
        model = begun_student(student, home, teacher, corpus, encoder, loaded.samples, options)
    else:
        model = _given(student, options.seed)
    model = model.to(accelerator.device)
    relations = _relations(options, model, encoder)
    objective = _refined(loaded, model, relations, options)
    vectors = None if isinstance(student, Arch) else objective_of_head(student, teacher, encoder, model)
    ids = trained_ids(corpus, teacher, options)
    fitting = prepare(folder, objective, corpus, options, accelerator, "refine", teacher.path, ids)
    results = train_alone(fitting)
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
    loaded: LoadedTeacher, student: PreTrainedModel, relations: Relations, options: RefineOptions
) -> RelationObjective | MixedObjective:
    """The objective of refinement: relations, plus the last layer's hidden states if they have a weight."""
    teacher, accelerator = loaded.encoder, loaded.accelerator
    if not options.hidden_state_weight:
        return RelationObjective(student, teacher, relations)
    ours, theirs = shape_of(student.config), shape_of(teacher.config)
    last, widths = ours.layers, (ours.hidden, theirs.hidden)
    pairs = layer_pairs(last, theirs.layers, Mapping.UNIFORM_LAST)
    pairs = [pair for pair in pairs if pair[0] == last]
    anchor = HiddenStateLoss(pairs, *widths, loaded.variance(pairs)).to(accelerator.device)
    count = len(relations.names)
    weights = (options.hidden_state_weight / (count + 1), count / (count + 1))
    objective = MixedObjective(student, teacher, anchor, relations, weights, "relations")
    with accelerator.autocast():
        fit_projections(anchor, paired_states(objective.student, objective.teacher, loaded.samples))
    return objective


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
