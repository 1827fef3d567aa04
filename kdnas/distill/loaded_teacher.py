"""A frozen teacher in memory, with sample sentences, for one or more students."""

from collections import deque
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from kdnas.distill.hidden_state import TeacherStates, teacher_layer_variance
from kdnas.distill.loop import make_accelerator, use_all_cores
from kdnas.distill.options import StudentOptions
from kdnas.distill.validation import sample_batches
from kdnas.models.teacher import Teacher, load_encoder
from kdnas.text.corpus import Corpus

SAMPLE_SENTENCES = 1000  # for the teacher's variance and the initial projections


class LoadedTeacher:
    """A teacher on the device of the training.

    Args:
        teacher: identity of the teacher.
        corpus: tokenised sentences.
        options: precision and size of the batches.

    Attributes:
        accelerator: device and precision.
        encoder: the teacher, without pooler.
        samples: ids and mask of sample sentences.
    """

    def __init__(self, teacher: Teacher, corpus: Corpus, options: StudentOptions) -> None:
        use_all_cores()
        self.teacher, self.corpus = teacher, corpus
        self.accelerator = make_accelerator(options.precision)
        self.encoder = load_encoder(teacher.path).to(self.accelerator.device)
        sizes = (SAMPLE_SENTENCES, options.batch_tokens)
        self.samples = sample_batches(corpus.train, *sizes, corpus.pad_id, self.encoder.device)
        self._variance: dict[int, float] = {}

    def variance(self, pairs: Sequence[tuple[int, int]]) -> Tensor:
        """Variance of each pair's teacher layer, (n_pairs,)."""
        missing = {layer for _, layer in pairs} - set(self._variance)
        if missing:
            with self.accelerator.autocast():
                self._variance |= teacher_layer_variance(TeacherStates(self.encoder, missing), self.samples)
        return torch.tensor([self._variance[layer] for _, layer in pairs])


class SharedStates(TeacherStates):
    """Hidden states for several students: a batch that one of them has asked for is not computed again for the others.

    Args:
        teacher: encoder without pooler.
        layers: layers that any of the students needs, 1-based; 0 is the embedding output.
        batches: number of batches whose states are kept.
    """

    def __init__(self, teacher: LoadedTeacher, layers: Iterable[int], batches: int) -> None:
        super().__init__(teacher.encoder, layers)
        self._kept: deque[tuple[tuple[Tensor | None, ...], dict[int, Tensor]]] = deque(maxlen=batches)

    def __call__(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> dict[int, Tensor]:
        """As in `TeacherStates`."""
        batch = (input_ids, attention_mask, token_type_ids)
        for kept, states in self._kept:
            if all(map(_equal, kept, batch)):
                return states
        states = super().__call__(*batch)
        self._kept.append((batch, states))
        return states


def _equal(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return torch.equal(one, other)
