"""Options of `kdnas export`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kdnas.errors import UsageError
from kdnas.export.folder import FORMS
from kdnas.export.recipes import FLOAT, NAMES, RECIPES


@dataclass(frozen=True)
class ExportOptions:
    """Options of `kdnas export`.

    Args:
        calibration_sentences: sentences of the train split that calibrate the activation ranges of int8 forms.
        parity_sentences: held-out sentences of all lengths for the comparison of every form with PyTorch.
        float_bound: largest allowed difference of a float32 form from PyTorch: absolute for values up to 1, relative above.
        forms: forms to write; an int8 form also writes the float32 form that it is made from.
        recipes: quantisation recipes to try for each engine; the export chooses the fastest one within the bound.
        accuracy_control: if the static OpenVINO recipes lose more than the bound, return layers to float32 one by one until the
            loss is within the bound (NNCF); this takes minutes.
        evaluation: .jsonl[.gz] file of labelled inputs with `text` and `label`, `text` and `labels` (1 or 0 for each name),
            `tokens` and `ner_tags`, or `question`, `context` and `answers`, and optionally `language`. One half (dev) chooses the
            int8 recipes, the other (test) measures their loss, which must stay within the bound in every language. Without this
            file the export measures label agreement or cosines, and does not enforce the bound.
        evaluation_texts: maximum labelled inputs per language; a random sample of the file.
        max_loss_points: largest loss of int8 in points (hundredths) of macro-F1 (texts), entity F1 (tokens) or F1 (answers).
        allow_loss: report a larger loss instead of refusing it.
        seed: seed of the choice of calibration sentences.
        vocabulary: `corpus` keeps only the tokens that occur in the corpus's train split, and all single characters;
            `text.languages` selects the languages. `whole` keeps the vocabulary unchanged.
        vocabulary_tokens: number of most frequent tokens to keep with `vocabulary` corpus; rarer words are split into smaller
            pieces. Null keeps all that occur.
        head: vectors of a model with a linear head (`kdnas distill --objective embedding`): `teacher` maps them into the
            teacher's space, in the graph; `own` leaves the head out. Models without a head always give their own.
    """

    calibration_sentences: int = 128
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
    head: Literal["teacher", "own"] = "teacher"

    def __post_init__(self) -> None:
        for name in ("calibration_sentences", "parity_sentences"):
            if getattr(self, name) < 8:
                raise UsageError(f"{name} is {getattr(self, name)}; at least 8 are needed")
        if self.vocabulary_tokens is not None and (self.vocabulary_tokens < 1 or self.vocabulary == "whole"):
            raise UsageError(
                f"vocabulary_tokens is {self.vocabulary_tokens}; it must be at least 1, and needs --vocabulary corpus"
            )
        if self.head not in ("teacher", "own"):
            raise UsageError(f"head is '{self.head}'; allowed are teacher and own")
        if self.evaluation_texts < 100:
            raise UsageError(f"evaluation_texts is {self.evaluation_texts}; at least 100 are needed")
        if not 0 < self.float_bound < 1:
            raise UsageError(f"float_bound is {self.float_bound}; it must be between 0 and 1")
        if not 0 < self.max_loss_points <= 100:
            raise UsageError(f"max_loss_points is {self.max_loss_points}; it must be above 0 and at most 100")
        if not self.forms or (strange := set(self.forms) - set(FORMS)):
            given = ", ".join(sorted(strange)) if self.forms else "nothing"
            raise UsageError(f"forms has {given}; allowed are {', '.join(FORMS)}")
        if unknown := set(self.recipes) - set(NAMES):
            raise UsageError(f"recipes has {', '.join(sorted(unknown))}; allowed are {', '.join(NAMES)}")
        for form, names in RECIPES.items():
            if form in self.forms and not set(names) & set(self.recipes):
                raise UsageError(f"recipes has none for {form}; at least one of {', '.join(names)} is needed")

    def to_make(self) -> list[str]:
        """The requested forms and the float32 forms that they are made from, float32 first.

        The int8 forms come in the opposite order of their sources: a second process writes the last one, and can start early.
        """
        wanted = {*self.forms, *(FLOAT[form] for form in self.forms if form in FLOAT)}
        quantised = sorted(wanted & set(FLOAT), reverse=True)
        return [*sorted(wanted - set(FLOAT)), *quantised]
