"""What do 250,000 embedding rows cost in a step of distillation?

Run as `python tests/bench/multilingual_step.py [multilingual|base [STEPS [ARCH]]]`. The teachers have random weights and real
shapes: `multilingual` is a BERT of 12 layers, 384 wide, with 250,037 rows; `base` is an MPNet of 12 layers, 768 wide, with 30,527
rows. Sentences are random ids whose frequencies follow Zipf's law, of about 25 tokens. Three students train side by side, each
step on the same batch in random order: all rows of the table, the rows of the corpus (`kdnas.distill.cut_table`), and a frozen
table, whose difference to the others is the cost of training the table. A separate process for each measures the peak memory.
Prints real tokens per second, and ratios of the CPU times of equal batches, which other work on the host disturbs less than
wall times: median, 5th and 95th percentile.
"""

import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # waiting is no CPU time

import numpy as np
import torch
from transformers import BertConfig, BertModel, MPNetConfig, MPNetModel, PreTrainedModel

import kdnas.distill.loop as loop
from kdnas.distill.batches import Made, TrainBatches
from kdnas.distill.cut_table import cut_table
from kdnas.distill.hidden_state import HiddenStateLoss, HiddenStateObjective, TeacherStates
from kdnas.distill.mapping import Mapping, layer_pairs
from kdnas.distill.options import DistillOptions
from kdnas.distill.pairs import Pairs
from kdnas.models.arch import Arch
from kdnas.models.student import student_from_teacher
from kdnas.store.host import host_line
from kdnas.text.joining import Joining
from kdnas.text.sentences import Sentences

ARCH = "4,12,384,768,gelu"
OPTIONS = DistillOptions()
SENTENCES, MEAN_TOKENS, MAX_TOKENS = 20_000, 25, 128
OCCURRING = 120_000  # largest number of different tokens in the corpus
START, PAD, END = 0, 1, 2  # ids of XLM-R's special tokens
WARM_STEPS, MEMORY_STEPS = 3, 4
# As XLM-R's tokenizer joins a pair: `<s> A </s></s> B </s>`.
JOINING = Joining(1, 1, (START,), (END, END), (END,), (0,), (0, 0), (0,), (0, 0))
ARMS = ("all rows", "rows of the corpus", "frozen table")


def make_teacher(kind: str) -> PreTrainedModel:
    """A teacher with random weights."""
    torch.manual_seed(0)
    if kind == "base":
        return MPNetModel(MPNetConfig(), add_pooling_layer=False).requires_grad_(False).eval()
    shape = {"num_hidden_layers": 12, "hidden_size": 384, "num_attention_heads": 12, "intermediate_size": 1536}
    config = BertConfig(vocab_size=250_037, pad_token_id=PAD, **shape)
    return BertModel(config, add_pooling_layer=False).requires_grad_(False).eval()


def make_sentences(folder: Path, vocabulary: int) -> Sentences:
    """Random sentences: lengths are log-normal, frequencies of ids follow Zipf's law, and frequent ids are not neighbours."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(np.log(MEAN_TOKENS) - 0.125, 0.5, SENTENCES).astype(int), 4, MAX_TOKENS)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    names = rng.permutation(np.arange(4, vocabulary))[:OCCURRING]
    tokens = names[(rng.zipf(1.05, offsets[-1]) - 1) % len(names)].astype(np.int32)
    tokens[offsets[:-1]], tokens[offsets[1:] - 1] = START, END
    np.save(folder / "train.tokens.npy", tokens)
    np.save(folder / "train.offsets.npy", offsets)
    return Sentences(folder, "train")


class Student:
    """A student, its objective and its optimizer."""

    def __init__(self, arm: str, arch: Arch, teacher: PreTrainedModel, sentences: Sentences) -> None:
        student = student_from_teacher(arch, teacher, 0).eval()
        if arm == "rows of the corpus":
            cut_table(student, np.union1d(np.unique(sentences.tokens), [PAD]))
        if arm == "frozen table":
            student.get_input_embeddings().weight.requires_grad_(False)
        pairs = layer_pairs(arch.layers, teacher.config.num_hidden_layers, Mapping(OPTIONS.mapping))
        loss = HiddenStateLoss(pairs, arch.hidden, teacher.config.hidden_size, None)
        self._objective = HiddenStateObjective(student, TeacherStates(teacher, [layer for _, layer in pairs]), loss)
        self._accelerator = loop.make_accelerator(OPTIONS.precision)
        self._optimizer = loop.make_optimizer(self._objective, OPTIONS.peak_lr, OPTIONS.weight_decay)

    def step(self, made: Made) -> tuple[float, float]:
        """Seconds and CPU seconds of a step."""
        start, busy = time.perf_counter(), time.process_time()
        loop.backward(self._objective, self._accelerator, made.inputs("cpu"))
        loop.update(self._optimizer, OPTIONS.peak_lr)
        return time.perf_counter() - start, time.process_time() - busy


def peak_gb(kind: str, arch: str, arm: str, folder: str) -> None:
    """Train one student and print the peak memory of this process in GB."""
    loop.use_all_cores()
    teacher, sentences = make_teacher(kind), Sentences(Path(folder), "train")
    student = Student(arm, Arch.parse(arch), teacher, sentences)
    coming = TrainBatches(sentences, PAD, OPTIONS, Pairs(JOINING, 512)).after(0, 0)
    for _ in range(MEMORY_STEPS):
        student.step(next(coming))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9)


def compare(kind: str, steps: int, arch: str, folder: Path) -> None:
    """Time all students side by side and print."""
    loop.use_all_cores()
    teacher = make_teacher(kind)
    sentences = make_sentences(folder, teacher.config.vocab_size)
    students = [Student(arm, Arch.parse(arch), teacher, sentences) for arm in ARMS]
    coming = TrainBatches(sentences, PAD, OPTIONS, Pairs(JOINING, 512)).after(0, 0)
    seconds, tokens = np.zeros((steps, len(ARMS), 2)), np.zeros(steps)
    for number in range(-WARM_STEPS, steps):
        made = next(coming)
        for arm in random.sample(range(len(ARMS)), len(ARMS)):
            spent = students[arm].step(made)
            if number >= 0:
                seconds[number, arm], tokens[number] = spent, int(made.mask.sum())
    used = len(np.unique(sentences.tokens))
    print(f"{arch} from the {kind} teacher, {used:,} of {teacher.config.vocab_size:,} tokens occur, {steps} steps:")
    for arm, name in enumerate(ARMS):
        memory = subprocess.run(
            [sys.executable, __file__, "peak", kind, arch, name, str(folder)],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.split()[-1]
        cost = spread(1 - seconds[:, -1, 1] / seconds[:, arm, 1])
        print(
            f"{name:18} {tokens.sum() / seconds[:, arm, 0].sum():7,.0f} real tokens per second; "
            f"{1000 * np.median(seconds[:, arm, 1]):,.0f} CPU ms a step; "
            f"speed over all rows {spread(seconds[:, 0, 1] / seconds[:, arm, 1])}; "
            f"fraction of a step for the table {cost}; peak memory {float(memory):.1f} GB",
            flush=True,
        )


def spread(values: np.ndarray) -> str:
    """Median, 5th and 95th percentile."""
    low, middle, high = np.percentile(values, [5, 50, 95])
    return f"{middle:.3f} [{low:.3f}, {high:.3f}]"


def main(arguments: list[str]) -> None:
    """Run the comparison, or one measurement of memory."""
    if arguments[:1] == ["peak"]:
        peak_gb(*arguments[1:])
        return
    kind, steps, arch = (*arguments, *("multilingual", "30", ARCH)[len(arguments) :])
    print(host_line(), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        compare(kind, int(steps), arch, Path(folder))


if __name__ == "__main__":
    main(sys.argv[1:])
