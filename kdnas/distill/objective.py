"""The protocol of objectives: the loss that a training stage minimises, and the metrics that it reports."""

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel


class Objective(nn.Module, ABC):
    """A loss of one or more parts. The mean of the parts is minimised, and all parameters of the module are trained.

    To add one, write a subclass and pass it to `kdnas.distill.fit.fit`, as `kdnas.distill.stages` does. Padding never enters
    a loss.

    Attributes:
        name: as manifests record it.
        student: encoder that learns.
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
            `validation_loss`; `explained_variance` as a whole, or None; `layers`, the explained variance by student layer; and
            what else the objective measures.
        """
