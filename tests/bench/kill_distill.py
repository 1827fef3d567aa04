"""Does `kdnas distill` survive kill -9, SIGTERM and damaged checkpoints at random moments, bit for bit?

Run as `python tests/bench/kill_distill.py [KILLS] [WITHIN_SECONDS]`. One run is not interrupted. Another is repeatedly
stopped with all its data workers at a random time within WITHIN_SECONDS and started again with 0, 1 or 2 data workers. One stop
in three is SIGTERM, after which the run must exit with 143 within 30 seconds. One time in six a byte of the newest checkpoint is
flipped before the restart. The time counts from the first step of a run, one time in four from its start. The last run
completes. Prints the results; the exit code is 1 if weights or history differ from those of the first run.

The command is the real one, forked from a process with loaded libraries, which saves seconds per kill. The models are tiny.
"""

import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from forked_command import start, write_corpus
from transformers import BertConfig, BertModel

from kdnas.distill.checkpoint import FOLDER
from kdnas.models.folder import copy_tokenizer
from kdnas.models.teacher import BUILTIN, resolve_teacher
from kdnas.store.digest import file_sha256
from kdnas.store.host import host_line
from kdnas.store.json_files import read_jsonl

SECONDS_TO_END = 30.0
STEPS_A_KILL = 12


def tiny_teacher(folder: Path) -> Path:
    """A random BERT of 4 layers and width 96 with the packaged teacher's tokenizer."""
    config = BertConfig(num_hidden_layers=4, num_attention_heads=12, hidden_size=96, intermediate_size=192)
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    copy_tokenizer(resolve_teacher(BUILTIN).path, folder)
    return folder


def ended(child: int, seconds: float) -> int | None:
    """Exit code, negative for a signal; None if the process still runs after these seconds."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    return None


def trains(home: Path, child: int, began: float) -> int | None:
    """Wait until a run has made a step; returns its exit code if it ends before that."""
    while not any(file.stat().st_mtime > began for file in home.glob("distill/*.partial/history.jsonl")):
        code = ended(child, 0.02)
        if code is not None:
            return code
    return None


def flip_newest(home: Path) -> bool:
    """Flip a byte of the newest checkpoint's weights, if there are two checkpoints."""
    checkpoints = sorted(home.glob(f"distill/*.partial/{FOLDER}/step-*"))
    if len(checkpoints) < 2:
        return False
    file = checkpoints[-1] / "state.safetensors"
    with file.open("r+b") as damaged:
        damaged.seek(random.randrange(file.stat().st_size))
        value = damaged.read(1)
        damaged.seek(-1, os.SEEK_CUR)
        damaged.write(bytes([value[0] ^ 1]))
    return True


def found(home: Path) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """Hashes of the weights, and history without times, of a home's finished run."""
    [manifest] = home.glob("distill/*/manifest.json")
    folder = manifest.parent
    hashes = {str(file.relative_to(folder)): file_sha256(file) for file in folder.rglob("*.safetensors")}
    rows = read_jsonl(folder / "history.jsonl")
    return hashes, [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def main(kills: int, within: float) -> int:
    """Stop, look, and go on; the exit code."""
    print(host_line())
    counts, wrong = Counter[str](), []
    with tempfile.TemporaryDirectory() as scratch:
        corpus = write_corpus(Path(scratch) / "texts.txt")
        homes = [Path(scratch) / name for name in ("whole", "killed")]
        options = ["distill", "--arch", "3,4,288,384,gelu", "--corpus", str(corpus)]
        options += ["--steps", str(STEPS_A_KILL * kills + 20)]
        options += ["--batch_tokens", "512", "--accumulate", "2", "--dropout", "true", "--validation_sentences", "100"]
        options += ["--log_every", "1", "--checkpoint_seconds", "0.5", "--home"]
        if ended(start([*options, str(homes[0])]), 3600) != 0:
            print("the uninterrupted run failed")
            return 1
        while sum(counts[name] for name in ("kill -9", "SIGTERM")) < kills:
            began = time.time()
            child = start([*options, str(homes[1]), "--data_workers", str(random.randrange(3))])
            early = random.random() < 1 / 4
            code = None if early else trains(homes[1], child, began)
            code = ended(child, random.uniform(0, within)) if code is None else code
            if code is not None:
                wrong += [f"exit {code} before the end"] if code else []
                break
            counts["before the first step" if early else "while training"] += 1
            if random.random() < 1 / 3:
                os.kill(child, signal.SIGTERM)
                counts["SIGTERM"] += 1
                code = ended(child, SECONDS_TO_END)
                if code != 143:
                    wrong.append(f"exit {code} after SIGTERM")
            else:
                counts["kill -9"] += 1
            with suppress(ProcessLookupError):  # its data workers may outlive it briefly
                os.killpg(child, signal.SIGKILL)
            if code is None:
                ended(child, SECONDS_TO_END)
            if random.random() < 1 / 6 and flip_newest(homes[1]):
                counts["a byte flipped"] += 1
        code = ended(start([*options, str(homes[1]), "--data_workers", "1"]), 3600)
        same = code == 0 and found(homes[0]) == found(homes[1])
    print(
        f"{dict(counts)}, each within {within:g} s; wrong: {wrong or 'nothing'}; last run: exit {code}, bit-identical: {same}"
    )
    return int(not same or bool(wrong))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 50, float(sys.argv[2]) if len(sys.argv) > 2 else 3.0))
