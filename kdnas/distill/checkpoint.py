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

from kdnas.store.digest import digest_of, file_sha256
from kdnas.store.json_files import fsync_folder, read_jsonl, write_json
from kdnas.store.progress import say

FOLDER = "checkpoints"
KEPT = 2


def random_states() -> dict[str, Tensor]:
    """torch's random states: of the CPU, and of the current GPU if CUDA is in use, for example by dropout."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def set_random_states(states: dict[str, Tensor]) -> None:
    """Restore `random_states`; the state of a GPU is skipped on a host without one."""
    torch.set_rng_state(states["cpu"])
    gpu = states.get("cuda")
    if gpu is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(gpu)


@dataclass
class Position:
    """The state of training after `step` updates.

    Args:
        step: updates done.
        epoch: pass over the corpus, from 0.
        index: index of the next batch in the epoch.
        tokens: real tokens seen.
        seconds: time spent in steps, over all attempts.
        rng: torch's random states after the last update, by device type.
    """

    step: int = 0
    epoch: int = 0
    index: int = 0
    tokens: int = 0
    seconds: float = 0.0
    rng: dict[str, Tensor] = field(default_factory=random_states, repr=False, compare=False)

    def advance(self, epoch: int, index: int, tokens: int, seconds: float) -> None:
        """Count one update."""
        self.step += 1
        self.epoch, self.index = epoch, index
        self.tokens += tokens
        self.seconds += seconds
        self.rng = random_states()

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
    tensors |= {f"rng/{device}": state for device, state in position.rng.items()}
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
        state = _below(tensors, "module/")
        with torch.no_grad():
            for name, value in _state_of(module).items():
                value.copy_(state[name])
        fused = {id(parameter): group.get("fused") for group in optimizer.param_groups for parameter in group["params"]}
        for name, parameter in module.named_parameters():
            state = _below(tensors, f"optimizer/{name}/")
            if state:
                optimizer.state[parameter] = moments_for(parameter, state, bool(fused.get(id(parameter))))
        rng = _below(tensors, "rng/")
        set_random_states(rng)
        return Position(**record["position"], rng=rng)
    return None


def moments_for(parameter: Tensor, state: dict[str, Tensor], fused: bool) -> dict[str, Tensor]:
    """Moments and step count of a parameter on its device; only fused optimizers keep the step count there too."""
    return {key: value.to(parameter.device) if fused or key != "step" else value for key, value in state.items()}


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names start with a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


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
