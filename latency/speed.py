"""Speed comparison of teacher and student: every engine in one run, on the same sentences, in blocks of random order."""

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kdnas.errors import UsageError
from kdnas.export.folder import FORMS, read_settings
from kdnas.export.session import Session
from kdnas.export.vocabulary import REPORT
from kdnas.latency.protocol import WARM_CALLS
from kdnas.models.engine import PYTORCH
from kdnas.models.folder import model_in, model_label
from kdnas.models.teacher import Teacher, load_encoder, resolve_teacher
from kdnas.store.artifact import Artifact, build
from kdnas.store.host import default_threads
from kdnas.store.json_files import append_jsonl, read_jsonl
from kdnas.store.outcome import Result
from kdnas.store.output import deliver, require_output
from kdnas.store.progress import say, stage
from kdnas.text.corpus import Corpus, sample_corpus, sentences_needed
from kdnas.text.readers import TextOptions

TEACHER, STUDENT = f"teacher {PYTORCH}", f"student {PYTORCH}"
TOKENIZER = "tokenizer"
LOG = "rounds.jsonl"
LEAST_SENTENCES = 1000  # minimum sample, so that neither split is empty
# Engines are interleaved in blocks of this many sentences, so that a slow phase of the host affects all of them.
BLOCK = 10

Call = Callable[[int], Any]  # runs sentence number n
Times = dict[str, list[float]]  # milliseconds of each engine, one per sentence


@dataclass(frozen=True)
class SpeedOptions:
    """Options of the speed comparison.

    Args:
        minutes: time budget of all rounds together; at least 2 rounds run in any case.
        sentences: number of held-out sentences, drawn at random.
        rounds: maximum number of rounds; in each round every engine runs every sentence once.
        threads: threads of every engine; null takes min(4, physical cores) for PyTorch and the session's default for the
            exported forms.
        seed: seed of the sentences and the order of the engines.
    """

    minutes: float = 1.5
    sentences: int = 200
    rounds: int = 10
    threads: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.minutes <= 0:
            raise UsageError(f"minutes is {self.minutes}; it must be above 0")
        if self.sentences < 10 or self.rounds < 2:
            raise UsageError(f"sentences is {self.sentences} and rounds is {self.rounds}; at least 10 and 2 are needed")
        if self.threads is not None and self.threads < 1:
            raise UsageError(f"threads is {self.threads}; at least 1 is needed")


def speed(
    student: Path,
    exported: Path,
    options: SpeedOptions = SpeedOptions(),
    teacher: str = "builtin:minilm-l6",
    corpus: str = "builtin:pydocs",
    text: TextOptions = TextOptions(),
    exported_teacher: Path | None = None,
    home: Path = Path("artifacts"),
    output: Path | None = None,
) -> Result:
    """Time teacher and student, in PyTorch and exported, on the same sentences on this host.

    Args:
        student: Hugging Face folder of the student, or the artifact of `kdnas distill` or `kdnas refine`.
        exported: the student's folder from `kdnas export`.
        options: timing options.
        teacher: `builtin:NAME` (`kdnas teachers` lists them), a folder, or a hub id.
        corpus: `builtin:pydocs`, a file or a hub id.
        text: how to read the corpus.
        exported_teacher: the teacher's folder from `kdnas export`; each of its forms is timed too and compared with the student's
            same form.
        home: root of artifacts.
        output: folder for a copy of the result as plain files; null keeps it only below `home`.
    """
    require_output(output, "speed")
    found = resolve_teacher(teacher, home)
    wanted = sentences_needed(0, options.sentences, text.validation_fraction)
    built = sample_corpus(home, corpus, text, found, max(LEAST_SENTENCES, wanted))
    artifact = run_speed(home, found, built, model_in(student), exported, options, exported_teacher)
    for line in lines_of(artifact.results):
        say(line)
    return deliver(artifact, output)


def lines_of(results: Mapping[str, Any]) -> list[str]:
    """One line per engine: milliseconds, and its speed-up over the teacher with the spread over the rounds."""
    rows = results["rows"]
    width = max(len(row["name"]) for row in rows)
    lines = [f"{'engine':{width}}  {'p50 ms':>8}  {'p90 ms':>8}  {'mean ms':>8}  {'times faster than the teacher':>29}"]
    for row in rows:
        times = f"{row['speedup']:.2f} ({row['speedup_low']:.2f} to {row['speedup_high']:.2f})"
        lines.append(
            f"{row['name']:{width}}  {row['p50_ms']:8.2f}  {row['p90_ms']:8.2f}  {row['mean_ms']:8.2f}  {times:>29}"
        )
    text = results["from_text"]
    lines.append(
        f"from text, with {text['tokenise_mean_ms']:.3f} ms of tokenising: {text['name']} is {text['speedup']:.2f} times "
        "faster than the teacher"
    )
    return lines


def run_speed(
    home: Path,
    teacher: Teacher,
    corpus: Corpus,
    student: Path,
    exported: Path,
    options: SpeedOptions,
    exported_teacher: Path | None = None,
) -> Artifact:
    """Time the model call alone, on token ids, of every engine at batch 1, interleaved.

    Args:
        home: root of artifacts.
        teacher: timed in PyTorch, float32, eager.
        corpus: its validation split gives the sentences; all engines get the teacher's token ids.
        student: Hugging Face folder, timed in PyTorch.
        exported: export of the student; each of its forms is timed.
        options: timing options.
        exported_teacher: export of the teacher; its forms are timed too.

    Raises:
        UsageError: a folder is not an export, or the student's vocabulary is not the teacher's.
    """
    checked = resolve_teacher(str(student))
    if checked.config["vocab_size"] != teacher.config["vocab_size"]:
        raise UsageError(
            f"{student}: vocabulary of {checked.config['vocab_size']}, the teacher's has {teacher.config['vocab_size']};"
            " both must read the same token ids"
        )
    inputs = {
        "teacher": teacher.digest,
        "corpus": corpus.digest,
        "student": checked.digest,
        "exported": Artifact.load(exported, "export").digest,
    }
    if exported_teacher is not None:
        inputs["exported teacher"] = Artifact.load(exported_teacher, "export").digest
    label = f"{teacher.label}-{model_label(student)}"

    def work(folder: Path) -> dict[str, Any]:
        return _work(folder, teacher, corpus, student, exported, options, exported_teacher)

    return build(home, "speed", label, {"options": options}, inputs, work)


def _work(
    folder: Path,
    teacher: Teacher,
    corpus: Corpus,
    student: Path,
    exported: Path,
    options: SpeedOptions,
    exported_teacher: Path | None,
) -> dict[str, Any]:
    import torch

    threads = options.threads or default_threads()
    rng = np.random.default_rng(options.seed)
    sentences = corpus.validation
    chosen = rng.choice(len(sentences), min(options.sentences, len(sentences)), replace=False)
    rows = [sentences[int(index)].astype(np.int64)[None] for index in chosen]
    texts = sentences.texts.at(chosen)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        sessions = _sessions(exported, options)
        teachers = [] if exported_teacher is None else _sessions(exported_teacher, options)
        engines = _engines(teacher, student, sessions, rows, texts)
        engines |= {f"teacher {session.form}": _session_call(session, rows) for session in teachers}
        exports = {f"student {session.form}": session.threads for session in sessions}
        exports |= {f"teacher {session.form}": session.threads for session in teachers}
        if note := threads_note(exports, threads):
            say(f"speed: {note}")
        rounds = _measure(folder / LOG, engines, rows, options)
    finally:
        torch.set_num_threads(before)
    return {
        "sentences": len(rows),
        "threads": threads,
        "session_threads": {session.form: session.threads for session in sessions},
        "rounds": len(rounds),
        "rows": summarise(rounds),
        "from_text": from_text(rounds, f"student {sessions[0].form}"),
    }


def threads_note(session_threads: Mapping[str, int], threads: int) -> str | None:
    """What to say if the exported forms run on another number of threads than PyTorch; None if all are equal.

    Args:
        session_threads: threads of each exported form: those that its export chose, unless the speed options set them.
        threads: threads of PyTorch.
    """
    others = {form: count for form, count in session_threads.items() if count != threads}
    if not others:
        return None
    listed = ", ".join(f"{form} {count}" for form, count in others.items())
    return f"threads differ: PyTorch {threads}, {listed}, as at the export; --threads {threads} gives all the same"


def _sessions(exported: Path, options: SpeedOptions) -> list[Session]:
    """One session per form of the export."""
    present = read_settings(exported)["forms"]
    return [Session(exported, form, options.threads) for form in FORMS if form in present]


def _engines(
    teacher: Teacher, student: Path, sessions: list[Session], rows: list[np.ndarray], texts: list[str]
) -> dict[str, Call]:
    """Every engine, and the tokenizer, by name, as a function that runs sentence number `index`.

    An export with a cut vocabulary gets the ids of its own tokenizer.
    """
    engines: dict[str, Call] = {TEACHER: _torch_call(teacher.path, rows), STUDENT: _torch_call(student, rows)}
    for session in sessions:
        cut = (session.path / REPORT).is_file()
        own = [np.array(session.encode([text]), dtype=np.int64) for text in texts] if cut else rows
        engines[f"student {session.form}"] = _session_call(session, own)
    engines[TOKENIZER] = lambda index: sessions[0].encode([texts[index]])
    return engines


def _torch_call(path: Path, rows: list[np.ndarray]) -> Call:
    import torch

    model = load_encoder(path)
    ids = [torch.from_numpy(row) for row in rows]
    masks = [torch.ones_like(row) for row in ids]

    @torch.inference_mode()
    def call(index: int) -> Any:
        return model(input_ids=ids[index], attention_mask=masks[index])

    return call


def _session_call(session: Session, rows: list[np.ndarray]) -> Call:
    padded = [session.pad(list(row)) for row in rows]
    return lambda index: session.run(*padded[index])


def _measure(log: Path, engines: dict[str, Call], rows: list[np.ndarray], options: SpeedOptions) -> list[Times]:
    """The rounds of an earlier, interrupted run, and new ones until `rounds` or `minutes` are used up."""
    rounds: list[Times] = [row["times_ms"] for row in read_jsonl(log)]
    spent = sum(sum(map(sum, times.values())) for times in rounds) / 1000
    with stage("speed", options.rounds, len(rounds)) as progress:
        _warm(engines, rows)
        start = time.monotonic()
        while len(rounds) < options.rounds:
            if len(rounds) >= 2 and spent + time.monotonic() - start > 60 * options.minutes:
                break
            rounds.append(one_round(engines, len(rows), np.random.default_rng([options.seed, len(rounds)])))
            append_jsonl(log, {"round": len(rounds), "times_ms": rounds[-1]})
            progress.update(len(rounds))
        progress.update(options.rounds)
    return rounds


def _warm(engines: dict[str, Call], rows: list[np.ndarray]) -> None:
    """Run one sentence of every length in every engine: the first run of a length is slow."""
    indices = {row.shape[1]: index for index, row in enumerate(rows)}
    for call in engines.values():
        for index in indices.values():
            call(index)


def one_round(engines: dict[str, Call], sentences: int, rng: np.random.Generator) -> Times:
    """Run every sentence once in every engine, in blocks, with the engines of a block in random order.

    Returns:
        Milliseconds of each engine, one per sentence.
    """
    times: Times = {name: [0.0] * sentences for name in engines}
    names = list(engines)
    collecting = gc.isenabled()
    gc.disable()
    try:
        for first in range(0, sentences, BLOCK):
            for number in rng.permutation(len(names)):
                call, own = engines[names[number]], times[names[number]]
                for index in range(first - WARM_CALLS, first):  # not timed: warms caches and threads again
                    call(index % sentences)
                for index in range(first, min(first + BLOCK, sentences)):
                    start = time.perf_counter_ns()
                    call(index)
                    own[index] = round((time.perf_counter_ns() - start) / 1e6, 5)
    finally:
        if collecting:
            gc.enable()
    return times


def summarise(rounds: list[Times]) -> list[dict[str, Any]]:
    """One row per engine: p50, p90 and mean over all sentences and rounds, and the speed-up over the teacher by round.

    The speed-up is over the teacher in PyTorch and, if it was timed, over the teacher in the same engine and precision.
    """
    rows: list[dict[str, Any]] = []
    for name in (name for name in rounds[0] if name != TOKENIZER):
        every = np.concatenate([times[name] for times in rounds])
        ratios = [np.mean(times[TEACHER]) / np.mean(times[name]) for times in rounds]
        p50, p90 = np.percentile(every, [50, 90])
        row = {"name": name, "p50_ms": round(float(p50), 4), "p90_ms": round(float(p90), 4)}
        rows.append({**row, "mean_ms": round(float(every.mean()), 4), **_spread(ratios)})
        same = name.replace("student ", "teacher ")
        if same != name and same in rounds[0]:
            alike = [np.mean(times[same]) / np.mean(times[name]) for times in rounds]
            rows[-1] |= {f"same_engine_{key}": value for key, value in _spread(alike).items()}
    return rows


def from_text(rounds: list[Times], name: str) -> dict[str, Any]:
    """Speed-up of one engine over the teacher, with the same tokenising time added to both."""
    tokenise = np.concatenate([times[TOKENIZER] for times in rounds])
    ratios = [
        np.add(times[TEACHER], times[TOKENIZER]).mean() / np.add(times[name], times[TOKENIZER]).mean()
        for times in rounds
    ]
    return {"name": name, "tokenise_mean_ms": round(float(tokenise.mean()), 4), **_spread(ratios)}


def _spread(ratios: list[Any]) -> dict[str, float]:
    low, middle, high = (round(float(value), 3) for value in np.percentile(ratios, [5, 50, 95]))
    return {"speedup": middle, "speedup_low": low, "speedup_high": high}
