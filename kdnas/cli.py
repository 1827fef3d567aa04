"""The command table. Each command is a plain function whose signature is its interface, imported only when called."""

import difflib
import importlib
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, get_args, get_origin

from kdnas.errors import KdnasError, Terminated, UsageError


@dataclass(frozen=True)
class Command:
    """One row of the table: `module:function` and the line that `kdnas --help` shows."""

    target: str
    summary: str


COMMANDS = {
    "pipeline": Command(
        "kdnas.pipeline.stages:pipeline", "all stages: table, search, distil, refine, export, evaluate, report"
    ),
    "latency-table": Command("kdnas.latency.run:latency_table", "measure what 2400 architectures cost on this host"),
    "recommend": Command(
        "kdnas.latency.recommend:recommend", "the most capable architectures that fit a latency budget"
    ),
    "compare-latency": Command(
        "kdnas.latency.compare:compare_latency", "whether two latency tables differ beyond their error"
    ),
    "latency-report": Command("kdnas.latency.report:latency_report", "one self-contained HTML page of a latency table"),
    "search": Command("kdnas.search.run:search", "KD-NAS: propose architectures, distil each briefly, keep the best"),
    "record": Command(
        "kdnas.search.record:record",
        "proxy losses of many architectures, to compare search strategies on (search --replay)",
    ),
    "compare-strategies": Command(
        "kdnas.search.comparison:compare_strategies",
        "search strategies side by side on recorded losses, with many seeds",
    ),
    "pretrain": Command(
        "kdnas.pretrain.run:pretrain", "a teacher of one's own: a tokenizer and a masked language model"
    ),
    "distill": Command("kdnas.distill.run:distill", "distil a student's hidden states from the teacher (Eq. 1, 2)"),
    "refine": Command("kdnas.distill.run:refine", "refine a distilled student by MiniLM-v2 relations (Eq. 5, 6)"),
    "export": Command(
        "kdnas.export.run:export", "write ONNX and OpenVINO forms of a model, each checked against PyTorch"
    ),
    "evaluate": Command(
        "kdnas.evaluation.run:evaluate", "what a student keeps of its teacher; fine-tuned HAP and topic tasks"
    ),
    "suites": Command(
        "kdnas.evaluation.harness:suites",
        "fine-tune a model on GLUE, SQuAD, CoNLL, XNLI, TyDi, NER, HAP and score it in any engine",
    ),
    "compare-suites": Command(
        "kdnas.evaluation.compare:compare_suites", "models side by side on the suites, and beside the paper's"
    ),
    "task-texts": Command(
        "kdnas.evaluation.task_texts:task_texts", "the texts of tasks without their labels, as a corpus for distill"
    ),
    "speed": Command("kdnas.latency.speed:speed", "teacher and exported student side by side on this host"),
    "fidelity": Command(
        "kdnas.evaluation.fidelity:fidelity",
        "whether recorded losses rank students as long distillation and real tasks do",
    ),
    "serve": Command("kdnas.serving.run:serve", "answer HTTP requests with an exported model"),
    "filter": Command("kdnas.serving.filter:filter_documents", "score and split a corpus with an exported classifier"),
    "gate run": Command("kdnas.gates.run:gate_run", "benchmarks of the hot paths, once, by pytest-benchmark"),
    "gate check": Command(
        "kdnas.gates.run:gate_check", "sizes, operators, outputs and tables that are not as committed: exit 3"
    ),
    "gate compare": Command(
        "kdnas.gates.run:gate_compare", "whether a revision, wheel or model is slower than another one: exit 3"
    ),
    "report": Command("kdnas.pipeline.report:report", "one self-contained HTML page of a pipeline's results"),
}

USAGE = """usage: kdnas COMMAND [--config FILE.yaml] [--option VALUE ...]

Find, distil and ship the fastest text encoder that this CPU can run.

commands:
{rows}

`kdnas COMMAND --help` lists a command's options. Options come from defaults, then the YAML file, then
environment variables (KDNAS_HOME for --home, KDNAS_LATENCY__MINUTES for --latency.minutes), then flags.
Exit codes: 0 done, 1 failed, 2 wrong usage, 3 a gate or bound not met, 4 done with quarantined records."""


def usage() -> str:
    """The text of `kdnas --help`."""
    return USAGE.format(rows="\n".join(f"  {name:<18} {command.summary}" for name, command in COMMANDS.items()))


def main(argv: list[str] | None = None) -> NoReturn:
    """Entry point of `kdnas`; always exits."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(usage())
        sys.exit(0)
    if argv[0] in ("-V", "--version"):
        from kdnas import __version__

        print(__version__)
        sys.exit(0)
    # Several commands hold worker processes: a terminating parent must run its `finally` blocks.
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:  # a script's background job ignores Ctrl-C
            signal.signal(number, _raise_once)
    if len(argv) > 1 and f"{argv[0]} {argv[1]}" in COMMANDS:
        argv = [f"{argv[0]} {argv[1]}", *argv[2:]]
    sys.exit(_run(argv))


_signals: list[tuple[int, float]] = []  # number and second of each signal that was raised as an exception
REPEAT_SECONDS = 1.0


def _raise_once(number: int, _frame: FrameType | None) -> None:
    """Raise for the signal, but not for one within a second of the last: a second Ctrl-C would break off the clean-up."""
    now = time.monotonic()
    if not _signals or now - _signals[-1][1] > REPEAT_SECONDS:
        _signals.append((number, now))
        raise KeyboardInterrupt if number == signal.SIGINT else Terminated


def _run(argv: list[str]) -> int:
    from kdnas.store.outcome import exit_code_of, stdout_text
    from kdnas.store.progress import is_first_process, show_messages

    try:
        if argv[0] not in COMMANDS:
            raise UsageError(f"unknown command '{argv[0]}'{_suggest(argv[0], COMMANDS)}; `kdnas --help` lists them all")
        function = load_command(argv[0])
        values = parse(argv[0], function, argv[1:])
        show_messages()
        result = function(**values)
        if is_first_process() and (text := stdout_text(result)):
            print(text, flush=True)
        return exit_code_of(result)
    except (Exception, KeyboardInterrupt, Terminated) as error:
        return _exit_code(error)


def _exit_code(error: BaseException) -> int:
    """Say what ended the command; a library in whose call a signal arrives may have turned its exception into another."""
    first = _signals[0][0] if _signals else None
    if first:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # from here on the command ends by itself
    if first == signal.SIGTERM or isinstance(error, Terminated):
        print("kdnas: terminated; the same command goes on from here", file=sys.stderr)
        return 143
    if first == signal.SIGINT or isinstance(error, KeyboardInterrupt):
        print("kdnas: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    if isinstance(error, KdnasError):
        print(f"kdnas: {error}", file=sys.stderr)
        return error.exit_code
    if isinstance(error, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return _internal_error(error)


def _internal_error(error: BaseException) -> int:
    """Keep the traceback in a file, show one line; `KDNAS_DEBUG=1` shows it all."""
    if os.environ.get("KDNAS_DEBUG"):
        traceback.print_exc()
        return 1
    first = (str(error).strip() or "no message").splitlines()[0]
    where = ""
    try:
        log = Path(os.environ.get("KDNAS_HOME", "artifacts")) / "error.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("".join(traceback.format_exception(error)))
        where = f" (traceback in {log})"
    except OSError:
        pass
    print(f"kdnas: internal error: {type(error).__name__}: {first}{where}; finished stages are kept", file=sys.stderr)
    return 1


def load_command(name: str) -> Callable[..., Any]:
    """Import a command's function.

    Raises:
        KdnasError: an optional part of the installation is missing.
    """
    module, _, attribute = COMMANDS[name].target.partition(":")
    try:
        function: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        raise KdnasError(
            f"'{name}' needs the package '{error.name}', which is not installed; "
            "run `make setup` in the checkout, or `pip install 'kdnas[train,export,serve]' -c requirements.lock`"
        ) from error
    return function


def parse(name: str, function: Callable[..., Any], argv: list[str]) -> dict[str, Any]:
    """Read a command's arguments: defaults < YAML < environment < flags.

    A parameter named `options` is a dataclass whose fields are flags of their own; other dataclasses are dotted groups.

    Raises:
        UsageError: an unknown key, a wrong type, a missing file.
    """
    from argparse import ArgumentError

    from jsonargparse import ArgumentParser

    files, argv = _config_files(argv)
    parser = ArgumentParser(
        prog=f"kdnas {name}",
        default_config_files=files,  # unlike a `--config` action, these stay below the environment
        description=COMMANDS[name].summary,
        exit_on_error=False,
        allow_abbrev=False,
        default_env=True,
        env_prefix="KDNAS",
    )
    parser.add_argument("--config", type=Path, help="YAML file with any of these options; may be given several times")
    parameters = signature(function).parameters
    flattened = parameters["options"].annotation if "options" in parameters else None
    if flattened is not None:
        parser.add_class_arguments(flattened, None)
    parser.add_function_arguments(function, None, skip={"options"})
    try:
        namespace = parser.parse_args(_normalise(argv, parser))
        values = {key: value for key, value in vars(parser.instantiate(namespace)).items() if key != "config"}
    except ArgumentError as error:
        raise UsageError(_explain(str(error), name, parser)) from error
    if flattened is not None:
        fields = signature(flattened).parameters
        values["options"] = flattened(**{key: values.pop(key) for key in fields})
    return values


def _config_files(argv: list[str]) -> tuple[list[str | os.PathLike[str]], list[str]]:
    """Split the YAML files of `--config` (or of KDNAS_CONFIG) off the arguments.

    Raises:
        UsageError: a file is missing, not UTF-8 or not YAML.
    """
    import yaml

    files: list[str | os.PathLike[str]] = []
    rest, words = [], iter(argv)
    for word in words:
        if word == "--config":
            files.append(next(words, ""))
        elif word.startswith("--config="):
            files.append(word.partition("=")[2])
        else:
            rest.append(word)
    if not files and "KDNAS_CONFIG" in os.environ:
        files = [os.environ["KDNAS_CONFIG"]]
    for file in files:
        try:
            content = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            reason = " ".join(str(error).split())
            raise UsageError(f"--config {file}: it does not exist or is not a YAML file ({reason})") from error
        if not isinstance(content, dict):
            raise UsageError(f"--config {file}: it must hold `option: value` lines, not {type(content).__name__}")
    return files, rest


def _normalise(argv: list[str], parser: Any) -> list[str]:
    """Allow `--dry-run` for `--dry_run`, `--flag` for `--flag true` and `--no-flag` for `--flag false`, `a,b` for `[a,b]`."""
    types = {
        option: getattr(action, "_typehint", None) for action in parser._actions for option in action.option_strings
    }
    result: list[str] = []
    for place, word in enumerate(argv):
        follows = argv[place + 1] if place + 1 < len(argv) else ""
        if not word.startswith("--"):
            result.append(_listed(word, types.get(result[-1]) if result else None))
            continue
        option, equals, value = word.partition("=")
        option = "--" + option[2:].replace("-", "_")
        if types.get("--" + option.removeprefix("--no_")) is bool and option not in types and not equals:
            result += ["--" + option.removeprefix("--no_"), "false"]
            continue
        result.append(option + equals + (_listed(value, types.get(option)) if equals else ""))
        if types.get(option) is bool and not equals and follows.lower() not in ("true", "false", "yes", "no"):
            result.append("true")
    return result


def _listed(word: str, kind: Any) -> str:
    """`a,b` as `[a,b]` where the type is a tuple, also one that may be None."""
    several = any(get_origin(part) is tuple for part in (kind, *get_args(kind)))
    return f"[{word}]" if several and not word.startswith("[") and word != "null" else word


def _explain(message: str, name: str, parser: Any) -> str:
    """jsonargparse's message in one line, with the nearest valid key where a key was misspelt."""
    line = re.sub(r"\s+", " ", message).strip()
    line = re.sub(r'Parser key "([^"]+)":', r"--\1:", line).replace("<class '", "").replace("'>", "")
    keys = [option[2:] for action in parser._actions for option in action.option_strings if option.startswith("--")]
    given = re.search(r"(?:unrecognized arguments: --|Option '|option ')([\w.]+)", line)
    group = re.search(r"Group '([\w.]+)'", line)
    hint = _suggest((f"{group[1]}." if group else "") + given[1], keys) if given else ""
    return f"{name}: {line}{hint}; `kdnas {name} --help` lists the options"


def _suggest(word: str, known: Any) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean '{close[0]}'?)" if close else ""


if __name__ == "__main__":
    main()
