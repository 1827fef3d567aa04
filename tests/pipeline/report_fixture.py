"""Artifacts of a made-up run for the report's tests: real manifests with plausible, seeded numbers."""

import csv
import math
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from kdnas.models.arch import FIELDS, Arch, SearchSpace, arch_id
from kdnas.models.table import TableRow, write_rows
from kdnas.search.baselines import SHAPES
from kdnas.store.artifact import Artifact, build
from kdnas.store.json_files import append_jsonl, write_json

WINNER = Arch(4, 12, 384, 1024)
TEACHER_MS = 21.4
BAND = ("low", "median", "high", "mean")
Work = Callable[[Path], dict[str, Any]]


def latency_ms(arch: Arch) -> float:
    """A latency that rises with depth and width."""
    return 0.35 + arch.layers * (0.22 + 1.25e-6 * arch.hidden * (4 * arch.hidden + 2 * arch.ffn) / 2)


def write_table(folder: Path, draw: random.Random) -> dict[str, Any]:
    """table.csv of the 2400 architectures, and the table's results."""
    rows = []
    for arch in SearchSpace():
        took = latency_ms(arch) * draw.gauss(1, 0.04)
        source, samples = ("measured", 12) if draw.random() < 0.06 else ("predicted", 0)
        size = arch.layer_parameters / 1e6
        rows.append(
            TableRow(
                *(arch_id(arch), arch.layers, arch.heads, arch.hidden, arch.ffn, arch.activation),
                *(size + 30522 * arch.hidden / 1e6, size, arch.flops(24) / 1e9, took, took * 0.943, took * 1.061),
                *(took * 0.97, took * 1.2, took * 1.7, took / TEACHER_MS, 0.3 * took, 0.3, 0.03, source, samples),
            )
        )
    write_rows(folder / "table.csv", rows)
    measured = sum(row.source == "measured" for row in rows)
    baselines = {
        name: {"median_abs_pct": error, "p90_abs_pct": 3 * error}
        for name, error in (("flops", 14.2), ("parameters", 31.0), ("layer-sum", 6.9))
    }
    return {
        "engine": "pytorch-f32", "threads": 2, "sentences": 10000, "teacher_latency_ms": TEACHER_MS,
        "teacher_p50_ms": 20.1, "teacher_p90_ms": 29.8, "teacher_p99_ms": 41.3,
        "teacher_parameters_millions": 22.57, "measured": measured, "predicted": 2400 - measured, "windows_discarded": 7,
        "held_out": {"median_abs_pct": 2.31, "p90_abs_pct": 5.72, "max_abs_pct": 9.4, "baselines": baselines},
        "minutes": 10.0,
    }  # fmt: skip


def write_journal(folder: Path, draw: random.Random, episodes: int = 5, each: int = 8) -> dict[str, Any]:
    """journal.jsonl and the search's results; WINNER is the best."""
    space = [arch for arch in SearchSpace().teachable(6) if arch != WINNER]
    picked = draw.sample(space, episodes * each)
    picked[episodes * each * 3 // 4] = WINNER
    rows = []
    for number, arch in enumerate(picked):
        capacity = math.log(arch.layer_parameters / 3e5)
        loss = 0.78 - 0.085 * capacity + abs(draw.gauss(0, 0.025)) - (0.1 if arch == WINNER else 0)
        took = latency_ms(arch)
        explored = draw.random() < 1 - number // each * 0.2 and arch != WINNER
        reward = (1 - loss) * (took / (0.6 * TEACHER_MS)) ** -0.06
        rows.append(
            {
                "number": number,
                "episode": number // each,
                "arch": str(arch),
                "id": arch_id(arch),
                "explored": explored,
                "loss": loss,
                "latency_ms": took,
                "reward": reward,
                "predicted_reward": None if number < each else reward,
                "tokens": 400000,
                "seconds": 11.0,
            }
        )
        append_jsonl(folder / "journal.jsonl", rows[-1])
    front = [a for a in rows if not any(b["loss"] < a["loss"] and b["latency_ms"] < a["latency_ms"] for b in rows)]
    best = max(rows, key=lambda row: row["reward"])
    pareto = [{key: row[key] for key in ("arch", "loss", "latency_ms", "reward")} for row in front]
    return {
        "winner": best["arch"], "winner_reward": best["reward"], "candidates": len(rows), "episodes": episodes,
        "space_size": 1440, "teacher_latency_ms": TEACHER_MS, "pareto": pareto, "proxy_tokens": 400000,
        "seconds_per_candidate": 11.0, "baselines": [
            {"name": name, "arch": str(arch), "loss": loss, "latency_ms": latency_ms(arch), "reward": 0.61, "failed": None}
            for (name, arch), loss in zip(SHAPES.items(), (0.31, 0.27), strict=True)
        ],
    }  # fmt: skip


def write_strategies(folder: Path) -> dict[str, Any]:
    """curves.csv of two strategies."""
    with (folder / "curves.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["strategy", "evaluations", *(f"{a}_{b}" for a in ("regret", "hypervolume") for b in BAND)])
        for name, pace in (("kdnas", 60), ("surrogate", 15)):
            for number in range(1, 301):
                regret = 0.2 * math.exp(-number / pace)
                rows = [
                    0.8 * regret,
                    regret,
                    1.4 * regret,
                    regret,
                    0.9 - regret,
                    1 - regret,
                    1 - 0.5 * regret,
                    1 - regret,
                ]
                table.writerow([name, number, *rows])
    return {"architectures": 300, "best_reward": 0.81, "strategies": {}}


def write_fidelity(folder: Path, draw: random.Random) -> dict[str, Any]:
    """fidelity.csv of 20 architectures on one task, and its results."""
    with (folder / "fidelity.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow([*FIELDS, "loss 10000", "loss 60000", "loss", "score glue/stsb", "kept % glue/stsb"])
        for number, arch in enumerate(draw.sample(list(SearchSpace(layers=(3, 4, 6))), 20)):
            loss = 0.5 - 0.01 * number
            score = 0.6 + 0.01 * number
            table.writerow([*str(arch).split(","), loss + 0.1, loss, loss - 0.1, score, 100 * score / 0.85])
    rows = [
        {"tokens": tokens, "against": name, "tau": tau, "low": tau - 0.1, "high": tau + 0.05}
        for tokens, taus in ((10000, (0.71, 0.6)), (60000, (0.87, 0.69)))
        for name, tau in zip(("loss", "glue/stsb"), taus, strict=True)
    ]
    return {"architectures": 20, "tokens": 600000, "tasks": ["glue/stsb"], "taus": rows, "cheapest_tokens": 60000}


def write_history(
    folder: Path, draw: random.Random, start: float, end: float, steps: int, relations: bool = False
) -> dict[str, Any]:
    """history.jsonl and a training stage's results; 1 - loss goes from `start` to `end`."""
    (folder / "student").mkdir()
    (folder / "student" / "config.json").write_text("{}")
    for step in range(10, steps + 1, 10):
        gone = step / steps
        variance = start + (end - start) * (1 - math.exp(-4 * gone)) / (1 - math.exp(-4))
        row: dict[str, Any] = {"step": step, "tokens": step * 8192, "seconds": step * 0.4}
        loss = 1 - variance + draw.gauss(0, 0.012)
        append_jsonl(folder / "history.jsonl", {**row, "lr": 1e-3 * (1 - gone), "loss": loss, "kind": "train"})
        if step % 100 == 0:
            layers = {str(layer): variance + 0.02 * (2 - layer) for layer in range(1, 5)}
            check = {"validation_loss": 1 - variance, "explained_variance": variance, "layers": layers}
            if relations:
                parts = {"QQ": 1.2 - variance, "KK": 1.1 - variance, "VV": 0.7 - variance}
                check |= {"explained_variance": None, "layers": {}, "relations": parts}
            append_jsonl(folder / "history.jsonl", {**row, **check, "kind": "validation"})
    return {
        "arch": str(WINNER), "objective": "minilm-v2" if relations else "hidden-state", "steps": steps, "tokens": steps * 8192,
        "tokens_per_second": 19876.4, "precision": "bf16", "validation_loss": 1 - end,
        "explained_variance": None if relations else end,
        "explained_variance_layers": {} if relations else {str(layer): end + 0.02 * (2 - layer) for layer in range(1, 5)},
        "teacher_layers_used": [1, 2, 4, 5, 3, 6], "parameters_millions": 17.72,
    }  # fmt: skip


def export_results(task: str = "feature-extraction") -> dict[str, Any]:
    """Results of an export."""
    figures = {
        "onnxruntime-f32": (2.4e-6, 1.1e-7, 0.9999998, 70.8),
        "openvino-f32": (3.1e-6, 1.6e-7, 0.9999997, 70.9),
        "openvino-int8": (0.214, 0.0183, 0.9921, 18.3),
    }
    forms = {
        name: {
            "max_abs_diff": largest, "mean_abs_diff": mean, "cosine_min": cosine, "cosine_mean": (1 + cosine) / 2,
            "labels_equal": 0.997 if task == "text-classification" else None, "size_mb": size, "seconds": 3.2,
        }
        for name, (largest, mean, cosine, size) in figures.items()
    }  # fmt: skip
    return {"task": task, "forms": forms, "sentences": 256}


def evaluation_results(hap: bool) -> dict[str, Any]:
    """Results of an evaluation, with or without a HAP set."""
    topic = {
        "labels": ["numpy", "scipy", "torch", "transformers"], "metric": "macro-F1", "teacher": 0.8123,
        "student": 0.7987, "retention": 0.7987 / 0.8123, "train_examples": 4000, "test_examples": 1000,
        "splits": "by module, so that no file is in two splits",
    }  # fmt: skip
    scored = topic | {
        "labels": ["not HAP", "HAP"], "teacher": 0.927, "student": 0.929, "retention": 1.0022,
        "accuracy": {"teacher": 0.951, "student": 0.953}, "average_precision": {"teacher": 0.991, "student": 0.99},
        "false_positive_rate": {"teacher": 0.101, "student": 0.097},
    }  # fmt: skip
    return {
        "explained_variance": 0.7712, "recall_at_10": 0.642, "sentences": 2000, "topic": topic,
        "languages": {
            "en": {"explained_variance": 0.81, "recall_at_10": 0.7, "sentences": 1500},
            "sw": {"explained_variance": 0.62, "recall_at_10": 0.5, "sentences": 500},
        },
        "retrieval": {
            "metric": "nDCG@10", "queries": 812, "teacher": 0.4321, "student": 0.4012, "retention": 0.4012 / 0.4321,
            "asymmetric": 0.4107, "asymmetric_retention": 0.4107 / 0.4321, "seconds": 9.5,
        },
        "retrieval_note": "", "hap": scored if hap else None, "hap_note": "" if hap else "no HAP set was given",
    }  # fmt: skip


def speed_results() -> dict[str, Any]:
    """Results of the speed comparison."""
    rows = [
        {
            "name": name, "p50_ms": p50, "p90_ms": 1.42 * p50, "mean_ms": 1.06 * p50, "speedup": 20.1 / p50,
            "speedup_low": 0.93 * 20.1 / p50, "speedup_high": 1.09 * 20.1 / p50,
        }
        for name, p50 in (
            ("teacher pytorch-f32", 20.1), ("student pytorch-f32", 5.62), ("student onnxruntime-f32", 2.93),
            ("student openvino-f32", 2.41), ("student openvino-int8", 0.874),
        )
    ]  # fmt: skip
    from_text = {"name": rows[-1]["name"], "tokenise_mean_ms": 0.084, "speedup": 20.7}
    from_text |= {"speedup_low": 19.8, "speedup_high": 21.9}
    return {"sentences": 500, "threads": 2, "rounds": 12, "rows": rows, "from_text": from_text}


def fake_run(home: Path, hap: bool = False, seed: int = 0) -> dict[str, Artifact]:
    """All artifacts of a run; the distillation was interrupted once."""
    draw = random.Random(seed)

    def publish(kind: str, work: Work) -> Artifact:
        config = {"teacher": "builtin:minilm-l6", "seed": seed, "hap": hap, "minutes": 5.0}
        return build(home, kind, WINNER.name, config, {"corpus": "0" * 64}, work)

    def interrupted(_folder: Path) -> dict[str, Any]:
        raise KeyboardInterrupt

    with suppress(KeyboardInterrupt):
        publish("distill", interrupted)
    return {
        "latency-table": publish("latency-table", lambda folder: write_table(folder, draw)),
        "search": publish("search", lambda folder: write_journal(folder, draw)),
        "strategies": publish("strategies", write_strategies),
        "fidelity": publish("fidelity", lambda folder: write_fidelity(folder, draw)),
        "distill": publish("distill", lambda folder: write_history(folder, draw, 0.1, 0.774, 2000)),
        "refine": publish("refine", lambda folder: write_history(folder, draw, 0.4, 0.62, 800, relations=True)),
        "export": publish("export", lambda _folder: export_results()),
        "evaluation": publish("evaluation", lambda _folder: evaluation_results(hap)),
        "speed": publish("speed", lambda _folder: speed_results()),
    }


def write_listing(run: Path, artifacts: dict[str, Artifact]) -> None:
    """artifacts.json, as the pipeline writes it."""
    run.mkdir(parents=True, exist_ok=True)
    write_json(run / "artifacts.json", {name: artifact.path for name, artifact in artifacts.items()})
