"""Proxy distillation: every candidate is distilled briefly on the same batches (the paper's mini-KD)."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from kdnas.distill.batches import Batch
from kdnas.distill.cut_table import cut_table, ids_of
from kdnas.distill.hidden_state import TeacherStates, student_states, teacher_layer_variance
from kdnas.distill.loop import (
    lr_factor,
    make_accelerator,
    make_optimizer,
    resolve_precision,
    train_step,
    use_all_cores,
)
from kdnas.distill.moments import cut_layers, kept_moments, sample_of
from kdnas.distill.options import LANGUAGE_POWER, LARGE_VOCABULARY, DistillOptions
from kdnas.distill.prompting import Prompting
from kdnas.distill.starting import start_student
from kdnas.distill.warm_start import TeacherLayers
from kdnas.models.arch import Arch, SearchSpace
from kdnas.models.teacher import Teacher, load_encoder
from kdnas.search.candidates import CandidateObjective, Candidates
from kdnas.search.options import ProxyOptions
from kdnas.search.outcome import ProxyResult
from kdnas.search.prompted import PromptedSentences
from kdnas.search.teacher_states import VARIANCE_TOKENS, CachedStates, Subset, cache_bytes
from kdnas.store.disk import require_space
from kdnas.store.progress import say, stage
from kdnas.text.corpus import Corpus
from kdnas.text.sentences import balanced_order, token_batches

VALIDATION_BATCH_TOKENS = 4096
CHECKED_EVERY = 20  # steps between two checks that the loss is finite
WARMUP = 0.05  # fraction of the steps with a rising learning rate


class LiveStates:
    """States of a subset straight from the teacher, for sets too large to cache; otherwise like `CachedStates`."""

    def __init__(self, subset: Subset, teacher: PreTrainedModel, pad_id: int) -> None:
        self._subset, self._teacher, self._pad_id = subset, teacher, pad_id

    def variance(self, layers: Sequence[int], limit: int = VARIANCE_TOKENS) -> dict[int, float]:
        """Variance of each layer over at least the first `limit` tokens."""
        lengths = self._subset.lengths
        count = min(len(lengths), int(np.searchsorted(np.cumsum(lengths), limit)) + 1)
        batches = token_batches(lengths[:count], VALIDATION_BATCH_TOKENS, seed=0, epoch=0)
        tensors = (self._subset.batch(indices, self._pad_id, self._teacher.device) for indices in batches)
        return teacher_layer_variance(TeacherStates(self._teacher, layers), tensors)

    def __call__(self, indices: np.ndarray, mask: Tensor, layers: Sequence[int]) -> dict[int, Tensor]:
        """States of some layers, 1-based, each (B, T, D_T) float32."""
        ids, mask = self._subset.batch(indices, self._pad_id, self._teacher.device)
        return TeacherStates(self._teacher, layers)(ids, mask)


class Proxy:
    """Distils candidates on the same batches. They start and learn as in the later distillation.

    Args:
        folder: scratch folder for the teacher's states; kept after an interruption, deleted by `close`.
        teacher: the teacher.
        corpus: its splits give the proxy set and the held-out sentences.
        space: decides which of the teacher's layers are needed.
        options: objective, budget and optimizer.
        seed: seed of the proxy set, the batches and the students' random weights.
        distill: its start, mapping, projections, scale of the loss and losses of embeddings are those of the candidates, too.
        home: root of artifacts, where the start of the students is kept for other searches; None keeps it in memory.
    """

    def __init__(
        self,
        folder: Path,
        teacher: Teacher,
        corpus: Corpus,
        space: SearchSpace,
        options: ProxyOptions,
        seed: int,
        distill: DistillOptions = DistillOptions(),
        home: Path | None = None,
    ) -> None:
        use_all_cores()
        self._distill, self.options, self.seed, self._folder = distill, options, seed, folder
        self._pad_id = corpus.pad_id
        large = teacher.config["vocab_size"] > LARGE_VOCABULARY
        self._table_ids = ids_of(corpus, teacher) if large else None
        self.precision = resolve_precision("auto")
        self.accelerator = make_accelerator(self.precision)
        self._teacher = load_encoder(teacher.path).to(self.accelerator.device)
        self._candidates = Candidates(options.objective, teacher, self._teacher, distill)
        prompting = self._candidates.prompting()
        self.train = prompted(training_subset(corpus, options, seed), prompting)
        self.validation = prompted(validation_subset(corpus, options, seed), prompting)
        self.plan = batch_plan(self.train.lengths, options, seed)
        self.tokens = int(sum(int(self.train.lengths[indices].sum()) for indices in self.plan))
        sample, moments = sample_of(self._batch(indices) for indices in self.plan), None
        if home is not None and distill.start != "random":  # computed now, before any worker needs it
            cut = cut_layers(space.layers, min(space.ffn), self._teacher)
            moments = kept_moments(home, teacher, corpus, self._teacher, sample, cut)
        self._layers = TeacherLayers(self._teacher, sample, moments)
        layers = self._candidates.layers(space.layers)
        self._states, self._held_out = self._teacher_states(layers)
        self._variance = self._states.variance(layers)

    def _teacher_states(self, layers: list[int]) -> tuple["CachedStates | LiveStates", "CachedStates | LiveStates"]:
        """States of the proxy set and of the held-out sentences: kept on disk if they fit."""
        subsets = {"train": self.train, "validation": self.validation}
        tokens = sum(int(subset.lengths.sum()) for subset in subsets.values())
        needed = cache_bytes(tokens, layers, int(self._teacher.config.hidden_size))
        if needed > self.options.cache_gb * 1e9:
            say(
                f"search: the teacher's states of the proxy set would take {needed / 1e9:.1f} GB, proxy.cache_gb is "
                f"{self.options.cache_gb:g}; the teacher runs again for every candidate"
            )
            live = [LiveStates(subset, self._teacher, self._pad_id) for subset in subsets.values()]
            return live[0], live[1]
        self._folder.mkdir(parents=True, exist_ok=True)
        require_space(self._folder, needed)
        with stage("search: teacher", tokens) as progress:
            cached = [
                CachedStates(self._folder / name, subset, self._teacher, layers, self._pad_id, progress.advance)
                for name, subset in subsets.items()
            ]
        return cached[0], cached[1]

    @property
    def figures(self) -> dict[str, Any]:
        """Objective, budget and precision of every candidate, for the manifest."""
        return {
            "objective": self.options.objective,
            "proxy_tokens": self.tokens,
            "precision": self.precision,
            "teacher_seconds": self.teacher_seconds,
        }

    @property
    def teacher_seconds(self) -> float | None:
        """Seconds of the teacher's passes for all candidates; None if the teacher runs again for each."""
        kept = [one.seconds for one in (self._states, self._held_out) if isinstance(one, CachedStates)]
        return round(sum(kept), 3) if kept else None

    def __call__(self, arch: Arch) -> ProxyResult:
        """Distil one architecture and measure its held-out loss."""
        return list(self.curve(arch))[-1]

    def curve(self, arch: Arch, marks: Sequence[float] = (1.0,)) -> Iterator[ProxyResult]:
        """Distil one architecture and yield its held-out loss after each of these fractions of the budget.

        If the loss diverges, the curve ends there with that loss.
        """
        ends = {max(1, round(mark * len(self.plan))) for mark in marks}
        layers = self._candidates.layers([arch.layers])
        student = start_student(arch, self._teacher, self._distill.start, self.seed, self._layers).eval()  # no dropout
        objective = self._candidates.make(arch, student, self._variance).to(self.accelerator.device)
        with torch.no_grad(), self.accelerator.autocast():
            first, again = (self._first_states(objective, layers) for _ in range(2))
            self._candidates.start(objective, first, again)
        if self._table_ids is not None:
            cut_table(student, self._table_ids)
        for tokens in self._train(objective, layers, ends):
            yield ProxyResult(self._validate(objective, layers), tokens)

    def _batch(self, indices: np.ndarray) -> Batch:
        return self.train.batch(indices, self._pad_id, self.accelerator.device)

    def _first_states(
        self, objective: CandidateObjective, layers: list[int]
    ) -> Iterator[tuple[Sequence[Tensor], dict[int, Tensor], Tensor]]:
        """Student states, teacher states and mask of each batch of the plan."""
        for indices in self.plan:
            ids, mask = self._batch(indices)
            yield student_states(objective.student, ids, mask), self._states(indices, mask, layers), mask

    def _train(self, objective: CandidateObjective, layers: list[int], ends: set[int]) -> Iterator[int]:
        """Cumulative number of real tokens after each of some steps; a diverged run ends where that was detected."""
        optimizer = make_optimizer(objective, self.options.peak_lr)
        tokens = 0
        for step, indices in enumerate(self.plan):
            ids, mask = self._batch(indices)
            batch = (ids, mask, None, self._states(indices, mask, layers))
            lr = self.options.peak_lr * lr_factor(step, len(self.plan), WARMUP)
            losses = train_step(objective, optimizer, self.accelerator, batch, lr)
            tokens += int(self.train.lengths[indices].sum())
            diverged = step % CHECKED_EVERY == 0 and not bool(torch.isfinite(losses).all())
            if step + 1 in ends or diverged:
                yield tokens
            if diverged:
                return

    def _validate(self, objective: CandidateObjective, layers: list[int]) -> float:
        """Held-out loss over all real tokens, as `kdnas distill` reports it."""
        total, tokens = torch.zeros(1, dtype=torch.float64), 0
        for indices in token_batches(self.validation.lengths, VALIDATION_BATCH_TOKENS, seed=0, epoch=0):
            ids, mask = self.validation.batch(indices, self._pad_id, self.accelerator.device)
            targets = self._held_out(indices, mask, layers)
            with torch.no_grad(), self.accelerator.autocast():
                losses = objective(ids, mask, targets=targets)
            count = int(self.validation.lengths[indices].sum())
            total = total + losses.double().cpu() * count
            tokens += count
        return float(objective.metrics(total / tokens)["validation_loss"])

    def close(self) -> None:
        """Delete the teacher's states."""
        shutil.rmtree(self._folder, ignore_errors=True)


def prompted(subset: Subset, prompting: Prompting) -> Subset:
    """The same sentences with the prompts before them."""
    if not prompting.prompts:
        return subset
    sentences = subset.sentences
    return Subset(PromptedSentences(sentences.path, sentences.split, prompting), subset.numbers)


def training_subset(corpus: Corpus, options: ProxyOptions, seed: int) -> Subset:
    """Random training sentences with the proxy set's number of tokens; the whole split if it has fewer.

    The fraction of a language of n sentences is proportional to n^0.3, here and among the held-out sentences.
    """
    lengths = corpus.train.lengths
    fraction = options.corpus_fraction
    wanted = fraction * lengths.sum() if fraction is not None else (options.tokens or 1) / options.epochs
    order = balanced_order(corpus.train.language_numbers, LANGUAGE_POWER, np.random.default_rng(seed))
    enough = int(np.searchsorted(np.cumsum(lengths[order]), wanted)) + 1
    return Subset(corpus.train, order[:enough])


def validation_subset(corpus: Corpus, options: ProxyOptions, seed: int) -> Subset:
    """Random held-out sentences."""
    order = balanced_order(corpus.validation.language_numbers, LANGUAGE_POWER, np.random.default_rng(seed))
    return Subset(corpus.validation, order[: options.validation_sentences])


def batch_plan(lengths: np.ndarray, options: ProxyOptions, seed: int) -> list[np.ndarray]:
    """Indices in the proxy set of each training batch, the same for every candidate.

    Args:
        lengths: (N,) tokens of the set's sentences.
        options: `tokens`, or `epochs` passes over the set, decide how many batches.
        seed: seed of their order.
    """
    budget = options.tokens if options.tokens is not None else lengths.sum() * options.epochs
    plan: list[np.ndarray] = []
    seen, epoch = 0, 0
    while seen < budget:
        for indices in token_batches(lengths, options.batch_tokens, seed, epoch, most=options.batch_sentences):
            if seen < budget:
                plan.append(indices)
                seen += int(lengths[indices].sum())
        epoch += 1
    return plan
