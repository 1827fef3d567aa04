"""Second moments of a teacher's neurons on sample sentences: one pass for all layers, kept below the home.

A student with fewer neurons than its teacher keeps the best of them (`kdnas.distill.warm_start`). Which ones these are depends
on the teacher and the sample alone, so all candidates of a search, and later searches, share one pass.
"""

import hashlib
import os
from collections.abc import Iterable, Sequence
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
def second_moments(teacher: PreTrainedModel, batches: Sequence[Batch], layers: Sequence[int]) -> dict[int, Tensor]:
    """Mean of a a' over real tokens for the neurons' outputs a with a 1 appended, (F + 1, F + 1) for each layer.

    The teacher runs once over the batches, whatever the number of layers.

    Args:
        teacher: frozen encoder.
        batches: ids and mask, each (B, T).
        layers: wanted layers, 1-based.
    """
    family, totals, counts = family_of(teacher.config), dict[int, Tensor](), [int(mask.sum()) for _, mask in batches]
    real = torch.zeros(())

    def collect(number: int) -> Any:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            values = inputs[0][real].float()
            values = torch.cat([values, values.new_ones(len(values), 1)], dim=1)
            product = values.T @ values
            totals[number] = totals[number].add_(product) if number in totals else product

        return hook

    hooks = [
        family.layer(teacher, number).contract.register_forward_pre_hook(collect(number))
        for number in sorted({*layers})
    ]
    try:
        with stage("start: teacher", sum(counts)) as progress:
            for (ids, mask), count in zip(batches, counts, strict=True):
                real = mask.bool()
                teacher(input_ids=ids, attention_mask=mask)
                progress.advance(count)
    finally:
        for hook in hooks:
            hook.remove()
    return {number: total.div_(sum(counts)) for number, total in totals.items()}


def kept_moments(
    home: Path,
    teacher: Teacher,
    corpus: Corpus,
    encoder: PreTrainedModel,
    batches: Iterable[Batch],
    layers: Sequence[int],
) -> dict[int, Tensor]:
    """`second_moments` from the artifact of this teacher, corpus and sample; the teacher runs only if there is none.

    Processes that need the same one wait for the first, and share its file in memory.

    Args:
        home: root of all artifacts.
        teacher: identity of the teacher.
        corpus: corpus of the sentences.
        encoder: the same teacher, loaded.
        batches: as for `sample_of`.
        layers: wanted layers, 1-based; without any the result is empty.
    """
    if not layers:
        return {}
    sample = sample_of(batches)

    def work(folder: Path) -> dict[str, Any]:
        found = second_moments(encoder, sample, layers)
        temporary = folder / (FILE + ".tmp")
        save_file({str(number): value.contiguous().cpu() for number, value in found.items()}, temporary)
        os.replace(temporary, folder / FILE)
        return {"tokens": sum(int(mask.sum()) for _, mask in sample)}

    config = {"layers": list(layers), "sample": _digest(sample)}
    inputs = {"teacher": teacher.digest, "corpus": corpus.digest}
    needed = 2 * 4 * len(layers) * (shape_of(encoder.config).ffn + 1) ** 2
    artifact = build(home, KIND, teacher.label, config, inputs, work, max(needed, 50_000_000), wait=True)
    return {int(name): value for name, value in load_file(artifact.path / FILE).items()}


def _digest(batches: Sequence[Batch]) -> str:
    """SHA-256 of the ids and masks; it stands for all options that decide the sample."""
    hashed = hashlib.sha256()
    for tensors in batches:
        for tensor in tensors:
            hashed.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
            hashed.update(tensor.cpu().contiguous().numpy().tobytes())
    return hashed.hexdigest()
