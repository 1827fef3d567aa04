"""Held-out losses of any students of one teacher, alike for all: projections refitted in closed form, the same sentences."""

from collections.abc import Mapping
from pathlib import Path

from kdnas.distill.hidden_state import HiddenStateLoss, HiddenStateObjective, paired_states
from kdnas.distill.loaded_teacher import LoadedTeacher, SharedStates
from kdnas.distill.mapping import Mapping as LayerMapping
from kdnas.distill.mapping import layer_pairs
from kdnas.distill.moments import sample_of
from kdnas.distill.options import DistillOptions
from kdnas.distill.projection import fit_projections
from kdnas.distill.validation import mean_losses_of_all, sample_batches
from kdnas.models.arch import Arch
from kdnas.models.teacher import Teacher, load_encoder
from kdnas.text.corpus import Corpus


def held_out_losses(
    teacher: Teacher, corpus: Corpus, students: Mapping[Arch, Path], sentences: int, batch_tokens: int
) -> dict[Arch, float]:
    """Unexplained fraction of the teacher's states (Eq. 1, divided by their variance), by architecture.

    Args:
        teacher: the teacher.
        corpus: the projections are fitted on its train split and scored on its validation split.
        students: stock folder of each student.
        sentences: number of held-out sentences.
        batch_tokens: padded tokens per batch.
    """
    loaded = LoadedTeacher(teacher, corpus, DistillOptions(batch_tokens=batch_tokens))
    sample = sample_of(loaded.samples)
    held_out = sample_batches(corpus.validation, sentences, batch_tokens, corpus.pad_id, loaded.encoder.device)
    pairs = {arch: layer_pairs(arch.layers, teacher.layers, LayerMapping.UNIFORM_LAST) for arch in students}
    layers = {layer for found in pairs.values() for _, layer in found}
    shared, objectives = SharedStates(loaded, layers, len(sample)), []
    for arch, folder in students.items():
        student = load_encoder(folder).to(loaded.encoder.device)
        loss = HiddenStateLoss(pairs[arch], arch.hidden, teacher.hidden, loaded.variance(pairs[arch]))
        loss = loss.to(loaded.encoder.device)
        with loaded.accelerator.autocast():
            fit_projections(loss, paired_states(student, shared, sample))
        objectives.append(HiddenStateObjective(student, shared, loss))
    found = mean_losses_of_all(objectives, held_out, loaded.accelerator)
    return {arch: float(values.mean()) for arch, values in zip(students, found, strict=True)}
