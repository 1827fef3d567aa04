"""The table of commands, in the groups of `kdnas --help`. A command's module is imported only when the command runs."""

import difflib
import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from kdnas.errors import KdnasError, UsageError
from kdnas.extras import explain_missing, require_extras


@dataclass(frozen=True)
class Command:
    """One row of the table.

    Args:
        target: `module:function`.
        summary: the command's line in `kdnas --help`.
        extras: optional dependency groups that every call needs.
        first: options that the command's help lists first, with the required ones and those in `option_help`.
        repeated: option with several values that may be given several times; words before the first option are its values.
    """

    target: str
    summary: str
    extras: tuple[str, ...] = ()
    first: tuple[str, ...] = ()
    repeated: str = ""


GROUPS: dict[str, dict[str, Command]] = {
    "all stages": {
        "pipeline": Command(
            "kdnas.pipeline.stages:pipeline",
            "run all stages: latency table, search, distil, refine, export, evaluate, report",
            ("train", "export"),
            ("hap", "latency.minutes", "search.strategy", "distill.minutes", "refine.minutes", "dry_run"),
        ),
        "report": Command(
            "kdnas.pipeline.report:report", "write a pipeline's results as one self-contained HTML page", ("report",)
        ),
    },
    "search": {
        "latency-table": Command(
            "kdnas.latency.run:latency_table",
            "measure the latency of 2400 architectures on this host",
            ("train",),
            ("engine", "threads", "tokenizer", "validate"),
        ),
        "recommend": Command(
            "kdnas.latency.recommend:recommend", "list the most capable architectures that fit a latency budget"
        ),
        "compare-latency": Command(
            "kdnas.latency.compare:compare_latency", "test whether two latency tables differ by more than their error"
        ),
        "latency-report": Command(
            "kdnas.latency.report:latency_report", "write a latency table as one self-contained HTML page", ("report",)
        ),
        "search": Command(
            "kdnas.search.run:search",
            "KD-NAS: propose architectures, distil each briefly, keep the best",
            ("train",),
            (
                "strategy",
                "max_latency_ms",
                "max_latency_fraction",
                "episodes",
                "candidates_per_episode",
                "proxy.objective",
                "replay",
                "ray",
            ),
        ),
        "record": Command(
            "kdnas.search.record:record",
            "record proxy losses of many architectures, to compare strategies on (search --replay)",
            ("train",),
            ("architectures", "seed", "second_seed_for", "proxy.objective", "ray"),
        ),
        "compare-strategies": Command(
            "kdnas.search.comparison:compare_strategies",
            "compare search strategies on recorded losses of one or several teachers, with many seeds",
            ("train",),
            ("strategies", "runs", "limits", "frozen"),
        ),
        "fidelity": Command(
            "kdnas.evaluation.fidelity:fidelity",
            "test whether recorded losses rank students as long distillation and real tasks do",
            ("train", "export"),
            ("architectures", "tasks", "distill.steps", "ray"),
        ),
    },
    "train": {
        "teachers": Command(
            "kdnas.teachers.run:teachers", "list the teachers that need no model hub, and fetch them", first=("fetch",)
        ),
        "pretrain": Command(
            "kdnas.pretrain.run:pretrain",
            "train a custom teacher: a tokenizer and a masked language model",
            ("train",),
            ("vocabulary", "tokenizer", "start"),
        ),
        "distill": Command(
            "kdnas.distill.run:distill",
            "distil a student's hidden states (Eq. 1, 2) or embeddings from the teacher",
            ("train",),
            ("objective", "start", "peak_lr"),
        ),
        "refine": Command(
            "kdnas.distill.run:refine",
            "refine a distilled student by MiniLM-v2 relations (Eq. 5, 6)",
            ("train",),
            ("start", "hidden_state_weight", "peak_lr"),
        ),
        "autodistil": Command(
            "kdnas.autodistil.run:autodistil",
            "AutoDistil: train a family of students that share their weights",
            ("train",),
            ("layers", "ffn", "heads", "sub_spaces", "recipe", "member_schedule", "members_per_pass", "steps"),
        ),
        "extract": Command(
            "kdnas.autodistil.extract:extract",
            "write one member of a family as a stock model",
            ("train",),
            ("family", "budget_ms"),
        ),
        "static-student": Command(
            "kdnas.distill.static_run:static_student",
            "make a student without layers: averaged token vectors, fitted to the teacher's in closed form",
            ("train",),
            ("sentences", "inverse_frequency"),
        ),
        "task-texts": Command(
            "kdnas.evaluation.task_texts:task_texts",
            "write the texts of tasks, without labels, as a corpus for distill",
            ("train",),
            ("data_root",),
        ),
    },
    "export": {
        "export": Command(
            "kdnas.export.run:export",
            "write a model in ONNX and OpenVINO forms, and check each against PyTorch",
            ("train", "export"),
            ("forms", "evaluation", "languages"),
        ),
        "speed": Command(
            "kdnas.latency.speed:speed",
            "compare the speed of teacher and exported student on this host",
            ("train",),
            ("exported_teacher", "threads"),
        ),
        "peers": Command(
            "kdnas.latency.peers.run:compare_peers",
            "compare an exported encoder's speed, memory and answers in this and other libraries",
            ("train",),
            ("peers", "install_peers", "data_root", "threads"),
        ),
    },
    "evaluate": {
        "evaluate": Command(
            "kdnas.evaluation.run:evaluate",
            "compare a student with its teacher: hidden states, and fine-tuned HAP and topic tasks",
            ("train",),
            ("hap",),
        ),
        "suites": Command(
            "kdnas.evaluation.harness:suites",
            "fine-tune a model on GLUE, SQuAD, CoNLL, XNLI, TyDi, NER, HAP; score it in any engine",
            ("train", "export"),
            ("data_root", "engines", "seeds"),
        ),
        "hap": Command(
            "kdnas.evaluation.hap_classifier.run:hap",
            "make a classifier of hate, abuse and profanity from an encoder, with thresholds and a card",
            ("train",),
            ("data_root", "sets", "leave_out", "languages", "precision", "false_positive_rate", "max_minutes"),
        ),
        "hap-check": Command(
            "kdnas.evaluation.hap_classifier.check:hap_check",
            "measure a classifier of hate on functional cases: negation, quotation, groups",
            ("train",),
            ("languages", "label", "threshold", "form"),
        ),
        "compare-suites": Command(
            "kdnas.evaluation.compare:compare_suites",
            "compare models on the suites, with each other and with the paper's",
            ("report",),
            ("page",),
        ),
        "compare-embeddings": Command(
            "kdnas.evaluation.front:compare_embeddings",
            "draw nDCG of embeddings against milliseconds, between the static student and the teacher",
            ("train",),
            ("page",),
        ),
    },
    "use": {
        "serve": Command(
            "kdnas.serving.run:serve",
            "answer HTTP requests with exported models",
            ("serve",),
            ("host", "port", "key_file", "too_long", "form", "threads", "processes", "bench"),
            "model",
        ),
        "filter": Command(
            "kdnas.filtering.run:filter_documents",
            "score and split a corpus of any size with an exported classifier",
            (),
            (
                "mode",
                "label",
                "threshold",
                "column",
                "form",
                "threads",
                "gate.use",
                "cluster",
                "shard_index",
                "shard_count",
            ),
        ),
        "filter apply": Command(
            "kdnas.filtering.recorded:filter_apply",
            "split a corpus by recorded scores (filter --mode annotate), without the model",
            (),
            ("run", "threshold", "label"),
        ),
        "filter finish": Command(
            "kdnas.filtering.finish:filter_finish",
            "check and sum up a run that several processes scored (--shard-index)",
        ),
    },
    "gates": {
        "gate check": Command(
            "kdnas.gates.run:gate_check",
            "compare sizes, operators, outputs and tables with the committed facts: exit 3 if any differ",
            ("train", "export"),
            ("facts", "tables", "write"),
        ),
        "gate compare": Command(
            "kdnas.gates.run:gate_compare",
            "test whether a revision, wheel or model is slower than another one: exit 3 if it is",
            ("train", "gate"),
            ("head", "base_model", "head_model", "suite"),
        ),
        "gate run": Command(
            "kdnas.gates.run:gate_run",
            "run the benchmarks of the hot paths once, with pytest-benchmark",
            ("train", "gate"),
            ("suite",),
        ),
    },
}
COMMANDS: dict[str, Command] = {name: command for group in GROUPS.values() for name, command in group.items()}

USAGE = """usage: kdnas COMMAND [--config FILE.yaml] [--option VALUE ...]

Find, distil and ship the fastest text encoder that this CPU can run.

{rows}

`kdnas COMMAND --help` lists a command's options. Options come from defaults, then the YAML file, then
environment variables (KDNAS_HOME for --home, KDNAS_LATENCY__MINUTES for --latency.minutes), then flags.
Exit codes: 0 done, 1 failed, 2 wrong usage, 3 a gate or bound not met, 4 done with quarantined records."""
GATE_USAGE = """usage: kdnas gate COMMAND [--config FILE.yaml] [--option VALUE ...]

Performance gates: test whether a change makes something slower, larger or different.

{rows}

`kdnas gate COMMAND --help` lists a command's options."""


def usage() -> str:
    """The text of `kdnas --help`."""
    return USAGE.format(rows="\n\n".join(f"{group}:\n{_rows(commands)}" for group, commands in GROUPS.items()))


def gate_usage() -> str:
    """The text of `kdnas gate --help`."""
    return GATE_USAGE.format(rows=f"commands:\n{_rows(GROUPS['gates'])}")


def _rows(commands: dict[str, Command]) -> str:
    return "\n".join(f"  {name:<18}  {command.summary}" for name, command in commands.items())


def split_command(argv: list[str]) -> tuple[str, list[str]]:
    """Split the arguments into the command's name, of one or two words, and the rest.

    Raises:
        UsageError: there is no such command; the message suggests the nearest one.
    """
    name, rest = argv[0], argv[1:]
    if name == "gate":
        word = rest[0] if rest else ""
        if f"gate {word}" not in COMMANDS:
            gates = [command.removeprefix("gate ") for command in GROUPS["gates"]]
            raise UsageError(
                f"unknown command 'gate {word}'{suggest(word, gates)}; `kdnas gate --help` lists {', '.join(gates)}"
            )
        name, rest = f"gate {word}", rest[1:]
    elif rest and f"{name} {rest[0]}" in COMMANDS:
        name, rest = f"{name} {rest[0]}", rest[1:]
    if name not in COMMANDS:
        raise UsageError(f"unknown command '{name}'{suggest(name, COMMANDS)}; `kdnas --help` lists them all")
    return name, rest


def load_command(name: str) -> Callable[..., Any]:
    """Import and return a command's function.

    Raises:
        KdnasError: a package that the command needs is not installed.
    """
    require_extras(f"'{name}'", COMMANDS[name].extras)
    module, _, attribute = COMMANDS[name].target.partition(":")
    try:
        function: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        if not error.name or error.name.partition(".")[0] == "kdnas":
            raise
        hint = explain_missing(error) or f"run: pip install {error.name}"
        raise KdnasError(f"'{name}' needs the package '{error.name}', which is not installed; {hint}") from error
    return function


def suggest(word: str, known: Iterable[str]) -> str:
    """` (did you mean 'X'?)` for the nearest known word, or an empty string."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean '{close[0]}'?)" if close else ""
