"""Pretraining of a teacher: the tokenizer, the loss against transformers', and runs that are killed and resumed."""

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForMaskedLM, BertConfig, PretrainedConfig, XLMRobertaConfig, pipeline

from kdnas.distill.checkpoint import FOLDER
from kdnas.errors import UsageError
from kdnas.models.teacher import BUILTIN, Teacher, load_encoder, load_tokenizer, resolve_teacher
from kdnas.pretrain.masked_lm import MaskedLanguageModel
from kdnas.pretrain.options import PretrainOptions
from kdnas.pretrain.run import pretrain
from kdnas.pretrain.stacking import stack
from kdnas.pretrain.vocabulary import balanced_counts, build_tokenizer, chosen_rows
from kdnas.store.artifact import Artifact
from kdnas.store.digest import file_sha256
from kdnas.store.json_files import read_jsonl
from kdnas.text.readers import TextOptions, TextRow

SHAPE = {
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "hidden_size": 32,
    "intermediate_size": 64,
    "vocab_size": 500,
}
CONFIGS = (
    BertConfig(**SHAPE, max_position_embeddings=64, pad_token_id=0),
    XLMRobertaConfig(**SHAPE, max_position_embeddings=66, type_vocab_size=1, pad_token_id=1, layer_norm_eps=1e-5),
)
MASK = 499
SPECIAL = [0, 1, 2, 3, MASK]


@pytest.fixture(params=CONFIGS, ids=lambda config: config.model_type)
def objective(request: pytest.FixtureRequest) -> MaskedLanguageModel:
    torch.manual_seed(0)
    model = AutoModelForMaskedLM.from_config(request.param).eval()
    return MaskedLanguageModel(model, MASK, SPECIAL, 0.15)


def batch(rows: int, seq_len: int, pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of different lengths, each between two special tokens."""
    ids = torch.randint(4, 499, (rows, seq_len), generator=torch.Generator().manual_seed(1))
    mask = torch.zeros_like(ids)
    for row in range(rows):
        length = seq_len - row % 5
        mask[row, :length] = 1
        ids[row, 0], ids[row, length - 1], ids[row, length:] = 0, 2, pad_id
    return ids, mask


def test_loss_and_gradients_equal_those_of_transformers(objective: MaskedLanguageModel) -> None:
    ids, mask = batch(6, 20, objective.student.config.pad_token_id)
    objective.eval()
    loss = objective(ids, mask)
    loss.mean().backward()
    ours = {name: value.grad.clone() for name, value in objective.student.named_parameters() if value.grad is not None}
    objective.zero_grad()
    corrupted, predicted = objective.corrupt(ids, mask)
    naive = objective.student(input_ids=corrupted, attention_mask=mask, labels=ids.masked_fill(~predicted, -100)).loss
    naive.backward()
    assert loss.shape == (1,)
    assert loss.item() == pytest.approx(naive.item(), rel=1e-6)
    for name, value in objective.student.named_parameters():
        if value.grad is not None:  # the embedding table gets gradients from lookups and from the tied head
            torch.testing.assert_close(ours[name], value.grad, rtol=1e-4, atol=1e-6)


def test_fractions_of_predicted_masked_and_unchanged_tokens(objective: MaskedLanguageModel) -> None:
    pad_id = objective.student.config.pad_token_id
    ids, mask = batch(400, 60, pad_id)
    objective.train()
    corrupted, predicted = objective.corrupt(ids, mask)
    plain = mask.bool() & ~torch.isin(ids, torch.tensor(SPECIAL))
    assert not predicted[~plain].any()
    assert torch.equal(corrupted[~predicted], ids[~predicted])
    assert float(predicted.sum() / plain.sum()) == pytest.approx(0.15, abs=0.01)
    assert float((corrupted[predicted] == MASK).float().mean()) == pytest.approx(0.8, abs=0.03)
    assert float((corrupted[predicted] == ids[predicted]).float().mean()) == pytest.approx(0.1, abs=0.03)
    assert not torch.equal(objective.corrupt(ids, mask)[0], corrupted)
    objective.eval()
    assert torch.equal(objective.corrupt(ids, mask)[0], objective.corrupt(ids, mask)[0])


def test_loss_of_a_batch_without_tokens_to_predict_is_zero(objective: MaskedLanguageModel) -> None:
    ids, mask = torch.tensor([[0, 2]]), torch.ones(1, 2, dtype=torch.long)
    loss = objective(ids, mask)
    loss.mean().backward()
    assert loss.item() == 0.0


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=30), st.integers(1, 3000), st.floats(0, 1))
def test_numbers_of_sentences_are_balanced_between_languages(counts: list[int], total: int, power: float) -> None:
    there = Counter({str(number): count for number, count in enumerate(counts)})
    wanted = balanced_counts(there, total, power)
    assert all(0 <= wanted[language] <= there[language] for language in there)
    assert sum(wanted.values()) <= total + len(counts)
    ordered = sorted(there, key=lambda language: there[language])
    assert [wanted[language] for language in ordered] == sorted(wanted.values())


def test_balanced_counts_equal_hand_computed_values() -> None:
    counts = Counter({"en": 10_000, "sw": 100})
    assert balanced_counts(counts, 1100, 0.5) == {"en": 1000, "sw": 100}
    assert balanced_counts(counts, 1010, None) == {"en": 1000, "sw": 10}
    assert balanced_counts(counts, 1000, 0.0) == {"en": 500, "sw": 100}


def test_the_wanted_number_of_rows_is_chosen_from_each_language() -> None:
    rows = [TextRow(str(number), "", "", "en" if number % 4 else "sw") for number in range(400)]
    counts = Counter(row.language for row in rows)
    chosen = list(chosen_rows(rows, counts, {"en": 50, "sw": 100}, np.random.default_rng(0)))
    assert Counter(row.language for row in chosen) == {"en": 50, "sw": 100}
    assert chosen == [row for row in rows if row in set(chosen)]
    assert chosen[-1].text > "3"  # not only the first rows


def write_texts(path: Path, count: int) -> Path:
    """Sentences of made-up words, with enough different pieces for a small vocabulary."""
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdefghijklmnop"), int(rng.integers(2, 8)))) for _ in range(800)]
    lines = [
        json.dumps({"text": " ".join(rng.choice(words, int(rng.integers(3, 12)))), "lang": "ab"[number % 10 == 0]})
        for number in range(count)
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


OPTIONS = {
    "vocabulary": 400, "tokenizer_sentences": 1000, "steps": 12, "batch_tokens": 512, "validations": 2, "log_every": 3,
    "validation_sentences": 50, "checkpoint_seconds": 0, "dropout": True,
}  # fmt: skip


def command(home: Path, corpus: Path) -> list[str]:
    options = [word for name, value in OPTIONS.items() for word in (f"--{name}", str(value).lower())]
    start = [sys.executable, "-m", "kdnas", "pretrain", "--arch", "2,2,32,64,gelu", "--corpus", str(corpus)]
    return [*start, *options, "--home", str(home)]


@pytest.mark.slow
def test_killed_and_resumed_run_gives_the_same_model(tmp_path: Path) -> None:
    corpus = write_texts(tmp_path / "texts.jsonl", 2000)
    first = subprocess.Popen(command(tmp_path / "killed", corpus), stderr=subprocess.DEVNULL)
    until = time.monotonic() + 180
    while not list((tmp_path / "killed").glob(f"pretrain/*.partial/{FOLDER}/step-*[3-9]")):
        assert first.poll() is None, "finished before it could be killed"
        assert time.monotonic() < until
        time.sleep(0.005)
    first.send_signal(signal.SIGKILL)
    first.wait()
    printed = [
        subprocess.run(command(tmp_path / home, corpus), check=True, capture_output=True, text=True).stdout.strip()
        for home in ("killed", "whole")
    ]
    killed, whole = (Artifact.load(Path(line), "pretrain") for line in printed)
    assert killed.manifest["attempts"] == 2
    rows = [[{**row, "seconds": 0} for row in read_jsonl(one.path / "history.jsonl")] for one in (killed, whole)]
    assert rows[0] == rows[1]
    assert file_sha256(killed.path / "teacher/model.safetensors") == file_sha256(
        whole.path / "teacher/model.safetensors"
    )
    assert file_sha256(killed.path / "teacher/tokenizer.json") == file_sha256(whole.path / "teacher/tokenizer.json")

    made = resolve_teacher(printed[0])  # as other commands do
    assert made.path == killed.path / "teacher"
    assert (made.layers, made.hidden, made.config["vocab_size"]) == (2, 32, OPTIONS["vocabulary"])
    tokens = load_tokenizer(made.path)
    assert len(tokens) == OPTIONS["vocabulary"]
    assert tokens.convert_ids_to_tokens([0, 1, 2, 3]) == ["<s>", "<pad>", "</s>", "<unk>"]
    states = load_encoder(made.path)(**tokens("abc", return_tensors="pt")).last_hidden_state
    assert states.shape[-1] == 32
    filled = pipeline("fill-mask", str(made.path))("ab <mask> cd")
    assert len(filled) == 5


@pytest.mark.slow
def test_model_has_the_family_of_the_given_tokenizer(tmp_path: Path, teacher: Teacher) -> None:
    corpus = write_texts(tmp_path / "texts.jsonl", 600)
    options = PretrainOptions(**{**OPTIONS, "steps": 2})
    pretrain(options, "2,2,32,64,gelu", str(corpus), tokenizer=BUILTIN, home=tmp_path)
    (path,) = (tmp_path / "pretrain").glob("L2-*")
    made = resolve_teacher(str(path))
    assert made.config["model_type"] == "bert"
    assert file_sha256(made.path / "tokenizer.json") == file_sha256(teacher.path / "tokenizer.json")
    assert Artifact.load(path).results["perplexity"] > 1


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.model_type)
def test_stacked_model_repeats_the_layers_of_a_shallow_one(tmp_path: Path, config: PretrainedConfig) -> None:
    torch.manual_seed(0)
    shallow = AutoModelForMaskedLM.from_config(config).eval()
    shallow.save_pretrained(tmp_path)
    deep = AutoModelForMaskedLM.from_config(type(config)(**{**config.to_dict(), "num_hidden_layers": 5})).eval()
    stack(deep, tmp_path)
    ours, theirs = deep.state_dict(), shallow.state_dict()
    for name, value in ours.items():
        words = name.split(".")
        if "layer" in words:
            words[words.index("layer") + 1] = str(int(words[words.index("layer") + 1]) % 2)
        assert torch.equal(value, theirs[".".join(words)]), name
    assert (
        len({value.data_ptr() for name, value in ours.items() if name.endswith("query.weight")}) == 5
    )  # none is shared


@pytest.mark.slow
def test_deep_model_starts_from_a_shallow_one(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    corpus = str(write_texts(tmp_path / "texts.jsonl", 2000))
    options = PretrainOptions(**{**OPTIONS, "steps": 60, "dropout": False, "peak_lr": 3e-3})
    pretrain(options, "2,2,32,64,gelu", corpus, home=tmp_path)
    (shallow,) = (tmp_path / "pretrain").glob("L2-*")
    pretrain(replace(options, steps=4), "4,2,32,64,gelu", corpus, start=str(shallow), home=tmp_path)
    (deep,) = (tmp_path / "pretrain").glob("L4-*")
    losses = [row["validation_loss"] for row in read_jsonl(deep / "history.jsonl") if row["kind"] == "validation"]
    random = next(row["validation_loss"] for row in read_jsonl(shallow / "history.jsonl"))
    assert max(losses) < random - 0.1
    assert resolve_teacher(str(deep)).layers == 4
    assert "--start" not in capfd.readouterr().err
    pretrain(replace(options, steps=1), "7,2,32,64,gelu", corpus, home=tmp_path)
    assert "train 3 layers first with --arch 3,2,32,64,gelu" in capfd.readouterr().err

    for arch in ("1,2,32,64,gelu", "4,2,32,64,relu", "4,2,16,64,gelu"):
        with pytest.raises(UsageError, match=r"its shape is 2,2,32,64,gelu, .* give --arch 4,2,32,64,gelu"):
            pretrain(options, arch, corpus, start=str(shallow), home=tmp_path)
    with pytest.raises(UsageError, match="both given"):
        pretrain(options, "4,2,32,64,gelu", corpus, tokenizer=BUILTIN, start=str(shallow), home=tmp_path)


@pytest.mark.slow
def test_text_in_many_scripts_has_few_unknown_tokens(tmp_path: Path, shared_data: Path) -> None:
    text = TextOptions(languages=("am", "ar", "bn", "el", "hi", "ka", "ko", "ru", "th", "zh"))
    options = PretrainOptions(vocabulary=6000, tokenizer_sentences=3000, language_power=0.3)
    found = build_tokenizer(tmp_path, str(shared_data / "text" / "ntrex128.jsonl.gz"), text, options)
    tokens = load_tokenizer(found.path)
    for sentence in ("እንኳን ደህና መጡ", "Привет, как дела?", "오늘 날씨가 좋다", "καλημέρα κόσμε", "สวัสดีชาวโลก"):
        ids = tokens(sentence)["input_ids"]
        assert (ids[0], ids[-1]) == (0, 2)
        assert ids.count(tokens.unk_token_id) <= 0.1 * len(ids), sentence


def test_too_little_text_for_the_vocabulary_is_reported(tmp_path: Path) -> None:
    corpus = write_texts(tmp_path / "texts.jsonl", 300)
    with pytest.raises(UsageError, match=r"no vocabulary of 30000 tokens .* give another --vocabulary"):
        build_tokenizer(tmp_path, str(corpus), TextOptions(), PretrainOptions(vocabulary=30_000))


def test_tokenizer_without_a_mask_token_is_rejected(tmp_path: Path, teacher: Teacher) -> None:
    folder = tmp_path / "no-mask"
    folder.mkdir()
    description = json.loads((teacher.path / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(description))
    (folder / "config.json").write_text((teacher.path / "config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    with pytest.raises(UsageError, match="it has no mask token"):
        pretrain(PretrainOptions(), "2,2,32,64,gelu", "builtin:pydocs", tokenizer=str(folder), home=tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vocabulary": 10}, "vocabulary is 10; allowed are 300 to 1000000"),
        ({"tokenizer_sentences": 5}, "at least 100 are needed"),
        ({"mask_fraction": 0.0}, "mask_fraction is 0.0; allowed is between 0 and 1"),
        ({"language_power": 2.0}, "language_power is 2.0"),
    ],
)
def test_invalid_options_are_reported(options: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        PretrainOptions(**options)  # type: ignore[arg-type]
