"""`kdnas suites`: fine-tune a model on downstream tasks and score it, in PyTorch and in any exported form."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from kdnas.errors import UsageError
from kdnas.evaluation.averages import averaging, headline
from kdnas.evaluation.chance import chance, chance_by_language, standard_error
from kdnas.evaluation.data import Loaded, load_task
from kdnas.evaluation.embedding_run import KIND, run_embeddings, show_embeddings
from kdnas.evaluation.embedding_tasks import NAMES
from kdnas.evaluation.languages import in_languages
from kdnas.evaluation.reading import NoDataError
from kdnas.evaluation.sampling import sample
from kdnas.evaluation.spec import Spec
from kdnas.evaluation.suite_options import SuiteOptions
from kdnas.evaluation.suite_report import show_runs
from kdnas.evaluation.suite_scores import score
from kdnas.evaluation.suites import chosen_specs
from kdnas.evaluation.tasks import Task
from kdnas.models.family import shape_of
from kdnas.models.folder import model_label
from kdnas.models.packaged import HOME
from kdnas.store.artifact import Artifact, build
from kdnas.store.host import host_line
from kdnas.store.json_files import write_json
from kdnas.store.outcome import Result
from kdnas.store.output import deliver_all, require_output
from kdnas.store.progress import say, stage

RESULT = "result.json"
MODEL = "model"
SCHEMA = 3  # of fine-tuned models; 1 had other dev and train rows, 2 was chosen by the dev score over the rows of all languages
SCORES = 2  # of scores; since 2 the headline is the mean over languages, and entities that are cut off count as missed
PLAN, UNFINISHED = "plan.json", "tuning"  # of a fine-tuning that has not finished
SUMMARY = (
    "task", "metric", "score", "averaging", "pooled_score", "chance", "seed", "learning_rate", "notes", "seconds",
)  # fmt: skip
# Factor on the paper's learning rate for the other candidate: students need larger rates than published models.
LARGER = 5


def suites(
    model: str,
    tasks: tuple[str, ...],
    options: SuiteOptions = SuiteOptions(),
    home: Path = Path("artifacts"),
    output: Path | None = None,
) -> list[Result]:
    """Fine-tune a model on tasks of the downstream suites and score it; returns one result for each task and seed.

    The tasks of `embeddings` score the model's vectors as they are.

    Args:
        model: Hugging Face folder of an encoder, a finished distill or refine artifact, a hub id, or `builtin:minilm-l6`; for
            `embeddings` in other engines than PyTorch, the folder that `kdnas export` printed.
        tasks: suites (`glue`, `squad`, `conll`, `xnli`, `paraphrase`, `tydiqa`, `qa`, `ner`, `sentiment`, `hap`, `embeddings`) or
            single tasks (`glue/sst2`, `embeddings/stsb`).
        options: options of fine-tuning and scoring.
        home: root folder of all artifacts.
        output: folder to which each result is also copied, as a subfolder of plain files; null writes only below `home`.

    Raises:
        UsageError: a task is unknown or has none of the languages, the model cannot be loaded, or no task has data.
    """
    untrained = tuple(name for name in tasks if name in NAMES)
    tuned = tuple(name for name in tasks if name not in NAMES)
    if untrained and tuned:
        raise UsageError(
            f"suites: {', '.join(untrained)} needs no fine-tuning; run it alone, without {', '.join(tuned)}"
        )
    require_output(output, KIND if untrained else "suite")
    found = (run_embeddings if untrained else run_suites)(home, model, tasks, options)
    show = show_embeddings if untrained else show_runs
    show([json.loads((artifact.path / RESULT).read_text()) for artifact in found])
    return deliver_all(found, output)


def run_suites(home: Path, model: str, tasks: Sequence[str], options: SuiteOptions) -> list[Artifact]:
    """Return one finished artifact for each task and seed; existing artifacts are reused.

    Raises:
        UsageError: as in `suites`.
    """
    specs = in_languages(chosen_specs(tuple(tasks)), options.taught, options.languages)
    folder, digest = resolve_model(model, home)
    artifacts, missing = [], []
    for spec in specs:
        try:
            loaded = load_task(spec, options.data_root)
        except NoDataError as error:
            missing.append(spec.name)
            say(f"suites: left out: {error}")
            continue
        artifacts += _Runs(home, model_name(model), folder, digest, spec, _cut_test(loaded, options), options).all()
    if not artifacts:
        raise UsageError(f"suites: no data for any of {', '.join(missing)}; give local files with --data_root")
    if missing:
        say(
            f"suites: {len(missing)} of {len(specs)} tasks left out, because their data is not available: {', '.join(missing)}"
        )
    return artifacts


def resolve_model(model: str, home: Path = HOME) -> tuple[Path, str]:
    """Folder and digest of an encoder, given as a folder, an artifact, a hub id or the name of a packaged model.

    Args:
        model: the encoder.
        home: root folder of all artifacts, below which fetched teachers lie.

    Raises:
        UsageError: the model cannot be loaded.
    """
    from kdnas.evaluation.run import resolve_student
    from kdnas.models.teacher import resolve_teacher

    return resolve_student(Path(model) if Path(model).exists() else resolve_teacher(model, home).path)


def model_name(model: str) -> str:
    """A model's name in tables: the name of its folder or artifact if it is a path, else the given text."""
    if not Path(model).exists():
        return model
    return model_label(Path(model))


def architecture_of(folder: Path) -> str:
    """The architecture in a folder's configuration, as `L4-H12-D576-F768-gelu`."""
    return shape_of(json.loads((folder / "config.json").read_text())).name


def _cut_test(loaded: Loaded, options: SuiteOptions) -> Loaded:
    """The data with at most `max_test` random test rows of each language, and a note if rows were left out."""
    if options.max_test is None:
        return loaded
    test = loaded.task.test
    cut = sample(test, options.max_test, seed=0)
    notes = [*loaded.notes, f"scored {len(cut)} of {len(test)} test rows"] if len(cut) < len(test) else loaded.notes
    return replace(loaded, task=replace(loaded.task, test=cut), notes=notes)


@dataclass(frozen=True)
class _Runs:
    """The runs of one task, one for each seed."""

    home: Path
    name: str
    model: Path
    digest: str
    spec: Spec
    loaded: Loaded
    options: SuiteOptions

    def all(self) -> list[Artifact]:
        """The artifact of each seed; the first seed chooses the learning rate."""
        spec, options = self.spec, self.options
        rates = options.learning_rates or (LARGER * spec.learning_rate, spec.learning_rate)
        first = self._one(options.seeds[0], rates)
        rate = first.results["learning_rate"]
        return [first, *(self._one(seed, (rate,)) for seed in options.seeds[1:])]

    def _one(self, seed: int, rates: Sequence[float]) -> Artifact:
        """The scores of one seed's model; the model is trained if it does not exist. All engines score the same model."""
        tuned = self._tuned(seed, rates)
        scoring = {name: getattr(self.options, name) for name in ("engines", "max_test", "precision")}
        config = {**tuned.manifest["config"], **scoring, "scores": SCORES}
        return self._build("suite", seed, config, {"tuned": tuned.digest}, lambda path: self._score(path, tuned))

    def _tuned(self, seed: int, rates: Sequence[float]) -> Artifact:
        names = ("epochs", "batch_size", "embedding_rows", "max_examples", "max_minutes")
        config = {name: getattr(self.options, name) for name in names}
        config |= {"task": self.spec.name, "seed": seed, "rates": list(rates), "schema": SCHEMA}
        config |= {"taught": self.spec.taught_languages, "languages": self.spec.languages}
        if self.options.max_minutes is not None:
            config["scored_rows"] = self._scored_rows()  # scoring leaves less time for training
        return self._build("tuned", seed, config, {}, lambda path: self._train(path, seed, rates))

    def _scored_rows(self) -> int:
        """Rows that are scored after training, over all engines: test, and dev for a threshold."""
        from kdnas.evaluation.budget import MOST_DEV

        task, _ = self._cut_dev(MOST_DEV)
        dev = len(task.dev) if task.has_threshold else 0
        return len(self.options.engines) * (len(task.test) + dev)

    def _build(
        self,
        kind: str,
        seed: int,
        config: dict[str, Any],
        inputs: dict[str, str],
        work: Callable[[Path], dict[str, Any]],
    ) -> Artifact:
        label = f"{self.spec.name.partition(' ')[0].replace('/', '-')}-{seed}"
        return build(self.home, kind, label, config, {"model": self.digest, "data": self.loaded.digest, **inputs}, work)

    def _score(self, folder: Path, tuned: Artifact) -> dict[str, Any]:
        """Score the model in each engine that has no score yet."""
        from kdnas.evaluation.encoded import Encoded

        options, record = self.options, tuned.results
        task, threshold_notes = self._cut_dev(record["dev_examples"])
        cut_notes = Encoded.cut_notes(task.kind, task.test, self.model, record["seq_len"])
        scored: dict[str, Any] = {}
        for engine in options.engines:
            part = folder / f"{engine}.json"
            if not part.is_file():
                around = (task, record["seq_len"], self.home, folder, options.precision)
                write_json(part, score(tuned.path / MODEL, engine, options.engines, *around))
            scored[engine] = json.loads(part.read_text())
        used, rows = record["train_examples"], record["train_rows"]
        cut = [f"trained on {used} of {rows} rows"] if used < rows else []
        first = scored[options.engines[0]]
        result = {
            "schema": SCORES,
            "task": task.name,
            "metric": task.metric,
            "score": headline(first, task.metric),
            "averaging": averaging(first),
            "pooled_score": first["scores"][task.metric],
            "chance": chance(task),
            "chance_by_language": chance_by_language(task),
            "taught": list(self.spec.taught_languages),
            "standard_error": standard_error(task, first),
            "engines": scored,
            "model": {"name": self.name, "digest": self.digest, "architecture": architecture_of(self.model)},
            "tuned": tuned.path.name,
            "data": {"digest": self.loaded.digest, "hub": self.spec.source.hub, "revision": self.spec.source.revision},
            "notes": [*self.loaded.notes, *threshold_notes, *cut_notes, *cut],
            **record,
            "test_examples": len(task.test),
            "host": host_line(),
        }
        write_json(folder / RESULT, result)
        return {name: result[name] for name in SUMMARY}

    def _cut_dev(self, limit: int) -> tuple[Task, list[str]]:
        """The task with the dev rows that choose its threshold, and a note if rows were left out.

        Args:
            limit: the limit on dev rows in training; `max_test` limits them for each language.
        """
        task, most = self.loaded.task, self.options.max_test
        if not task.has_threshold:
            return task, []
        dev = task.dev.first(limit)
        dev = dev if most is None else sample(dev, most, seed=0)
        notes = [f"threshold chosen on {len(dev)} of {len(task.dev)} dev rows"] if len(dev) < len(task.dev) else []
        return replace(task, dev=dev), notes

    def _train(self, folder: Path, seed: int, rates: Sequence[float]) -> dict[str, Any]:
        """Fine-tune and save the model, and return the record of the training."""
        from kdnas.distill.loop import use_all_cores
        from kdnas.evaluation.budget import MOST_DEV, Limit, kept_plan
        from kdnas.evaluation.finetune import Plan, Recipe, save_classifier, tune
        from kdnas.evaluation.report import card

        use_all_cores()
        task, options = self.loaded.task, self.options
        recipe = Recipe(list(rates), seed, self._seq_len(), self._batch_tokens(), options.embedding_rows)
        rows = min(len(task.train), options.max_examples or len(task.train))
        wanted = Plan(rows, options.epochs or self.spec.epochs, len(rates), min(len(task.dev), MOST_DEV))
        limit = Limit(options.max_minutes, self._scored_rows(), f"suites: {task.name}")
        plan, speed = kept_plan(folder / PLAN, self.model, task, wanted, recipe, limit)
        total = plan.train_examples * plan.epochs * plan.learning_rates
        with stage(f"suites: {task.name}, seed {seed}", total) as progress:
            model, record = tune(self.model, task, plan, recipe, progress, folder / UNFINISHED)
        shutil.rmtree(folder / MODEL, ignore_errors=True)
        save_classifier(model, self.model, folder / MODEL, card(task, record, self.model))
        shutil.rmtree(folder / UNFINISHED, ignore_errors=True)
        (folder / PLAN).unlink()
        return {**record, "plan": asdict(plan), "speed": speed, "train_rows": len(task.train)}

    def _seq_len(self) -> int:
        from kdnas.export.checkpoint import open_checkpoint

        return min(self.spec.seq_len, open_checkpoint(str(self.model)).max_seq_len)

    def _batch_tokens(self) -> int:
        """Number of padded tokens in a batch of `batch_size` rows of mean length."""
        from kdnas.evaluation.encoded import Encoded

        sample = Encoded.of(self.loaded.task.kind, self.loaded.task.train.first(500), self.model, self._seq_len())
        return max(int(self.options.batch_size * sample.lengths.mean()), self.spec.seq_len)
