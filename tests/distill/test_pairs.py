"""Sentence pairs as the tokenizer joins them, and batches that are the same from any position and in any process."""

import json
import subprocess
import sys
import textwrap
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.processors import RobertaProcessing, TemplateProcessing

from kdnas.distill.batches import TrainBatches
from kdnas.distill.options import LoopOptions
from kdnas.distill.pairs import Pairs, pair_batch
from kdnas.errors import UsageError
from kdnas.models.teacher import Teacher
from kdnas.text.corpus import Corpus
from kdnas.text.joining import Joining, joining_of, read_joining
from kdnas.text.sentences import Sentences


@pytest.fixture(scope="module")
def pairs(tiny_teacher: Teacher) -> Pairs:
    """Pairs as the packaged tokenizer joins them, for a model with 512 positions."""
    return Pairs(read_joining(tiny_teacher.path), 512)


def tokenizer_of(tiny_teacher: Teacher, kind: str) -> Any:
    """The packaged tokenizer, optionally changed to join texts like RoBERTa's or MPNet's."""
    tokenizer = Tokenizer.from_file(str(tiny_teacher.path / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    start, end = ("[CLS]", tokenizer.token_to_id("[CLS]")), ("[SEP]", tokenizer.token_to_id("[SEP]"))
    if kind == "roberta":
        tokenizer.post_processor = RobertaProcessing(end, start)
    elif kind == "mpnet":
        tokenizer.post_processor = TemplateProcessing(
            single="[CLS]:0 $A:0 [SEP]:0",
            pair="[CLS]:0 $A:0 [SEP]:0 [SEP]:0 $B:1 [SEP]:1",
            special_tokens=[start, end],
        )
    return tokenizer


@pytest.mark.parametrize(
    ("kind", "separators", "types"), [("bert", 2, {0, 1}), ("roberta", 3, {0}), ("mpnet", 3, {0, 1})]
)
def test_pair_equals_the_encoding_of_two_texts_by_the_tokenizer(
    kind: str, separators: int, types: set[int], corpus: Corpus, tiny_teacher: Teacher
) -> None:
    tokenizer = tokenizer_of(tiny_teacher, kind)
    texts, indices = corpus.train.texts, np.array([3, 11])
    made = Pairs(joining_of(tokenizer), 512)
    ids, mask, kinds = pair_batch(corpus.train, indices, corpus.pad_id, made, np.random.default_rng(0))
    expected = [tokenizer.encode(texts[one], texts[other]) for one, other in ((3, 11), (11, 3))]
    found = next(one for one in expected if one.ids == ids[0][mask[0] == 1].tolist())
    assert kinds[0][mask[0] == 1].tolist() == found.type_ids
    assert not kinds[0][mask[0] == 0].any()
    assert found.ids.count(tokenizer.token_to_id("[SEP]")) == separators
    assert set(found.type_ids) == types


def test_second_text_of_every_other_pair_repeats_the_start_of_the_first(corpus: Corpus, pairs: Pairs) -> None:
    ids, mask, kinds = pair_batch(corpus.train, np.arange(64), 0, pairs, np.random.default_rng(0))
    alike = []
    for row, kind, real in zip(ids, kinds, mask, strict=True):
        first, second = row[(kind == 0) & (real == 1)][1:-1], row[kind == 1][:-1]
        alike.append(len(first) > 0 and len(second) > 0 and first[0] == second[0])
    assert np.mean(alike[1::2]) > 0.7
    assert np.mean(alike[::2]) < 0.3


def test_pairs_are_truncated_to_the_number_of_positions(corpus: Corpus, pairs: Pairs) -> None:
    longest = np.argsort(corpus.train.lengths)[-20:-19].repeat(2)
    assert 2 * corpus.train.lengths[longest[0]] > 40
    short = Pairs(pairs.joining, 40)
    ids, mask, _ = pair_batch(corpus.train, longest[:1].repeat(5), 0, short, np.random.default_rng(0))
    assert mask.sum(1).max() == max(40, int(corpus.train.lengths[longest[0]]) + 1)
    assert len({int(row[real == 1][-1]) for row, real in zip(ids, mask, strict=True)}) == 1


def test_tokenizer_without_special_tokens_joins_without_separators(tiny_teacher: Teacher) -> None:
    tokenizer = tokenizer_of(tiny_teacher, "bert")
    tokenizer.post_processor = TemplateProcessing(single="$A", pair="$A $B:1", special_tokens=[])
    joining = joining_of(tokenizer)
    assert (joining.before, joining.after, joining.added, joining.text_types) == (0, 0, 0, (0, 1))


def test_tokenizer_without_a_token_for_a_letter_is_rejected(tmp_path: Path) -> None:
    Tokenizer(BPE()).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UsageError, match="no token for 'a'"):
        read_joining(tmp_path)
    with pytest.raises(UsageError, match="cannot be read"):
        read_joining(tmp_path / "elsewhere")


def made(
    corpus: Corpus, pairs: Pairs, start: tuple[int, int], number: int, **options: float
) -> list[tuple[int, int, list[list[int]]]]:
    settings = LoopOptions(batch_tokens=2048, **options)  # type: ignore[arg-type]
    batches = TrainBatches(corpus.train, corpus.pad_id, settings, pairs).after(*start)
    return [(made.epoch, made.batch, made.ids.tolist()) for made in islice(batches, number)]


def test_batches_are_the_same_from_any_position(corpus: Corpus, pairs: Pairs) -> None:
    per_epoch = len(TrainBatches(corpus.train, corpus.pad_id, LoopOptions(batch_tokens=2048), None).epoch(0))
    whole = made(corpus, pairs, (0, 0), per_epoch + 3, pair_fraction=0.5)
    assert made(corpus, pairs, (0, per_epoch - 4), 7, pair_fraction=0.5) == whole[per_epoch - 4 :]
    singles = made(corpus, pairs, (0, 0), per_epoch + 3, pair_fraction=0.0)
    changed = np.mean([one != other for one, other in zip(whole, singles, strict=True)])
    assert 0.25 < changed < 0.75


@pytest.mark.slow
def test_data_workers_make_the_same_batches(corpus: Corpus, tiny_teacher: Teacher, pairs: Pairs) -> None:
    # In a separate process like `kdnas distill`, because torch's workers crash a process that has run OpenVINO.
    script = """
        import json, sys
        from itertools import islice
        from pathlib import Path
        from kdnas.distill.batches import TrainBatches
        from kdnas.distill.options import LoopOptions
        from kdnas.distill.pairs import Pairs
        from kdnas.text.joining import read_joining
        from kdnas.text.sentences import Sentences
        if __name__ == "__main__":
            options = LoopOptions(batch_tokens=2048, pair_fraction=0.5, data_workers=int(sys.argv[2]))
            pairs = Pairs(read_joining(Path(sys.argv[3])), 512)
            batches = TrainBatches(Sentences(Path(sys.argv[1]), "train"), 0, options, pairs).after(0, 2)
            print(json.dumps([(made.epoch, made.batch, made.ids.tolist()) for made in islice(batches, 7)]))
    """
    expected = [list(one) for one in made(corpus, pairs, (0, 2), 7, pair_fraction=0.5)]
    for workers in ("1", "2"):
        command = [
            sys.executable,
            "-c",
            textwrap.dedent(script),
            str(corpus.artifact.path),
            workers,
            str(tiny_teacher.path),
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == expected


def test_making_batches_does_not_change_the_random_state_of_torch(corpus: Corpus, pairs: Pairs) -> None:
    before = torch.get_rng_state()
    made(corpus, pairs, (0, 0), 3)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "options", [{"language_power": 1.5}, {"pair_fraction": 1.5}, {"pair_fraction": -0.1}, {"data_workers": -1}]
)
def test_invalid_options_are_rejected(options: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        LoopOptions(**options)  # type: ignore[arg-type]


def test_single_sentence_is_paired_with_itself(tmp_path: Path) -> None:
    np.save(tmp_path / "train.tokens.npy", np.array([1, 5, 6, 2, 1, 2], dtype=np.int32))
    np.save(tmp_path / "train.offsets.npy", np.array([0, 4, 6]))
    sentences = Sentences(tmp_path, "train")
    joining = Joining(1, 1, (1,), (2,), (2,), (0,), (0,), (1,), (0, 1))
    ids, mask, types = pair_batch(sentences, np.array([0]), 0, Pairs(joining, 512), np.random.default_rng(0))
    assert ids[mask == 1].tolist() == [1, 5, 6, 2, 5, 6, 2]
    assert types[mask == 1].tolist() == [0, 0, 0, 0, 1, 1, 1]
    ids, mask, _ = pair_batch(sentences, np.array([1]), 0, Pairs(joining, 512), np.random.default_rng(0))
    assert ids[mask == 1].tolist() == [1, 2, 2]
