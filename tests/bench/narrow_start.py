"""Bases for students that are narrower than their teacher: how much of the states they keep, and the untrained loss.

Run as `python tests/bench/narrow_start.py CORPUS [ARCH ...]`. For the packaged teacher it compares two bases of the student's
states: the principal directions of the word embeddings, and those of the teacher's states, which `kdnas distill` uses. Prints
a row for each: the fraction of the held-out states' variance that the basis keeps (the least and the most of all layers), and
the held-out loss (Eq. 1, divided by the teacher's variance) of a student that has been started and not trained.
"""

import sys
import tempfile
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from kdnas.distill.batches import Batch
from kdnas.distill.hidden_state import (
    HiddenStateLoss,
    HiddenStateObjective,
    TeacherStates,
    paired_states,
    teacher_layer_variance,
)
from kdnas.distill.loop import make_accelerator
from kdnas.distill.mapping import Mapping, layer_pairs
from kdnas.distill.moments import Moments, second_moments
from kdnas.distill.projection import fit_projections
from kdnas.distill.starting import start_student
from kdnas.distill.validation import mean_losses, sample_batches
from kdnas.distill.warm_start import TeacherLayers
from kdnas.models.arch import Arch
from kdnas.models.family import family_of
from kdnas.models.teacher import BUILTIN, load_encoder, resolve_teacher
from kdnas.store.host import host_line
from kdnas.text.corpus import sample_corpus
from kdnas.text.readers import TextOptions

ARCHS = ("3,12,288,384,gelu", "4,12,288,768,gelu", "6,12,288,1024,gelu")


@torch.no_grad()
def kept(teacher: PreTrainedModel, basis: Tensor, batches: list[Batch]) -> list[float]:
    """Fraction of the variance of each layer's states, embeddings first, that a basis (D_T, D_S) keeps."""
    outputs = [teacher(input_ids=ids, attention_mask=mask, output_hidden_states=True) for ids, mask in batches]
    fractions = []
    for layer in range(len(outputs[0].hidden_states)):
        parts = [found.hidden_states[layer][mask.bool()] for found, (_, mask) in zip(outputs, batches, strict=True)]
        rows = torch.cat(parts)
        rows = rows - rows.mean(0)
        fractions.append(float((rows @ basis).square().sum() / rows.square().sum()))
    return fractions


def untrained_loss(
    arch: Arch, teacher: PreTrainedModel, layers: TeacherLayers, train: list[Batch], held_out: list[Batch]
) -> float:
    """Held-out loss of a student after its start, with fitted projections."""
    student = start_student(arch, teacher, "layers", 0, layers).eval()
    pairs = layer_pairs(arch.layers, teacher.config.num_hidden_layers, Mapping.UNIFORM_LAST)
    states = TeacherStates(teacher, [layer for _, layer in pairs])
    variance = teacher_layer_variance(states, train)
    scale = torch.tensor([variance[layer] for _, layer in pairs])
    loss = HiddenStateLoss(pairs, arch.hidden, teacher.config.hidden_size, scale)
    fit_projections(loss, paired_states(student, states, train))
    objective = HiddenStateObjective(student, states, loss)
    return float(mean_losses(objective, held_out, make_accelerator("f32")).mean())


def main(corpus: str, archs: list[str]) -> None:
    """Print the table."""
    found = resolve_teacher(BUILTIN)
    teacher = load_encoder(found.path)
    with tempfile.TemporaryDirectory() as home:
        built = sample_corpus(Path(home), corpus, TextOptions(), found, 4000)
        train = sample_batches(built.train, 1000, 1024, built.pad_id, teacher.device)
        held_out = sample_batches(built.validation, 300, 1024, built.pad_id, teacher.device)
    words = family_of(teacher.config).embeddings(teacher).words.weight.float()
    moments = second_moments(teacher, train, range(1, teacher.config.num_hidden_layers + 1))
    bases = {"word embeddings": Moments(words.T @ words, moments.neurons), "states": moments}
    print(host_line())
    print("| student | basis | variance kept, least and most of all layers | untrained loss |")
    print("|---|---|---|---:|")
    for arch in map(Arch.parse, archs):
        for name, one in bases.items():
            layers = TeacherLayers(teacher, train, one)
            fractions = kept(teacher, layers.basis(arch.hidden), held_out)
            loss = untrained_loss(arch, teacher, layers, train, held_out)
            print(f"| `{arch}` | {name} | {min(fractions):.3f}, {max(fractions):.3f} | {loss:.3f} |", flush=True)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2:] or list(ARCHS))
