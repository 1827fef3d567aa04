"""Second moments of a teacher's states and neurons on sample sentences: one pass for all layers, kept below the home.

A student that is narrower than its teacher keeps the principal directions of the states, and one with fewer neurons the best of
them (`kdnas.distill.warm_start`). Which ones these are depends on the teacher and the sample alone, so all candidates of a
search, and later searches, share one pass.
"""

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from kdnas.distill.batches import Batch
from kdnas.distill.mapping import Mapping, layer_pairs
from kdnas.models.family import family_of, shape_of
from kdnas.models.teacher import Teacher
from kdnas.store.artifact import build
from kdnas.store.progress import stage
from kdnas.text.corpus import Corpus

KIND, FILE = "warm-start", "moments.safetensors"
SAMPLE_TOKENS = 8192
STATES = "states"


@dataclass(frozen=True)
class Moments:
    """Second moments on the sample.

    Args:
        states: (D, D), sum over the embedding output and all layers of the mean of x x' over real tokens, each divided by its
            trace. About zero, so the principal directions also keep the mean.
        neurons: layer, 1-based, to the mean of a a' over real tokens, (F + 1, F + 1), for the outputs a of its neurons with a 1
            appended.
    """

    states: Tensor
    neurons: dict[int, Tensor] = field(default_factory=dict)


def sample_of(batches: Iterable[Batch]) -> list[Batch]:
    """The first batches of ids and mask, each (B, T), with at least `SAMPLE_TOKENS` real tokens; all if they have fewer."""
    taken, tokens = [], 0
    for ids, mask in batches:
        taken.append((ids, mask))
        tokens += int(mask.sum())
        if tokens >= SAMPLE_TOKENS:
            break
    return taken


def cut_layers(depths: Iterable[int], narrowest: int, teacher: PreTrainedModel) -> list[int]:
    """The teacher's layers, 1-based, that some student starts with fewer neurons; empty if none has fewer.

    Args:
        depths: numbers of layers of the students.
        narrowest: their smallest feed-forward size.
        teacher: the teacher.
    """
    sizes = shape_of(teacher.config)
    if narrowest >= sizes.ffn:
        return []
    return sorted({number for depth in depths for _, number in layer_pairs(depth, sizes.layers, Mapping.UNIFORM)})


@torch.no_grad()
def second_moments(
    teacher: PreTrainedModel, batches: Sequence[Batch], layers: Sequence[int], title: str = "start: teacher"
) -> Moments:
    """Moments of all states, and of the neurons of some layers. The teacher runs once over the batches.

    Args:
        teacher: frozen encoder.
        batches: ids and mask, each (B, T).
        layers: layers whose neurons are wanted, 1-based.
        title: name in the progress display.
    """
    family, counts = family_of(teacher.config), [int(mask.sum()) for _, mask in batches]
    neurons, states = dict[int, Tensor](), dict[int, Tensor]()
    real = torch.zeros(())

    def add(totals: dict[int, Tensor], number: int, values: Tensor) -> None:
        product = values.T @ values
        totals[number] = totals[number].add_(product) if number in totals else product

    def collect(number: int) -> Any:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            values = inputs[0][real].float()
            add(neurons, number, torch.cat([values, values.new_ones(len(values), 1)], dim=1))

        return hook

    hooks = [
        family.layer(teacher, number).contract.register_forward_pre_hook(collect(number))
        for number in sorted({*layers})
    ]
    try:
        with stage(title, sum(counts)) as progress:
            for (ids, mask), count in zip(batches, counts, strict=True):
                real = mask.bool()
                found = teacher(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
                for number, values in enumerate(found):
                    add(states, number, values[real].double())
                progress.advance(count)
    finally:
        for hook in hooks:
            hook.remove()
    summed = torch.stack([total / total.trace() for total in states.values()]).sum(0)
    return Moments(summed.float(), {number: total.div_(sum(counts)) for number, total in neurons.items()})


def kept_moments(
    home: Path,
    teacher: Teacher,
    corpus: Corpus,
    encoder: PreTrainedModel,
    batches: Iterable[Batch],
    layers: Sequence[int],
) -> Moments:
    """`second_moments` from the artifact of this teacher, corpus and sample; the teacher runs only if there is none.

    Processes that need the same one wait for the first, and share its file in memory.

    Args:
        home: root of all artifacts.
        teacher: identity of the teacher.
        corpus: corpus of the sentences.
        encoder: the same teacher, loaded.
        batches: as for `sample_of`.
        layers: layers whose neurons are wanted, 1-based.
    """
    sample = sample_of(batches)

    def work(folder: Path) -> dict[str, Any]:
        found = second_moments(encoder, sample, layers)
        tensors = {STATES: found.states, **{str(number): value for number, value in found.neurons.items()}}
        temporary = folder / (FILE + ".tmp")
        save_file({name: value.contiguous().cpu() for name, value in tensors.items()}, temporary)
        os.replace(temporary, folder / FILE)
        return {"tokens": sum(int(mask.sum()) for _, mask in sample)}

    config = {"layers": list(layers), "sample": _digest(sample), "states": True}
    inputs = {"teacher": teacher.digest, "corpus": corpus.digest}
    needed = 2 * 4 * len(layers) * (shape_of(encoder.config).ffn + 1) ** 2
    artifact = build(home, KIND, teacher.label, config, inputs, work, max(needed, 50_000_000), wait=True)
    tensors = load_file(artifact.path / FILE)
    return Moments(tensors.pop(STATES), {int(name): value for name, value in tensors.items()})


def _digest(batches: Sequence[Batch]) -> str:
    """SHA-256 of the ids and masks; it stands for all options that decide the sample."""
    hashed = hashlib.sha256()
    for tensors in batches:
        for tensor in tensors:
            hashed.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
            hashed.update(tensor.cpu().contiguous().numpy().tobytes())
    return hashed.hexdigest()
