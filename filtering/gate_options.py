"""Settings of the gate, a cheap model that lets clearly clean sentences pass without the classifier."""

from dataclasses import asdict, dataclass
from typing import Any

from kdnas.errors import UsageError
from kdnas.extras import require_extras
from kdnas.filtering.bounds import positives_needed
from kdnas.filtering.options import DecisionOptions


@dataclass(frozen=True)
class GateOptions:
    """The gate of a run.

    Args:
        use: teach a cheap gate for this corpus by the model's own scores of a sample, and let the sentences pass that the gate
            finds clearly clean. The model scores all other sentences.
        sample: sentences of the corpus that the model scores first: with one half the gate is taught, the other half sets its
            threshold.
        miss: largest fraction of the positive sentences, those that reach a threshold, that the gate may let pass.
        confidence: probability with which the bound `miss` holds.
        audit: fraction of the sentences that passed, chosen at random, that the model scores all the same. They give the bound
            of missed sentences in the report; a unit in which they show more than `miss` is scored again without the gate.
        seed: of the random choices.
    """

    use: bool = False
    sample: int = 50_000
    miss: float = 0.01
    confidence: float = 0.95
    audit: float = 0.005
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.miss < 1:
            raise UsageError(f"gate.miss is {self.miss}; allowed are more than 0 and less than 1")
        if not 0.5 <= self.confidence < 1:
            raise UsageError(f"gate.confidence is {self.confidence}; allowed are 0.5 and more, and less than 1")
        if not 0 < self.audit <= 1:
            raise UsageError(f"gate.audit is {self.audit}; allowed are more than 0, and at most 1")
        if self.sample < 2:
            raise UsageError(f"gate.sample is {self.sample}; at least 2 sentences are needed")

    def require_possible(self, decision: DecisionOptions) -> None:
        """Check that a gate can be made, before any work.

        Raises:
            UsageError: the bound needs more positives than the sample has sentences, or the score of a document needs the score
                of every sentence.
            KdnasError: a package is not installed.
        """
        if not self.use:
            return
        require_extras("--gate.use", ("cascade",))
        if decision.document_score == "mean":
            raise UsageError(
                "gate.use: the document score 'mean' needs the score of every sentence; give --document-score max or fraction"
            )
        needed = positives_needed(self.miss, self.confidence)
        if needed > self.sample // 2:
            raise UsageError(
                f"gate.sample is {self.sample}: half of it sets the threshold, and gate.miss {self.miss:g} at gate.confidence "
                f"{self.confidence:g} needs {needed} positive sentences there; give a larger sample or a larger gate.miss"
            )

    def config(self) -> dict[str, Any]:
        """The settings as a run records them. Runs of earlier versions have none of them, as a run without a gate."""
        return {f"gate.{name}": value for name, value in asdict(self).items()} if self.use else {"gate.use": None}
