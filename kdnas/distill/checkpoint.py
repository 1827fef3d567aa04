"""Checkpoints of the training loop: safetensors and JSON with hashes, written to a temporary folder and renamed.

The last two are kept.
"""

import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from kdnas.store.artifact import digest_of, file_sha256, fsync_folder, read_jsonl, write_json
from kdnas.store.progress import say

FOLDER = "checkpoints"
KEPT = 2


@dataclass
class Position:
    """The state of training after `step` updates.

    Args:
        step: updates done.
        epoch: pass over the corpus, from 0.
        index: index of the next batch in the epoch.
        tokens: real tokens seen.
        seconds: time spent in steps, over all attempts.
        rng: torch's random state after the last update.
    """

    step: int = 0
    epoch: int = 0
    index: int = 0
    tokens: int = 0
    seconds: float = 0.0
    rng: Tensor = field(default_factory=torch.get_rng_state, repr=False, compare=False)

    def advance(self, epoch: int, index: int, tokens: int, seconds: float) -> None:
        """Count one update."""
        self.step += 1
        self.epoch, self.index = epoch, index
        self.tokens += tokens
        self.seconds += seconds
        self.rng = torch.get_rng_state()

    def row(self) -> dict[str, Any]:
        """The columns of a training row."""
        return {"step": self.step, "tokens": self.tokens, "seconds": round(self.seconds, 3)}


def save_checkpoint(folder: Path, module: nn.Module, optimizer: torch.optim.Optimizer, position: Position) -> None:
    """Write a checkpoint durably; afterwards it and the one before it are on disk.

    Args:
        folder: working folder of the stage.
        module: module whose state is saved.
        optimizer: moments and step counts of the module's parameters.
        position: state of training.
    """
    root = folder / FOLDER
    root.mkdir(exist_ok=True)
    final = root / f"step-{position.step:09d}"
    if final.exists():  # this run wrote or checked it, because loading removes damaged checkpoints
        return
    writing = root / "writing"
    shutil.rmtree(writing, ignore_errors=True)
    writing.mkdir()
    tensors = {f"module/{name}": value.contiguous() for name, value in _state_of(module).items()}
    for name, parameter in module.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer/{name}/{key}"] = value
    tensors["rng"] = position.rng
    file = writing / "state.safetensors"
    save_file(tensors, file)
    with file.open("rb") as written:
        os.fsync(written.fileno())
    state = {key: value for key, value in vars(position).items() if key != "rng"}
    record = {"position": state, "sha256": file_sha256(file)}
    write_json(writing / "position.json", {**record, "digest": digest_of(record)})
    os.rename(writing, final)
    fsync_folder(root)
    for old in _checkpoints(folder)[KEPT:]:
        shutil.rmtree(old)


def load_checkpoint(folder: Path, module: nn.Module, optimizer: torch.optim.Optimizer) -> Position | None:
    """Restore module, optimizer and torch's random state from the newest valid checkpoint; None if there is none."""
    for path in _checkpoints(folder):
        record = _valid_record(path)
        if record is None:
            say(f"{path}: damaged checkpoint; resuming from the one before it")
            shutil.rmtree(path)
            continue
        tensors = load_file(path / "state.safetensors")
        state = {name.removeprefix("module/"): value for name, value in tensors.items() if name.startswith("module/")}
        with torch.no_grad():
            for name, value in _state_of(module).items():
                value.copy_(state[name])
        for name, parameter in module.named_parameters():
            prefix = f"optimizer/{name}/"
            state = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
            if state:
                optimizer.state[parameter] = {
                    key: value.to(parameter.device) if key != "step" else value for key, value in state.items()
                }
        torch.set_rng_state(tensors["rng"])
        return Position(**record["position"], rng=tensors["rng"])
    return None


def _state_of(module: nn.Module) -> dict[str, Tensor]:
    """The module's tensors by name. Of tied tensors, such as embeddings shared with a head, only the first is included."""
    names: dict[int, str] = {}
    for name, value in module.state_dict(keep_vars=True).items():
        names.setdefault(id(value), name)
    state = module.state_dict()
    return {name: state[name] for name in names.values()}


def remove_checkpoints(folder: Path) -> None:
    """Delete all checkpoints of a finished stage."""
    shutil.rmtree(folder / FOLDER, ignore_errors=True)


def rewind_history(path: Path, step: int) -> list[dict[str, Any]]:
    """Drop the rows after `step`, which training repeats, and return the others."""
    rows = read_jsonl(path)
    kept = [row for row in rows if row["step"] <= step]
    if len(kept) != len(rows):
        temporary = path.with_name(path.name + ".tmp")
        with temporary.open("w") as file:
            file.writelines(json.dumps(row) + "\n" for row in kept)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        fsync_folder(path.parent)
    return kept


def _checkpoints(folder: Path) -> list[Path]:
    """Checkpoint folders, newest first."""
    return sorted((folder / FOLDER).glob("step-*"), reverse=True)


def _valid_record(path: Path) -> dict[str, Any] | None:
    """The content of position.json if it and the weights match their hashes, else None."""
    try:
        record: dict[str, Any] = json.loads((path / "position.json").read_text())
        digest = record.pop("digest")
        valid = digest == digest_of(record) and record["sha256"] == file_sha256(path / "state.safetensors")
    except (OSError, ValueError, KeyError, AttributeError):
        return None
    return record if valid else None
