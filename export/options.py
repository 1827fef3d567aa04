"""How a model is exported."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kdnas.errors import UsageError
from kdnas.export.recipes import FLOAT, NAMES, RECIPES
from kdnas.export.session import FORMS


@dataclass(frozen=True)
class ExportOptions:
    """How a model is exported.

    Args:
        calibration_sentences: sentences of the corpus's train split on which the int8 form's ranges are measured.
        parity_sentences: held-out sentences of all lengths on which every form is compared with PyTorch.
        float_bound: largest difference of a float32 form from PyTorch, absolute up to 1 and relative beyond.
        forms: what is written; a float32 form from which a wanted int8 is made is written, too.
        recipes: ways to int8 that are tried for each engine; the fastest that stays inside the bound is taken.
        accuracy_control: where the static recipes of OpenVINO lose more than the bound, give layers back their float32 one by
            one until the answers are kept (NNCF); takes minutes.
        evaluation: labelled inputs, a .jsonl[.gz] file with `text` and `label`, `tokens` and `ner_tags`, or `question`,
            `context` and `answers`, and perhaps `language`, on which int8 must stay within the bound in every language;
            without it label agreement or cosines are judged, and never refused.
        evaluation_texts: labelled inputs of each language, at most.
        max_loss_points: macro-F1 of texts, entity F1 of tokens, or F1 of answers that int8 may lose, in hundredths.
        allow_loss: report a larger loss instead of refusing it.
        seed: chooses the calibration sentences.
        vocabulary: `corpus` keeps only the tokens that the corpus's train split is made of, and all single characters;
            `text.languages` says which languages those are.
        vocabulary_tokens: of these only the most frequent ones, so many; a rarer word is read as its smaller pieces. Null keeps
            all; needs `vocabulary` corpus.
    """

    calibration_sentences: int = 300
    parity_sentences: int = 100
    float_bound: float = 1e-4
    forms: tuple[str, ...] = tuple(FORMS)
    recipes: tuple[str, ...] = NAMES
    accuracy_control: bool = False
    evaluation: Path | None = None
    evaluation_texts: int = 2000
    max_loss_points: float = 1.0
    allow_loss: bool = False
    seed: int = 0
    vocabulary: Literal["whole", "corpus"] = "whole"
    vocabulary_tokens: int | None = None

    def __post_init__(self) -> None:
        for name in ("calibration_sentences", "parity_sentences"):
            if getattr(self, name) < 8:
                raise UsageError(f"{name} is {getattr(self, name)}; at least 8 are needed")
        if self.vocabulary_tokens is not None and (self.vocabulary_tokens < 1 or self.vocabulary == "whole"):
            raise UsageError(
                f"vocabulary_tokens is {self.vocabulary_tokens}; at least 1 is needed, and --vocabulary corpus"
            )
        if self.evaluation_texts < 100:
            raise UsageError(f"evaluation_texts is {self.evaluation_texts}; at least 100 are needed")
        if not 0 < self.float_bound < 1:
            raise UsageError(f"float_bound is {self.float_bound}; allowed is between 0 and 1")
        if not 0 < self.max_loss_points <= 100:
            raise UsageError(f"max_loss_points is {self.max_loss_points}; allowed is above 0 and up to 100")
        if not self.forms or (strange := set(self.forms) - set(FORMS)):
            given = ", ".join(sorted(strange)) if self.forms else "nothing"
            raise UsageError(f"forms has {given}; allowed are {', '.join(FORMS)}")
        if unknown := set(self.recipes) - set(NAMES):
            raise UsageError(f"recipes has {', '.join(sorted(unknown))}; allowed are {', '.join(NAMES)}")
        for form, names in RECIPES.items():
            if form in self.forms and not set(names) & set(self.recipes):
                raise UsageError(f"recipes has none for {form}; at least one of {', '.join(names)} is needed")

    def to_make(self) -> list[str]:
        """The forms that are asked for and those that they are made from, each after its source."""
        sources = {FLOAT[form] for form in self.forms if form in FLOAT}
        return sorted({*self.forms, *sources}, key=lambda form: (form in FLOAT, form))
