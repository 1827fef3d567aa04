"""The training of one net, inside the working folder of its family."""

import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors.torch import save_file
from transformers import PreTrainedModel

from kdnas.autodistil.elastic import ElasticParameters
from kdnas.autodistil.objective import FamilyObjective, wanted_layers
from kdnas.autodistil.options import FamilyOptions
from kdnas.autodistil.planning import planned_updates
from kdnas.autodistil.scoring import fitted_losses, held_out_losses
from kdnas.autodistil.slices import order_neurons
from kdnas.autodistil.sub_space import SubSpace
from kdnas.autodistil.updates import FamilyUpdates
from kdnas.distill.batches import Batch, TrainBatches
from kdnas.distill.checkpoint import Position, load_checkpoint
from kdnas.distill.cut_table import cut_table, restore_table
from kdnas.distill.fit import finish, finished
from kdnas.distill.hidden_state import TeacherStates, teacher_layer_variance
from kdnas.distill.loaded_teacher import SAMPLE_SENTENCES
from kdnas.distill.loop import make_accelerator, make_optimizer, resolve_precision, train
from kdnas.distill.moments import sample_of, second_moments
from kdnas.distill.pairs import Pairs
from kdnas.distill.processes import broadcast, processes
from kdnas.distill.stages import begun_student, trained_ids
from kdnas.distill.step_budget import extended_steps
from kdnas.distill.student_folder import METADATA
from kdnas.distill.validation import sample_batches
from kdnas.models.arch import Arch
from kdnas.models.card import inherited, with_metadata
from kdnas.models.family import shape_of
from kdnas.models.folder import save_model
from kdnas.models.teacher import Teacher, load_encoder
from kdnas.store.json_files import read_jsonl
from kdnas.text.corpus import Corpus
from kdnas.text.joining import read_joining

NET, PROJECTIONS = "net", "projections.safetensors"
CARD = """# {name}: the net of a family

The weights of {members} students that share them, trained with kdnas (AutoDistil, arXiv 2201.12507). This folder is the largest
member, `{arch}` (layers, heads, hidden size, feed-forward size, activation). `kdnas extract` writes any member as a stock model.

- Teacher: `{teacher}`
- Corpus: `{corpus}`
"""


def train_net(
    folder: Path, home: Path, teacher: Teacher, corpus: Corpus, space: SubSpace, options: FamilyOptions
) -> dict[str, Any]:
    """Train one net and score its members; writes `net/`, `projections.safetensors` and `history.jsonl`.

    Args:
        folder: folder of the net in the family.
        home: root of all artifacts.
        teacher: the frozen teacher.
        corpus: sentences, tokenised for this teacher.
        space: the members of the net.
        options: training options, with the minutes of this net.

    Returns:
        Results of the training, and `members`: loss and explained variance of each member by its architecture.
    """
    folder.mkdir(exist_ok=True)
    done = finished(folder)
    if done is not None:
        return done
    accelerator = make_accelerator(options.precision)
    encoder = load_encoder(teacher.path).to(accelerator.device)
    samples = sample_batches(corpus.train, SAMPLE_SENTENCES, options.batch_tokens, corpus.pad_id, encoder.device)
    net = begun_net(home, teacher, corpus, space, encoder, samples, options).to(accelerator.device)
    variance = dict[int, float]()
    if options.objective == "hidden-states":
        with accelerator.autocast():
            layers = wanted_layers(space, teacher.layers, options)
            variance = teacher_layer_variance(TeacherStates(encoder, layers), samples)
    objective = FamilyObjective(net, space, encoder, options, variance)
    _fit_projections(objective, samples, accelerator)
    results = _fit(folder, objective, corpus, options, accelerator, teacher)
    sizes = (options.validation_sentences, options.batch_tokens)
    held_out = sample_batches(corpus.validation, *sizes, corpus.pad_id, accelerator.device)
    results["members"] = _scores(objective, samples, held_out, accelerator)

    def save() -> None:
        net.cpu()
        save_file(
            {name: value.contiguous().cpu() for name, value in objective.losses.state_dict().items()},
            folder / PROJECTIONS,
        )
        card = CARD.format(
            name=f"{teacher.label} as {space.largest}",
            members=len(space.members),
            arch=space.largest,
            teacher=teacher.spec,
            corpus=corpus.name,
        )
        save_model(folder / NET, net, teacher.path, with_metadata(inherited(teacher.path) | METADATA, card))

    return finish(folder, results, save)


def begun_net(
    home: Path,
    teacher: Teacher,
    corpus: Corpus,
    space: SubSpace,
    encoder: PreTrainedModel,
    samples: list[Batch],
    options: FamilyOptions,
) -> PreTrainedModel:
    """A net with the start of its largest member, and with its neurons in order; arguments as in `begun_student`."""
    net = begun_student(space.largest, home, teacher, corpus, encoder, samples, options).to(encoder.device)
    if len(space.ffn) > 1:
        layers = range(1, space.largest.layers + 1)
        net.eval()
        order_neurons(net, second_moments(net, sample_of(samples), list(layers), "start: order"))
    return net


def _fit_projections(objective: FamilyObjective, samples: list[Batch], accelerator: Accelerator) -> None:
    """Set the linear maps of each depth to those of its largest member."""
    if not objective.fits_projections:
        return
    space = objective.space
    archs = [replace(space.largest, layers=depth) for depth in space.layers]
    for arch, loss in fitted_losses(objective, archs, samples, accelerator).items():
        objective.losses[str(arch.layers)].load_state_dict(loss.state_dict())


def _fit(
    folder: Path,
    objective: FamilyObjective,
    corpus: Corpus,
    options: FamilyOptions,
    accelerator: Accelerator,
    teacher: Teacher,
) -> dict[str, Any]:
    """Plan, train (resuming from a checkpoint if there is one) and return the results without the members' scores."""
    space, net = objective.space, objective.net
    ids = trained_ids(corpus, teacher, options)
    if ids is not None:
        cut_table(net, ids)
    elastic = ElasticParameters(net, space, objective.losses)
    index = (processes().process_index, processes().num_processes)
    pairs = Pairs(read_joining(teacher.path), shape_of(net.config).positions) if options.pair_fraction else None
    batches = TrainBatches(corpus.train, corpus.pad_id, options, pairs, index)
    sizes = (options.validation_sentences, options.batch_tokens)
    held_out = sample_batches(corpus.validation, *sizes, corpus.pad_id, accelerator.device)
    check = partial(_validate, objective, held_out, accelerator)

    def optimizer_of() -> torch.optim.AdamW:
        return make_optimizer(elastic, options.peak_lr, options.weight_decay, options.embedding_lr_factor)

    def updates_of(optimizer: torch.optim.AdamW, position: Position) -> FamilyUpdates:
        coming = batches.after(position.epoch, position.index)
        return FamilyUpdates(objective, elastic, optimizer, accelerator, coming, options)

    start, first = time.monotonic(), processes().is_main_process
    trial = updates_of(optimizer_of(), Position())
    planned = (folder, trial, elastic, space, teacher.shape, options, check)
    steps: int | None = broadcast(planned_updates(*planned) if first else None)
    optimizer = optimizer_of()
    with processes().main_process_first():  # the main process removes damaged checkpoints
        position = load_checkpoint(folder, elastic, optimizer) or Position()
    elastic.restored()
    title = f"family {space.name}"
    while steps is not None:
        updates = updates_of(optimizer, position)
        position = train(elastic, optimizer, batches, options, steps, folder, position, check, title, updates)
        steps = broadcast(extended_steps(folder, options, position, time.monotonic() - start) if first else None)
    last = [row for row in read_jsonl(folder / "history.jsonl") if row["kind"] == "validation"][-1]
    restore_table(net)
    return {
        "space": space.name,
        "steps": position.step,
        "tokens": position.tokens,
        "tokens_per_second": round(position.tokens / position.seconds, 1),
        "precision": resolve_precision(options.precision),
        "validation_loss": last["validation_loss"],
    }


def _validate(objective: FamilyObjective, held_out: list[Batch], accelerator: Accelerator) -> dict[str, Any]:
    """Mean held-out loss of the largest and the smallest member, with the linear maps of their depths."""
    space = objective.space
    found = held_out_losses(objective, [space.largest, space.smallest], held_out, accelerator)
    losses = {str(arch): float(values.mean()) for arch, values in found.items()}
    return {"validation_loss": sum(losses.values()) / len(losses), "members": losses}


def _scores(
    objective: FamilyObjective, samples: list[Batch], held_out: list[Batch], accelerator: Accelerator
) -> dict[str, dict[str, Any]]:
    """Held-out loss of every member; the linear maps of Eq. 1 are fitted for each."""
    archs: list[Arch] = list(objective.space.members)
    fitted = fitted_losses(objective, archs, samples, accelerator) if objective.fits_projections else {}
    found = held_out_losses(objective, archs, held_out, accelerator, fitted, f"score {objective.space.name}")
    return {
        str(arch): {
            "loss": float(values.mean()),
            "explained_variance": 1 - float(values.mean()) if objective.fits_projections else None,
        }
        for arch, values in found.items()
    }
