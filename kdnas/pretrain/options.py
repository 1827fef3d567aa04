"""Options of `kdnas pretrain`, without heavy imports, so that the command line starts fast."""

from dataclasses import dataclass

from kdnas.distill.options import LoopOptions
from kdnas.errors import UsageError

POSITIONS = 514  # as in XLM-R: 512 tokens, with positions from the padding id + 1
SMALLEST_VOCABULARY, LARGEST_VOCABULARY = 300, 1_000_000


@dataclass(frozen=True)
class PretrainOptions(LoopOptions):
    """Options of a teacher's tokenizer and masked language modelling, as in XLM-R (arXiv 2303.09639, Appendix B).

    Args:
        vocabulary: number of tokens of the Unigram tokenizer, including special tokens.
        tokenizer_sentences: sentences of the training split that train the tokenizer, sampled by `language_power`.
        mask_fraction: fraction of the tokens to predict; 80 % of them are masked, 10 % replaced and 10 % unchanged.
    """

    minutes: float = 60
    batch_tokens: int = 4096
    language_power: float | None = 0.3
    peak_lr: float = 1e-3
    vocabulary: int = 32_000
    tokenizer_sentences: int = 500_000
    mask_fraction: float = 0.15

    def __post_init__(self) -> None:
        super().__post_init__()
        if not SMALLEST_VOCABULARY <= self.vocabulary <= LARGEST_VOCABULARY:
            raise UsageError(
                f"vocabulary is {self.vocabulary}; allowed are {SMALLEST_VOCABULARY} to {LARGEST_VOCABULARY}"
            )
        if self.tokenizer_sentences < 100:
            raise UsageError(f"tokenizer_sentences is {self.tokenizer_sentences}; at least 100 are needed")
        if not 0 < self.mask_fraction < 1:
            raise UsageError(f"mask_fraction is {self.mask_fraction}; allowed is between 0 and 1")
