"""`kdnas pipeline --dry-run`: estimate the cost of a configuration on this host from the throughput measured now."""

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PretrainedConfig
from transformers.utils import logging as transformers_logging

from kdnas.distill.options import DistillOptions, LoopOptions, RefineOptions
from kdnas.distill.throughput import measure_tokens_per_second
from kdnas.errors import KdnasError
from kdnas.latency.protocol import RUNS, LatencyOptions
from kdnas.models.arch import Arch, SearchSpace
from kdnas.models.family import shape_of
from kdnas.models.student import new_encoder, new_student, student_config
from kdnas.models.teacher import load_config, resolve_teacher
from kdnas.search.options import ProxyOptions, SearchOptions
from kdnas.store.host import host_line
from kdnas.store.outcome import Outcome
from kdnas.store.progress import stage
from kdnas.text.readers import TextOptions

# The paper's final architecture, Arch3 (Table 2). The plan assumes it because the search has not chosen a student yet.
PLANNED_ARCH = Arch(4, 12, 576, 768, "gelu")
TOKENS_PER_SENTENCE = 25  # assumed before the corpus is read; the English sentences measured so far have 17 to 24
MEASURE_SECONDS = 10.0
DEVICES = (2, 8)
# Shapes of hub teachers from their published config.json, so that a plan needs no network.
KNOWN_SHAPES: dict[str, dict[str, Any]] = {
    "FacebookAI/xlm-roberta-base": {
        "model_type": "xlm-roberta",
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "vocab_size": 250002,
        "max_position_embeddings": 514,
        "type_vocab_size": 1,
        "pad_token_id": 1,
    },
}


@dataclass(frozen=True)
class PlanRow:
    """One stage: its amount of work, its hours (None if only the run can tell), and its disk space in GB."""

    stage: str
    work: str
    hours: float | None
    disk_gb: float


def planned_teacher(spec: str, home: Path) -> tuple[PretrainedConfig, str]:
    """Configuration of the teacher, and its source in words.

    Raises:
        KdnasError: the teacher cannot be loaded and its shape is not in `KNOWN_SHAPES`.
    """
    try:
        return load_config(resolve_teacher(spec, home).path), "read from its config.json"
    except KdnasError:
        if spec not in KNOWN_SHAPES:
            raise
        shape = dict(KNOWN_SHAPES[spec])
        return AutoConfig.for_model(shape.pop("model_type"), **shape), "published shape; the hub was not reached"


def tokens_of(options: LoopOptions) -> int | None:
    """Training tokens of all steps, with sentences of the assumed length; None if `minutes` decides the number of steps."""
    if options.steps is None:
        return None
    batch = options.batch_tokens
    if options.batch_sentences is not None:
        batch = min(batch, options.batch_sentences * TOKENS_PER_SENTENCE)
    return options.steps * options.accumulate * batch


def training_row(name: str, options: LoopOptions, tokens_per_second: float, student: PretrainedConfig) -> PlanRow:
    """Hours and disk space of one training stage: the weights, and two checkpoints of weights and two moments, all in f32."""
    tokens = tokens_of(options)
    weights_gb = 4 * parameters(student) / 1e9
    if tokens is None:
        work = f"about {options.minutes * 60 * tokens_per_second / 1e6:,.1f} M tokens in {options.minutes:g} minutes"
        return PlanRow(name, work, options.minutes / 60, 7 * weights_gb)
    work = f"{options.steps:,} steps, {tokens / 1e9:,.2f} G tokens at {tokens_per_second:,.0f} tokens/s"
    return PlanRow(name, work, tokens / tokens_per_second / 3600, 7 * weights_gb)


def latency_row(options: LatencyOptions) -> PlanRow:
    """The latency table; the time of the published protocol depends on the models, which only the run measures."""
    if options.protocol == "paper":
        work = f"every one of 2,400 architectures on {options.sentences:,} sentences, {RUNS} runs"
        return PlanRow("latency-table", work, None, 2.0)
    return PlanRow("latency-table", f"2,400 architectures in {options.minutes:g} minutes", options.minutes / 60, 0.01)


def proxy_tokens_each(proxy: ProxyOptions, sentences: int | None) -> int:
    """Training tokens of one candidate; a corpus of unknown size is assumed to have 1M sentences."""
    if proxy.tokens is not None:
        return proxy.tokens
    assert proxy.corpus_fraction is not None  # one of the two is given
    return int(proxy.corpus_fraction * (sentences or 1_000_000) * TOKENS_PER_SENTENCE * proxy.epochs)


def parameters(config: PretrainedConfig) -> int:
    """Number of parameters of an encoder of this shape, counted without allocating memory."""
    with torch.device("meta"):
        return sum(weight.numel() for weight in new_encoder(config).parameters())


def plan(
    teacher: str,
    text: TextOptions,
    space: SearchSpace,
    latency: LatencyOptions,
    search: SearchOptions,
    distill: DistillOptions,
    refine: RefineOptions,
    home: Path,
) -> Outcome:
    """Validate a configuration and return its plan, which the command prints. Nothing is written.

    Raises:
        KdnasError: the teacher cannot be found, or no student of the space fits it.
    """
    transformers_logging.set_verbosity_error()
    config, origin = planned_teacher(teacher, home)
    cut = space.teachable(shape_of(config).layers)
    arch = PLANNED_ARCH if PLANNED_ARCH in cut else next(iter(cut))
    speeds = measured_speeds(config, arch, distill, refine)
    student = student_config(arch, config)
    candidates = search.episodes * search.candidates_per_episode
    sentences = text.max_sentences
    proxy_tokens = candidates * proxy_tokens_each(search.proxy, sentences)
    training = [
        training_row("distill", distill, speeds["hidden-state"], student),
        training_row("refine", refine, speeds["minilm-v2"], student),
    ]
    rows = [
        PlanRow(
            "corpus",
            f"{sentences:,} sentences" if sentences else "all sentences of the source",
            None,
            (sentences or 0) * TOKENS_PER_SENTENCE * 8 / 1e9,
        ),
        latency_row(latency),
        PlanRow(
            "search",
            f"{search.episodes} episodes of {search.candidates_per_episode} among {len(cut):,}: {candidates} candidates, "
            f"{proxy_tokens / 1e9:,.2f} G proxy tokens",
            proxy_tokens / speeds["hidden-state"] / 3600,
            0.01,
        ),
        *training,
        PlanRow("export", "ONNX and OpenVINO, f32 and int8", None, 2.5 * 4 * parameters(student) / 1e9),
    ]
    lines = [*plan_lines(rows, teacher, origin, config, arch, student, home), "", *device_lines(training, student)]
    return Outcome(None, {"stages": [asdict(row) for row in rows]}, text="\n".join(lines))


def device_lines(training: list[PlanRow], student: PretrainedConfig) -> list[str]:
    """Hours of the training stages on several devices like this one, without the time of communication."""
    table = student.vocab_size * student.hidden_size
    exchanged_mb = 4 * (parameters(student) - table) / 1e6
    lines = [
        "several devices like this one (accelerate launch --multi_gpu --num_processes N, --accumulate a multiple of N)"
    ]
    for count in DEVICES:
        hours = ", ".join(f"{row.stage} {row.hours / count:,.2f} h" for row in training if row.hours is not None)
        lines.append(
            f"{count:>3} devices   {hours}; {exchanged_mb:,.0f} MB of gradients per update, and rows of embeddings"
        )
    return lines


def measured_speeds(
    config: PretrainedConfig, arch: Arch, distill: LoopOptions, refine: LoopOptions
) -> dict[str, float]:
    """Training tokens per second on this host for each objective, with randomly initialised models of the real shapes."""
    torch.manual_seed(0)
    teacher_model = new_encoder(config)
    student_model = new_student(arch, config)
    speeds = {}
    with stage("plan: measure", 2) as bar:
        for objective, options in (("hidden-state", distill), ("minilm-v2", refine)):
            batch_tokens = options.batch_tokens
            if options.batch_sentences is not None:
                batch_tokens = min(batch_tokens, options.batch_sentences * TOKENS_PER_SENTENCE)
            speeds[objective] = measure_tokens_per_second(
                teacher_model,
                student_model,
                objective,
                batch_tokens,
                MEASURE_SECONDS,
                seq_len=TOKENS_PER_SENTENCE,
                precision=options.precision,
            )
            bar.advance(1, f"{speeds[objective]:,.0f} tokens/s")
    return speeds


def plan_lines(
    rows: list[PlanRow],
    teacher: str,
    origin: str,
    config: PretrainedConfig,
    arch: Arch,
    student: PretrainedConfig,
    home: Path,
) -> list[str]:
    """The lines of the plan's table."""
    lines = [
        f"host      {host_line()}",
        f"teacher   {teacher}: {shape_of(config).layers} layers, {parameters(config) / 1e6:,.1f} M parameters ({origin})",
        f"student   {arch}: {parameters(student) / 1e6:,.1f} M parameters (until the search has chosen one)",
        f"assumed   {TOKENS_PER_SENTENCE} tokens a sentence; hours hold for this host and its load now",
        "",
        f"{'stage':<15}{'hours':>12}  {'disk GB':>8}  work",
    ]
    for row in rows:
        hours = "as it takes" if row.hours is None else f"{row.hours:,.2f}"
        lines.append(f"{row.stage:<15}{hours:>12}  {row.disk_gb:>8.2f}  {row.work}")
    total = sum(row.hours or 0.0 for row in rows)
    disk = sum(row.disk_gb for row in rows)
    existing = next(folder for folder in (home.resolve(), *home.resolve().parents) if folder.exists())
    free = shutil.disk_usage(existing).free / 1e9
    return [*lines, f"{'total':<15}{total:>12,.2f}  {disk:>8.2f}  {free:,.0f} GB free at {home}"]
