"""The part of a text that answers a question."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kdnas.evaluation.kinds.base import TaskKind, part_of
from kdnas.evaluation.rows import Answers, Split
from kdnas.export.scores import answer_scores
from kdnas.export.session import BATCH_TOKENS
from kdnas.export.spans import Answerer, Runs, Windows


class Spans(TaskKind):
    """Inputs are pairs of a question and its context; labels are `Answers`; predictions are the texts of the answers."""

    name = "spans"
    head = "AutoModelForQuestionAnswering"
    export_task = "question-answering"
    score_names = ("exact_match", "answer_f1")

    def read_label(
        self, value: Any, labels: Sequence[str], numbers: Mapping[str, int], otherwise: int | None
    ) -> Answers:
        """The answers that are not empty; `Answers.texts` is empty if the question has none."""
        # A set without answers may list one empty text, as TyDi does.
        found = [
            (text, int(start))
            for text, start in zip(value["text"], value["answer_start"], strict=False)
            if text.strip()
        ]
        return Answers(tuple(text for text, _ in found), found[0][1] if found else 0)

    def encode(self, split: Split, tokenizer: Any, seq_len: int) -> list[tuple[Any, np.ndarray]]:
        """One row for each window of a context."""
        windows = Windows(tokenizer, seq_len)
        return [
            (window, self.target(window, answer))
            for (question, context), answer in zip(split.texts, split.labels, strict=True)
            for window in windows.of(question, context)
        ]

    def cut_note(self, texts: Sequence[Any], languages: Sequence[str], tokenizer: Any, seq_len: int) -> str:
        """Questions that are cut; contexts are read in windows and lose nothing."""
        windows = Windows(tokenizer, seq_len)
        cut = sum(windows.cuts(question) for question, _ in texts)
        return (
            f"the questions of {part_of(cut, len(texts))} test rows are cut at {windows.longest} tokens" if cut else ""
        )

    def target(self, encoding: Any, label: Any) -> np.ndarray:
        """First and last token of the answer, (2,); 0 and 0, the first special token, if the window lacks a part of it."""
        start, end = label.start, label.start + len(label.texts[0])
        first = last = 0
        for index, ((begin, stop), part) in enumerate(zip(encoding.offsets, encoding.sequence_ids, strict=True)):
            if part == 1 and begin <= start < stop:
                first = index
            if part == 1 and begin < end <= stop:
                last = index
        return np.asarray((first, last) if 0 < first <= last else (0, 0))

    def head_settings(self, labels: Sequence[str]) -> dict[str, Any]:
        return {}

    def loss(self, output: Any, targets: Any) -> Any:
        """Mean of the cross-entropies of the first and last token: logits (B, T) each, targets (B, 2)."""
        import torch

        ends = (output.start_logits, output.end_logits)
        losses = [torch.nn.functional.cross_entropy(one.float(), targets[:, index]) for index, one in enumerate(ends)]
        return torch.stack(losses).mean()

    def predict(self, runs: Runs, texts: Sequence[Any], batch_tokens: int = BATCH_TOKENS) -> list[str]:
        return [answer.text for answer in Answerer(runs).answers(texts, batch_tokens=batch_tokens)]

    def truth(self, labels: Sequence[Answers]) -> list[tuple[str, ...]]:
        return [answers.texts for answers in labels]

    def features(self) -> dict[str, Any]:
        from datasets import Sequence as Many
        from datasets import Value

        return {"predictions": Value("string"), "references": Many(Value("string"))}

    def scores(self, truth: Any, predicted: Any, labels: Sequence[str], positive: int | None) -> dict[str, float]:
        """exact_match and answer_f1, as SQuAD counts them."""
        return answer_scores(truth, predicted)
