"""The class of each word of a text."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kdnas.evaluation.kinds.base import TaskKind, class_names, part_of
from kdnas.export.scores import entity_scores
from kdnas.export.session import BATCH_TOKENS
from kdnas.export.spans import Runs, word_labels

IGNORED = -100  # target of a token that the loss ignores


class Words(TaskKind):
    """Labels are lists of class numbers; predictions have a class for each word, or None for words without tokens.

    Words at the end that are cut off have no prediction; their entities count as missed.
    """

    name = "words"
    head = "AutoModelForTokenClassification"
    export_task = "token-classification"
    score_names = ("entity_f1", "entity_precision", "entity_recall")
    splits_words = True

    def read_input(self, values: Sequence[Any]) -> list[str]:
        return [str(word) for word in values[0]]

    def read_label(
        self, value: Any, labels: Sequence[str], numbers: Mapping[str, int], otherwise: int | None
    ) -> list[int]:
        tags = [int(numbers.get(str(tag), tag)) for tag in value]
        if unknown := [tag for tag in tags if not 0 <= tag < len(labels)]:
            raise ValueError(f"has tag {unknown[0]}; allowed are 0 to {len(labels) - 1}")
        return tags

    def cut_note(self, texts: Sequence[Any], languages: Sequence[str], tokenizer: Any, seq_len: int) -> str:
        """Rows and words that are cut off, and the language that loses the largest fraction of its words."""
        rows, lost, words = 0, Counter[str](), Counter[str]()
        for index, (text, one) in enumerate(zip(texts, self.encodings(texts, tokenizer), strict=True)):
            language = languages[index] if languages else ""
            gone = len({word for part in one.overflowing for word in part.word_ids} - {None, *one.word_ids})
            rows += gone > 0
            lost[language] += gone
            words[language] += len(text)
        if not rows:
            return ""
        most = max(lost, key=lambda language: lost[language] / max(words[language], 1))
        worst = f", most in {most} ({part_of(lost[most], words[most])})" if len(words) > 1 else ""
        return (
            f"{part_of(rows, len(texts))} test rows are cut at {seq_len} tokens and lose {part_of(lost.total(), words.total())} "
            f"words{worst}; entities in these words count as missed"
        )

    def target(self, encoding: Any, label: Any) -> np.ndarray:
        """The class of each word at its first token, (T,); `IGNORED` at all other tokens."""
        targets = np.full(len(encoding.ids), IGNORED, dtype=np.int64)
        seen = None
        for index, word in enumerate(encoding.word_ids):
            if word is not None and word != seen:
                targets[index] = label[word]
            seen = word
        return targets

    def stack(self, targets: Sequence[np.ndarray], width: int) -> Any:
        import torch

        result = torch.full((len(targets), width), IGNORED)
        for index, row in enumerate(targets):
            result[index, : len(row)] = torch.from_numpy(row)
        return result

    def head_settings(self, labels: Sequence[str]) -> dict[str, Any]:
        return class_names(labels)

    def loss(self, output: Any, targets: Any) -> Any:
        """Cross-entropy of logits (B, T, C) and classes (B, T), over the tokens that have one."""
        import torch

        logits = output.logits.float().transpose(1, 2)
        return torch.nn.functional.cross_entropy(logits, targets, ignore_index=IGNORED)

    def predict(self, runs: Runs, texts: Sequence[Any], batch_tokens: int = BATCH_TOKENS) -> list[list[int | None]]:
        return word_labels(runs, texts, batch_tokens)

    def features(self) -> dict[str, Any]:
        from datasets import Sequence as Many
        from datasets import Value

        return {"predictions": Many(Value("int64")), "references": Many(Value("int64"))}

    def scores(self, truth: Any, predicted: Any, labels: Sequence[str], positive: int | None) -> dict[str, float]:
        """entity_f1, entity_precision and entity_recall, as seqeval counts them."""
        return entity_scores(truth, predicted, labels)
