import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from kdnas.arguments import parse
from kdnas.distill.options import DistillOptions
from kdnas.distill.run import refine
from kdnas.errors import KdnasError
from kdnas.latency.protocol import RUNS
from kdnas.latency.run import latency_table
from kdnas.models.packaged import HOME
from kdnas.models.teacher import Teacher
from kdnas.pipeline import plan
from kdnas.pipeline.stages import pipeline

ROOT = Path(__file__).resolve().parents[2]


def settings(name: str) -> dict:
    return parse("pipeline", pipeline, ["--config", str(ROOT / "configs" / name)])


def test_paper_configuration_matches_the_published_one(shared_data: Path) -> None:
    paper = json.loads((shared_data.parent / "reference" / "kdnas_paper.json").read_text())
    values = settings("paper.yaml")
    search, distill, minilm = values["search"], values["distill"], values["refine"]
    assert (search.alpha, search.beta) == (paper["reward"]["alpha"], paper["reward"]["beta"])
    assert search.episodes == paper["search"]["episodes"]
    assert search.candidates_per_episode == paper["search"]["candidates_per_episode"]
    assert search.epsilon_decay == paper["search"]["epsilon_decay_per_episode"]
    assert search.controller_lr == paper["controller"]["peak_lr"]
    assert search.proxy.corpus_fraction == paper["proxy"]["corpus_fraction"]
    assert search.proxy.epochs == paper["proxy"]["epochs"]
    assert (search.strategy, search.above_one, search.max_latency_fraction) == ("kdnas", "printed", None)
    assert search.epsilon_draw == "fraction"
    assert (search.controller_memory, search.controller_update, search.controller_targets) == (
        "episode",
        "episode",
        "raw",
    )
    assert search.controller_square_decay == paper["controller"]["gamma"]
    assert search.controller_epochs == paper["controller"]["epochs_per_episode"]
    latency, protocol = values["latency"], paper["latency_protocol"]
    assert (latency.protocol, latency.sentences) == ("paper", protocol["sentences"])
    assert (RUNS, plan.latency_row(latency).hours) == (protocol["runs"], None)
    assert values["text"].max_sentences == paper["distillation"]["sentences"]
    assert (distill.start, distill.projections, distill.loss_scale) == ("random", "random", "sum")
    assert (distill.steps, distill.batch_sentences) == (130000, paper["distillation"]["batch_size"])
    assert (distill.accumulate, minilm.accumulate) == (2, 30)  # GPUs
    assert minilm.batch_sentences * minilm.accumulate == 480
    assert distill.peak_lr == paper["distillation"]["peak_lr"]
    assert distill.warmup_fraction * distill.steps == pytest.approx(paper["distillation"]["warmup_steps"])
    assert (minilm.steps, minilm.relation_heads, minilm.teacher_layer) == (200000, 48, 11)
    assert minilm.hidden_state_weight == 0


def test_configurations_of_single_stages_agree_with_the_published_one() -> None:
    whole = settings("paper.yaml")
    alone = parse("refine", refine, ["--config", str(ROOT / "configs" / "paper-minilm.yaml")])
    assert alone["options"] == replace(whole["refine"], start="random")
    assert (alone["arch"], alone["student"]) == (str(plan.PLANNED_ARCH), None)
    table = parse("latency-table", latency_table, ["--config", str(ROOT / "configs" / "paper-latency.yaml")])
    assert table["options"] == whole["latency"]
    assert alone["text"] == table["text"] == whole["text"]


def test_offline_configuration_fits_in_forty_minutes() -> None:
    values = settings("offline.yaml")
    stages = ("latency", "distill", "refine", "evaluation", "speed")
    assert sum(values[name].minutes for name in stages) <= 30  # the remaining time is for search, export and corpus


def test_published_teacher_has_its_published_size() -> None:
    config, origin = plan.planned_teacher("FacebookAI/xlm-roberta-base", HOME)
    assert plan.parameters(config) / 1e6 == pytest.approx(277.5, abs=0.1)  # Table 2 prints 277
    assert origin
    with pytest.raises(KdnasError, match="hub cannot be reached"):
        plan.planned_teacher("owner/unknown-model", HOME)


def test_tokens_follow_from_the_steps() -> None:
    assert plan.tokens_of(DistillOptions(steps=10, batch_tokens=4096)) == 40960
    assert plan.tokens_of(DistillOptions(steps=10, batch_tokens=4096, batch_sentences=32)) == 10 * 32 * 25
    assert plan.tokens_of(DistillOptions(steps=10, batch_tokens=4096, accumulate=8)) == 8 * 40960
    assert plan.tokens_of(DistillOptions(minutes=1)) is None


@pytest.mark.slow
def test_a_dry_run_prints_the_plan_and_writes_nothing(tiny_teacher: Teacher, tmp_path: Path) -> None:
    home = tmp_path / "home"
    command = [sys.executable, "-m", "kdnas.cli", "pipeline", "--dry-run", "--home", str(home)]
    command += ["--teacher", str(tiny_teacher.path), "--distill.steps", "1000", "--distill.batch_tokens", "256"]
    command += ["--refine.batch_tokens", "256", "--space.hidden", "[288]"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    for word in (
        "latency-table",
        "search",
        "1,000 steps",
        "refine",
        "export",
        "total",
        "GB free",
        "8 devices   distill",
    ):
        assert word in result.stdout
    assert not home.exists()
