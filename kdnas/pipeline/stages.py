"""`kdnas pipeline`: all stages in order. Each stage is an artifact, and a second run skips the finished ones."""

import os
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from kdnas.distill.options import DistillOptions, RefineOptions
from kdnas.distill.run import run_distill, run_refine
from kdnas.evaluation.evaluating import LABELLED
from kdnas.evaluation.hap import read_hap
from kdnas.evaluation.options import EvaluationOptions
from kdnas.evaluation.report import show
from kdnas.evaluation.run import run_evaluation
from kdnas.export.labelled import LEAST
from kdnas.export.options import ExportOptions
from kdnas.export.run import run_export
from kdnas.latency.protocol import LatencyOptions
from kdnas.latency.run import build_table
from kdnas.latency.speed import SpeedOptions, run_speed
from kdnas.models.arch import Arch, SearchSpace
from kdnas.models.folder import model_digest
from kdnas.models.table import LatencyTable
from kdnas.models.teacher import BUILTIN, Teacher, resolve_teacher
from kdnas.pipeline.plan import plan
from kdnas.pipeline.report import write_report
from kdnas.pipeline.summary import summarise
from kdnas.search.options import SearchOptions
from kdnas.search.requirements import require_distilling, require_full
from kdnas.search.run import run_search
from kdnas.store.artifact import Artifact
from kdnas.store.digest import digest_of
from kdnas.store.disk import disk_errors
from kdnas.store.host import host_line
from kdnas.store.json_files import write_json
from kdnas.store.outcome import Outcome
from kdnas.store.output import copy_output, files_below, require_output
from kdnas.store.progress import clock, say
from kdnas.text.corpus import Corpus, build_corpus
from kdnas.text.readers import TextOptions

KIND = "pipeline"  # kind of the result that --output receives


@dataclass
class PipelineRun:
    """The inputs of every stage, and the artifacts of the finished stages by name, in order."""

    home: Path
    teacher: Teacher
    corpus: Corpus
    started: float
    artifacts: dict[str, Artifact] = field(default_factory=dict)

    def stage(self, name: str, work: Callable[[], Artifact]) -> Artifact:
        """Run one stage, or load its finished artifact, and print its name, folder and time."""
        say(f"\n[{clock(time.monotonic() - self.started)}] {name}")
        begun = time.monotonic()
        artifact = self.artifacts[name] = work()
        say(f"{name}: {artifact.path} ({clock(time.monotonic() - begun)})")
        return artifact


def pipeline(
    teacher: str = BUILTIN,
    corpus: str = "builtin:pydocs",
    text: TextOptions = TextOptions(),
    hap: Path | None = None,
    space: SearchSpace = SearchSpace(),
    latency: LatencyOptions = LatencyOptions(),
    search: SearchOptions = SearchOptions(),
    distill: DistillOptions = DistillOptions(),
    refine: RefineOptions = RefineOptions(),
    export: ExportOptions = ExportOptions(),
    evaluation: EvaluationOptions = EvaluationOptions(),
    speed: SpeedOptions = SpeedOptions(),
    home: Path = Path("artifacts"),
    dry_run: bool = False,
    output: Path | None = None,
) -> Outcome:
    """Run all stages. After an interruption, the same command resumes where it stopped.

    Args:
        teacher: `builtin:NAME` (`kdnas teachers` lists them), a folder, or a hub id of a BERT, RoBERTa or XLM-RoBERTa encoder.
        corpus: `builtin:pydocs`, a .jsonl, .parquet or .txt file (also .gz, .zst) or a folder of them, several of both separated
            by commas, or a hub id.
        text: options for reading the corpus.
        hap: file or folder with a HAP set (columns tweet,class or text,label) for fine-tuning and scoring; null skips the task.
        space: the values that the search may choose from.
        latency: options of the latency table.
        search: options of the KD-NAS search and its proxy distillation.
        distill: options of the hidden-state distillation of the winner.
        refine: options of the MiniLM-v2 refinement.
        export: options of the export and its parity check.
        evaluation: options of the comparison of student and teacher.
        speed: options of the timing of teacher and student.
        home: root folder of all artifacts.
        dry_run: print the plan (steps, tokens, disk, hours on this host) and stop.
        output: folder to which report, student and exports are also copied as plain files; null writes only below `home`.
    """
    require_output(output, KIND)
    if hap is not None:
        evaluation = replace(evaluation, hap=hap)
    require_full(search, distill)
    require_distilling(search)
    if dry_run:
        return plan(teacher, text, space, latency, search, distill, refine, home)
    if evaluation.hap is not None:
        read_hap(evaluation.hap, evaluation.seed)  # reject an invalid file before the long stages
    checked = resolve_teacher(teacher, home)
    cut = space.teachable(checked.layers)
    say(f"host: {host_line()}")
    with disk_errors(home):
        home.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    sentences = build_corpus(home, corpus, text, checked)
    run = PipelineRun(home, checked, sentences, started, {"corpus": sentences.artifact})
    winner = choose_arch(run, cut, latency, search, distill)
    refined = train_student(run, winner, distill, refine)
    exported = ship_student(run, refined, export, evaluation)
    run.stage("speed", lambda: run_speed(home, checked, sentences, refined.path / "student", exported.path, speed))
    return publish(run, output)


def choose_arch(
    run: PipelineRun, space: SearchSpace, latency: LatencyOptions, search: SearchOptions, distill: DistillOptions
) -> Arch:
    """The winner of a search with this host's latencies, over a space that fits the teacher."""
    table = run.stage("latency-table", lambda: build_table(run.home, run.teacher, run.corpus, latency))
    given = (run.home, run.teacher, run.corpus, space, LatencyTable.of(table), search)
    found = run.stage("search", lambda: run_search(*given, distill=distill))
    return Arch.parse(found.results["winner"])


def train_student(run: PipelineRun, arch: Arch, distill: DistillOptions, refine: RefineOptions) -> Artifact:
    """The distilled and refined student."""
    distilled = run.stage("distill", lambda: run_distill(run.home, run.teacher, run.corpus, arch, distill))
    student = distilled.path / "student"
    digest = model_digest(student)
    return run.stage("refine", lambda: run_refine(run.home, run.teacher, run.corpus, student, digest, refine))


def ship_student(run: PipelineRun, refined: Artifact, export: ExportOptions, evaluation: EvaluationOptions) -> Artifact:
    """Export and evaluate the student, and export the classifier that the evaluation fine-tunes. Returns the exported student."""
    student = refined.path / "student"
    digest = model_digest(student)
    plain = replace(export, evaluation=None)  # labelled texts are for the classifier
    exported = run.stage("export", lambda: run_export(run.home, student, digest, run.corpus, plain))
    judged = run.stage(
        "evaluation",
        lambda: run_evaluation(run.home, run.teacher, run.corpus, student, digest, evaluation),
    )
    show(judged.results)
    task = next((name for name in ("hap", "topic") if judged.results.get(name)), None)
    if task:
        folder = judged.path / "classifiers" / task
        classifier = model_digest(folder)
        test = judged.path / LABELLED.format(task) if judged.results[task]["test_examples"] >= LEAST else None
        judging = replace(export, evaluation=export.evaluation or test)
        run.stage("classifier", lambda: run_export(run.home, folder, classifier, run.corpus, judging))
    return exported


def publish(run: PipelineRun, output: Path | None = None) -> Outcome:
    """Write the report, link report, student and exports in `latest` below the run's home, and return the report."""
    home = run.home
    folder = home / "runs" / digest_of({name: artifact.digest for name, artifact in run.artifacts.items()})[:12]
    with disk_errors(home):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(
            folder / "artifacts.json", {name: artifact.path.resolve() for name, artifact in run.artifacts.items()}
        )
        write_report(run.artifacts, folder / "report.html")
        (folder / "report.md").write_text(summarise(run.artifacts))
        link(folder / "student", run.artifacts["refine"].path / "student")
        link(folder / "encoder", run.artifacts["export"].path)
        if "classifier" in run.artifacts:
            link(folder / "classifier", run.artifacts["classifier"].path)
        link(home / "latest", folder)
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    latest = home / "latest"
    say(f"\ndone in {clock(time.monotonic() - run.started)}, peak memory {peak / 2**20:.2f} GiB")
    say(f"report:   {latest / 'report.html'}")
    say(f"student:  {latest / 'student'} (transformers), {latest / 'encoder'} (ONNX Runtime, OpenVINO)")
    if "classifier" in run.artifacts:
        say(f"try it:   kdnas serve --model {latest / 'classifier'}")
    results = {name: str(artifact.path) for name, artifact in run.artifacts.items()}
    if output is None:
        return Outcome(latest / "report.html", results)
    copy_output({file: folder / file for file in files_below(folder)}, output, KIND)
    return Outcome(output / "report.html", results)


def link(index: Path, target: Path) -> None:
    """Point the symbolic link `index` to `target`, atomically. The link is relative, so that `home` can be moved."""
    temporary = index.with_name(index.name + ".tmp")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(os.path.relpath(target.resolve(), index.parent.resolve()), target_is_directory=True)
    os.replace(temporary, index)
