"""Checkpoints: exact round trips, damaged files, number of kept checkpoints."""

from pathlib import Path

import pytest
import torch
from torch import nn

from kdnas.distill.checkpoint import (
    FOLDER,
    Position,
    load_checkpoint,
    moments_for,
    remove_checkpoints,
    rewind_history,
    save_checkpoint,
)
from kdnas.distill.loop import make_optimizer
from kdnas.store.json_files import append_jsonl, read_jsonl


def module(seed: int) -> tuple[nn.Module, torch.optim.AdamW]:
    """A small module whose second layer never gets a gradient."""
    torch.manual_seed(seed)
    net = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])
    return net, make_optimizer(net, 0.1)


def step(net: nn.Module, optimizer: torch.optim.AdamW) -> None:
    net[0](torch.randn(4, 3)).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def trained(folder: Path, saved_steps: int, more_steps: int = 0) -> nn.Module:
    """Train, with a checkpoint after each of the first `saved_steps` steps."""
    net, optimizer = module(0)
    position = Position()
    for number in range(saved_steps + more_steps):
        step(net, optimizer)
        if number < saved_steps:
            position.advance(0, number + 1, 10, 0.1)
            save_checkpoint(folder, net, optimizer, position)
    return net


def test_resumed_run_is_bit_identical(tmp_path: Path) -> None:
    expected = trained(tmp_path, 3, more_steps=4).state_dict()
    net, optimizer = module(9)
    position = load_checkpoint(tmp_path, net, optimizer)
    assert position == Position(step=3, index=3, tokens=30, seconds=pytest.approx(0.3))
    for _ in range(4):
        step(net, optimizer)
    assert all(torch.equal(value, expected[name]) for name, value in net.state_dict().items())


def test_the_step_count_of_a_fused_optimizer_is_on_the_parameters_device() -> None:
    state = {"step": torch.tensor(3.0), "exp_avg": torch.zeros(2)}
    elsewhere = torch.empty(2, device="meta")  # stands for a GPU
    fused, plain = (moments_for(elsewhere, state, fused) for fused in (True, False))
    assert (fused["step"].device.type, fused["exp_avg"].device.type) == ("meta", "meta")
    assert (plain["step"].device.type, plain["exp_avg"].device.type) == ("cpu", "meta")


def test_the_random_state_of_a_gpu_is_saved_and_restored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    restored: list[torch.Tensor] = []
    kept = torch.arange(16, dtype=torch.uint8)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda: kept)
    monkeypatch.setattr(torch.cuda, "set_rng_state", restored.append)
    trained(tmp_path, 1)
    load_checkpoint(tmp_path, *module(9))
    assert torch.equal(restored[0], kept)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_resumed_run_on_a_gpu_is_bit_identical(tmp_path: Path) -> None:
    def on_gpu(seed: int) -> tuple[nn.Module, torch.optim.AdamW]:
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5)).cuda()
        return net, make_optimizer(net, 0.1)

    def update(net: nn.Module, optimizer: torch.optim.AdamW) -> None:
        net(torch.ones(4, 3, device="cuda")).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    net, optimizer = on_gpu(0)
    position = Position()
    for number in range(6):
        update(net, optimizer)
        if number == 2:
            position.advance(0, 3, 10, 0.1)
            save_checkpoint(tmp_path, net, optimizer, position)
    other, again = on_gpu(9)
    load_checkpoint(tmp_path, other, again)
    for _ in range(3):
        update(other, again)
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in other.state_dict().items())


def test_only_the_last_two_checkpoints_are_kept(tmp_path: Path) -> None:
    trained(tmp_path, 4)
    assert sorted(path.name for path in (tmp_path / FOLDER).iterdir()) == ["step-000000003", "step-000000004"]
    remove_checkpoints(tmp_path)
    assert not (tmp_path / FOLDER).exists()
    remove_checkpoints(tmp_path)


@pytest.mark.parametrize("damage", ["weights", "truncated", "position", "missing"])
def test_damaged_newest_checkpoint_falls_back_to_the_previous_one(
    tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(tmp_path, 3)
    newest = tmp_path / FOLDER / "step-000000003"
    weights = newest / "state.safetensors"
    data = bytearray(weights.read_bytes())
    if damage == "weights":
        data[-1] ^= 1
        weights.write_bytes(data)
    elif damage == "truncated":
        weights.write_bytes(data[: len(data) // 2])
    elif damage == "position":
        file = newest / "position.json"
        file.write_text(file.read_text().replace('"step": 3', '"step": 4'))
    else:
        weights.unlink()
    net, optimizer = module(1)
    position = load_checkpoint(tmp_path, net, optimizer)
    assert position is not None
    assert position.step == 2
    assert "damaged" in capsys.readouterr().err
    assert not newest.exists()


def test_load_returns_none_without_a_valid_checkpoint(tmp_path: Path) -> None:
    net, optimizer = module(0)
    assert load_checkpoint(tmp_path, net, optimizer) is None
    trained(tmp_path, 2)
    for file in (tmp_path / FOLDER).rglob("*.safetensors"):
        file.write_bytes(b"")
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert load_checkpoint(tmp_path, net, optimizer) is None
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_incomplete_checkpoint_is_ignored(tmp_path: Path) -> None:
    trained(tmp_path, 1)
    writing = tmp_path / FOLDER / "writing"
    writing.mkdir()
    (writing / "state.safetensors").write_bytes(b"half")
    net, optimizer = module(0)
    position = load_checkpoint(tmp_path, net, optimizer)
    assert position is not None
    assert position.step == 1


def test_rewinding_drops_the_rows_of_repeated_steps(tmp_path: Path) -> None:
    log = tmp_path / "history.jsonl"
    for number in range(1, 6):
        append_jsonl(log, {"step": number})
    with log.open("a") as file:
        file.write('{"step": 6')
    assert [row["step"] for row in rewind_history(log, 3)] == [1, 2, 3]
    append_jsonl(log, {"step": 4})
    assert [row["step"] for row in read_jsonl(log)] == [1, 2, 3, 4]
    assert rewind_history(tmp_path / "none.jsonl", 3) == []
