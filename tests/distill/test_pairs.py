"""Pairs as the tokenizer joins them, and batches that are the same from any place on, whoever makes them."""

import json
import subprocess
import sys
import textwrap
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import BertConfig, XLMRobertaConfig

from kdnas.distill.batches import TrainBatches
from kdnas.distill.options import LoopOptions
from kdnas.distill.pairs import pair_batch, segments
from kdnas.errors import UsageError
from kdnas.models.teacher import Teacher
from kdnas.text.corpus import Corpus
from kdnas.text.sentences import Sentences


def test_a_pair_is_what_the_tokenizer_makes_of_two_texts(corpus: Corpus, teacher: Teacher) -> None:
    tokenizer = Tokenizer.from_file(str(teacher.path / "tokenizer.json"))
    tokenizer.no_padding()
    texts, indices = corpus.train.texts, np.array([3, 11])
    ids, mask = pair_batch(corpus.train, indices, corpus.pad_id, BertConfig(), np.random.default_rng(0))
    expected = [tokenizer.encode(texts[one], texts[other]) for one, other in ((3, 11), (11, 3))]
    found = next(one for one in expected if one.ids == ids[0][mask[0] == 1].tolist())
    kinds = segments(torch.from_numpy(ids), torch.from_numpy(mask), BertConfig())
    assert kinds is not None
    assert kinds[0][mask[0] == 1].tolist() == found.type_ids
    assert not kinds[0][mask[0] == 0].any()


def test_every_other_pair_begins_alike(corpus: Corpus) -> None:
    ids, mask = pair_batch(corpus.train, np.arange(64), 0, BertConfig(), np.random.default_rng(0))
    kinds = segments(torch.from_numpy(ids), torch.from_numpy(mask), BertConfig())
    assert kinds is not None
    alike = []
    for row, kind, real in zip(ids, kinds.numpy(), mask, strict=True):
        first, second = row[(kind == 0) & (real == 1)][1:-1], row[kind == 1][:-1]
        alike.append(len(first) > 0 and len(second) > 0 and first[0] == second[0])
    assert np.mean(alike[1::2]) > 0.7
    assert np.mean(alike[::2]) < 0.3


def test_the_other_family_has_two_separators_and_one_type(corpus: Corpus) -> None:
    config = XLMRobertaConfig(type_vocab_size=1)
    ids, mask = pair_batch(corpus.train, np.array([3, 11]), 0, config, np.random.default_rng(0))
    separator = int(corpus.train[3][-1])
    row = ids[0][mask[0] == 1]
    places = np.flatnonzero(row == separator)
    assert len(places) == 3
    assert places[1] == places[0] + 1
    assert segments(torch.from_numpy(ids), torch.from_numpy(mask), config) is None


def test_pairs_end_at_the_positions(corpus: Corpus) -> None:
    config = BertConfig(max_position_embeddings=40)
    longest = np.argsort(corpus.train.lengths)[-20:-19].repeat(2)
    assert 2 * corpus.train.lengths[longest[0]] > 38
    ids, mask = pair_batch(corpus.train, longest[:1].repeat(5), 0, config, np.random.default_rng(0))
    assert mask.sum(1).max() == max(38, int(corpus.train.lengths[longest[0]]) + 1)
    assert len({int(row[real == 1][-1]) for row, real in zip(ids, mask, strict=True)}) == 1


def test_single_sentences_are_of_the_first_type(corpus: Corpus) -> None:
    ids, mask = corpus.train.batch(np.arange(9), corpus.pad_id)
    kinds = segments(torch.from_numpy(ids), torch.from_numpy(mask), BertConfig())
    assert kinds is not None
    assert not kinds.any()


def made(
    corpus: Corpus, start: tuple[int, int], number: int, **options: float
) -> list[tuple[int, int, list[list[int]]]]:
    settings = LoopOptions(batch_tokens=2048, **options)  # type: ignore[arg-type]
    batches = TrainBatches(corpus.train, corpus.pad_id, settings, BertConfig()).after(*start)
    return [(made.epoch, made.place, made.ids.tolist()) for made in islice(batches, number)]


def test_batches_are_the_same_from_any_place_on(corpus: Corpus) -> None:
    per_epoch = len(TrainBatches(corpus.train, corpus.pad_id, LoopOptions(batch_tokens=2048), BertConfig()).epoch(0))
    whole = made(corpus, (0, 0), per_epoch + 3, pair_share=0.5)
    assert made(corpus, (0, per_epoch - 4), 7, pair_share=0.5) == whole[per_epoch - 4 :]
    singles = made(corpus, (0, 0), per_epoch + 3, pair_share=0.0)
    changed = np.mean([one != other for one, other in zip(whole, singles, strict=True)])
    assert 0.25 < changed < 0.75


def test_data_workers_make_the_same_batches(corpus: Corpus) -> None:
    # In a process of its own, as `kdnas distill` is: in one that has run OpenVINO, torch's workers bring it down.
    script = """
        import json, sys
        from itertools import islice
        from pathlib import Path
        from transformers import BertConfig
        from kdnas.distill.batches import TrainBatches
        from kdnas.distill.options import LoopOptions
        from kdnas.text.sentences import Sentences
        if __name__ == "__main__":
            options = LoopOptions(batch_tokens=2048, pair_share=0.5, data_workers=int(sys.argv[2]))
            batches = TrainBatches(Sentences(Path(sys.argv[1]), "train"), 0, options, BertConfig()).after(0, 2)
            print(json.dumps([(made.epoch, made.place, made.ids.tolist()) for made in islice(batches, 7)]))
    """
    expected = [list(one) for one in made(corpus, (0, 2), 7, pair_share=0.5)]
    for workers in ("1", "2"):
        command = [sys.executable, "-c", textwrap.dedent(script), str(corpus.artifact.path), workers]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == expected


def test_making_batches_leaves_torch_s_random_state_alone(corpus: Corpus) -> None:
    before = torch.get_rng_state()
    made(corpus, (0, 0), 3)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "options", [{"language_power": 1.5}, {"pair_share": 1.5}, {"pair_share": -0.1}, {"data_workers": -1}]
)
def test_wrong_options_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        LoopOptions(**options)  # type: ignore[arg-type]


def test_a_batch_of_one_sentence_is_a_pair_with_itself(tmp_path: Path) -> None:
    np.save(tmp_path / "train.tokens.npy", np.array([1, 5, 6, 2, 1, 2], dtype=np.int32))
    np.save(tmp_path / "train.offsets.npy", np.array([0, 4, 6]))
    sentences = Sentences(tmp_path, "train")
    ids, mask = pair_batch(sentences, np.array([0]), 0, BertConfig(), np.random.default_rng(0))
    assert ids[mask == 1].tolist() == [1, 5, 6, 2, 5, 6, 2]
    ids, mask = pair_batch(sentences, np.array([1]), 0, BertConfig(), np.random.default_rng(0))
    assert ids[mask == 1].tolist() == [1, 2, 2]
