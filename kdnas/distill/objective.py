"""The protocol of objectives: the loss that a training stage minimises, and the metrics that it reports."""

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel


class Objective(nn.Module, ABC):
    """A loss with one or more parts. Training minimises the mean of the parts, over all parameters of the module.

    To add an objective, write a subclass and pass it to `kdnas.distill.fit.fit`, as `kdnas.distill.stages` does. Losses ignore
    padding.

    Attributes:
        name: name of the objective in manifests.
        student: encoder to train.
    """

    name: str
    student: PreTrainedModel

    @abstractmethod
    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor | None = None,
        targets: Any = None,
    ) -> Tensor:
        """Loss of each part, (n_parts,).

        Args:
            input_ids: (B, T).
            attention_mask: (B, T), 1 at real tokens.
            token_type_ids: (B, T) for pairs of texts.
            targets: outputs of the teacher, for example from a cache; None runs the teacher.
        """

    @abstractmethod
    def metrics(self, losses: Tensor) -> dict[str, Any]:
        """Metrics of a validation, for the history and the results.

        Args:
            losses: (n_parts,) mean losses over held-out sentences, float64.

        Returns:
            `validation_loss`; `explained_variance` overall, or None; `layers`, the explained variance by student layer; and
            further metrics of the objective.
        """
