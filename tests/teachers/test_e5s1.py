"""The E5S1 file: values of the blocks, and files that are not whole."""

import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from kdnas.errors import KdnasError
from kdnas.models.packaged import PACKAGED
from kdnas.models.teacher import load_encoder, load_tokenizer
from kdnas.teachers.e5_folder import write_e5_folder
from kdnas.teachers.e5s1 import BLOCKS, E5S1, dequantised

from .package_fixture import CHARACTERS, E5, HIDDEN, LAYERS, PIECES, ROWS, SCORES, e5s1, q4_0, tiny_e5, tiny_weights


def test_block_by_hand() -> None:
    """One block: scale 0.5, weight i is the low nibble of byte i, weight i + 16 its high nibble."""
    block = struct.pack("<e", 0.5) + bytes([0xF0, 0x18, *[0x88] * 14])
    (values,) = dequantised(np.frombuffer(block, BLOCKS))
    assert values[[0, 1, 16, 17]].tolist() == [-4.0, 0.0, 3.5, -3.5]
    assert not values[2:16].any()
    assert not values[18:].any()


def test_blocks_of_random_nibbles() -> None:
    rng = np.random.default_rng(0)
    nibbles, scales = rng.integers(0, 16, (50, 32)), rng.normal(size=50).astype(np.float16)
    found = dequantised(np.frombuffer(q4_0(nibbles, scales), BLOCKS))
    assert found.dtype == np.float32
    assert np.array_equal(found, (nibbles - 8) * scales.astype(np.float32)[:, None])


def test_content_of_a_file() -> None:
    values, stored = tiny_weights()
    file = E5S1(e5s1(stored), "model.bin")
    assert (file.sizes.hidden, file.sizes.layers, file.sizes.rows, file.epsilon) == (HIDDEN, LAYERS, ROWS, 1e-12)
    vocabulary = file.vocabulary
    assert (vocabulary.bos, vocabulary.pad, vocabulary.eos, vocabulary.unk) == (0, 1, 2, 3)
    assert vocabulary.pieces == PIECES
    assert vocabulary.scores.tolist() == SCORES
    assert file.characters == CHARACTERS
    for name, expected in values.items():
        assert np.array_equal(file.weight(name, *expected.shape), expected), name
    with pytest.raises(KdnasError, match=r"model.bin: .*tensor 'emb.word' has 736 values, not 2 x 3"):
        file.weight("emb.word", 2, 3)
    with pytest.raises(KdnasError, match=r"no tensor 'l9\.q\.w'"):
        file.weight("l9.q.w", 1)


def test_every_shorter_file_is_refused() -> None:
    whole = e5s1(tiny_weights()[1])
    for size in [*range(900), len(whole) // 2, len(whole) - 1]:
        with pytest.raises(KdnasError, match=r"not a whole E5S1 file"):
            E5S1(whole[:size], "model.bin")


@pytest.mark.parametrize(
    ("at", "new", "message"),
    [
        (0, b"GGUF", "does not begin with 'E5S1'"),
        (4, struct.pack("<I", 2), "version 2"),
        (40, struct.pack("<i", 64), "blocks of 64 values"),
        (44, struct.pack("<i", -5), "it ends after"),
        (48, struct.pack("<i", 10**6), "special tokens 1000000"),
        (72, struct.pack("<I", 7), "offsets of the pieces"),
    ],
)
def test_contradictions_are_refused(at: int, new: bytes, message: str) -> None:
    whole = e5s1(tiny_weights()[1])
    with pytest.raises(KdnasError, match=message):
        E5S1(whole[:at] + new + whole[at + len(new) :], "model.bin")


def test_tensor_of_another_size_is_refused() -> None:
    stored = tiny_weights()[1]
    stored["emb.pos"] = (1, *stored["emb.pos"][1:])
    with pytest.raises(KdnasError, match=r"tensor 'emb.pos': 5120 bytes for 1280 values of kind 1"):
        E5S1(e5s1(stored), "model.bin")


def test_other_special_tokens_are_refused(tmp_path: Path) -> None:
    payload = tmp_path / "payload"
    payload.write_bytes(e5s1(tiny_weights()[1], ["<pad>", "<s>", *PIECES[2:]]))
    with pytest.raises(KdnasError, match="XLM-R's layout has <s>, <pad>, </s>, <unk> first and <mask> last"):
        write_e5_folder(payload, tiny_e5(tmp_path, PACKAGED[E5]), tmp_path)


def test_written_folder_computes_with_the_values_of_the_file(tmp_path: Path) -> None:
    """A stock BertModel with the same values, set by hand through its modules, gives the same states."""
    from transformers import BertConfig, BertModel

    values, stored = tiny_weights()
    payload, folder = tmp_path / "payload", tmp_path / "model"
    payload.write_bytes(e5s1(stored))
    folder.mkdir()
    write_e5_folder(payload, tiny_e5(tmp_path, PACKAGED[E5]), folder)
    shape = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 32, "intermediate_size": 64}
    config = BertConfig(vocab_size=ROWS, max_position_embeddings=40, pad_token_id=1, **shape)
    model = BertModel(config, add_pooling_layer=False).eval()
    given = {name: torch.from_numpy(value.copy()) for name, value in values.items()}
    with torch.no_grad():
        tables = model.embeddings
        tables.word_embeddings.weight.copy_(given["emb.word"])
        tables.position_embeddings.weight.copy_(given["emb.pos"])
        tables.token_type_embeddings.weight.copy_(given["emb.type"])
        parts = {"emb.ln": tables.LayerNorm}
        for number, layer in enumerate(model.encoder.layer):
            attention = layer.attention
            names = ("q", "k", "v", "ao", "aln", "fi", "fo", "oln")
            modules = (attention.self.query, attention.self.key, attention.self.value, attention.output.dense)
            modules += (
                attention.output.LayerNorm,
                layer.intermediate.dense,
                layer.output.dense,
                layer.output.LayerNorm,
            )
            parts |= {f"l{number}.{name}": module for name, module in zip(names, modules, strict=True)}
        for name, module in parts.items():
            module.weight.copy_(given[f"{name}.w"])
            module.bias.copy_(given[f"{name}.b"])
    tokenizer = load_tokenizer(folder)
    batch = tokenizer(["a b", "c the \u00bd"], padding=True, return_tensors="pt")
    assert batch["input_ids"].eq(1).any()
    with torch.inference_mode():
        ours, theirs = load_encoder(folder)(**batch).last_hidden_state, model(**batch).last_hidden_state
    assert torch.equal(ours, theirs)
