"""`kdnas hap`: make a multi-label classifier of hate, abuse and profanity from an encoder, with thresholds, scores and a card."""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from kdnas.errors import UsageError
from kdnas.evaluation.hap_classifier.balance import sampled
from kdnas.evaluation.hap_classifier.check import check, show
from kdnas.evaluation.hap_classifier.decide import calibrate, choose_thresholds, fold_calibration
from kdnas.evaluation.hap_classifier.measure import gap_points, split_scores, worst_errors
from kdnas.evaluation.hap_classifier.opened import Classifier
from kdnas.evaluation.hap_classifier.options import HapOptions
from kdnas.evaluation.hap_classifier.sets import LABELS
from kdnas.evaluation.hap_classifier.train import PLAN, UNFINISHED, fine_tune, training_task
from kdnas.evaluation.hap_classifier.union import Union, counts, read_union
from kdnas.evaluation.harness import model_name, resolve_model
from kdnas.evaluation.kinds.multilabel import as_array
from kdnas.evaluation.rows import Split
from kdnas.export.outputs import sigmoid
from kdnas.export.spans import Runs, text_logits
from kdnas.export.thresholds import THRESHOLDS, Thresholds
from kdnas.models.folder import model_digest
from kdnas.store.artifact import Artifact, build
from kdnas.store.digest import file_sha256
from kdnas.store.json_files import to_json, write_json
from kdnas.store.outcome import Result
from kdnas.store.output import deliver, require_output
from kdnas.store.progress import say, say_table

REPORT, ERRORS_FILE, SAVING = "report.json", "errors.jsonl", "saving"
SUMMARY = (
    "in_set",
    "out_of_set",
    "out_of_set_gap_points",
    "learning_rate",
    "best_epoch",
    "dev_score",
    "train_examples",
    "reduced",
    "sampled",
    "seed",
    "seconds",
)
FILES = ("data_root", "word_lists", "teacher", "unlabelled")  # their content counts, not their path


def hap(
    model: str,
    options: HapOptions = HapOptions(),
    home: Path = Path("artifacts"),
    output: Path | None = None,
) -> Result:
    """Fine-tune an encoder as a classifier with the independent labels hate, abuse and profanity, on a union of labelled sets.

    Dev rows select learning rate and epoch, calibrate the probabilities, and give the thresholds in `thresholds.json`. Test rows
    of the sets, rows of what `leave_out` names, and the functional suite are scored once. The result is a Hugging Face folder,
    which `kdnas export` takes. An interrupted run resumes.

    Args:
        model: Hugging Face folder of an encoder, a finished distill or refine artifact, a hub id, or `builtin:minilm-l6`.
        options: options of the classifier.
        home: root folder of all artifacts.
        output: folder to which the result is also copied as plain files; null writes only below `home`.

    Raises:
        UsageError: a name, file or the model cannot be used, or no set has rows.
    """
    require_output(output, "hap")
    artifact = run_hap(home, model, options)
    report = json.loads((artifact.path / REPORT).read_text())
    show_report(report)
    return deliver(artifact, output)


def run_hap(home: Path, model: str, options: HapOptions) -> Artifact:
    """Make the classifier, or return the finished one of the same model, rows and options.

    Raises:
        UsageError: as in `hap`.
    """
    folder, digest = resolve_model(model, home)
    union = read_union(options.sets, options.leave_out, options.languages, options.data_root)
    if not len(union.task.dev):
        raise UsageError("no dev row is left, so no learning rate and no threshold can be chosen; give more sets")
    inputs = {"model": digest, "data": union.digest}
    for name in ("word_lists", "unlabelled"):
        if (file := getattr(options, name)) is not None:
            inputs[name] = file_sha256(file)
    if options.teacher is not None:
        inputs["teacher"] = model_digest(options.teacher)
    config = {name: value for name, value in to_json(options).items() if name not in FILES}
    making = _Making(folder, model_name(model), union, options)
    return build(home, "hap", making.name.replace("/", "-").replace(":", "-"), config, inputs, making.work)


@dataclass(frozen=True)
class _Making:
    """One classifier: training, then everything that is measured once."""

    encoder: Path
    name: str
    union: Union
    options: HapOptions

    def work(self, folder: Path) -> dict[str, Any]:
        """Train, calibrate, choose thresholds, measure, and write the Hugging Face folder with its card."""
        from kdnas.distill.loop import use_all_cores
        from kdnas.evaluation.finetune import as_run

        use_all_cores()
        task, rows = training_task(self.union, self.options)
        given = {"dev": task.dev, "test": task.test, "left-out": self.union.outside}
        parts = {name: sampled(split, self.options.max_test) for name, split in given.items()}
        cut = [
            f"{len(part)} of {len(given[name])} {name} rows"
            for name, part in parts.items()
            if len(part) < len(given[name])
        ]
        scored_rows = sum(map(len, parts.values())) + len(parts["dev"])  # dev before and after the calibration
        model, record = fine_tune(self.encoder, task, self.options, folder, scored_rows)
        runs = cast(Runs, as_run(model, task.kind, self.encoder, record["seq_len"]))
        calibration, thresholds = self._decided(model, runs, parts["dev"])
        known = Thresholds(thresholds["wanted"], thresholds["labels"])
        inside, outside = (sigmoid(_logits(runs, parts[name])) for name in ("test", "left-out"))
        scored = {
            "in_set": split_scores(task, parts["test"], inside, known),
            "out_of_set": split_scores(task, parts["left-out"], outside, known),
        }
        report = {
            "schema": 1,
            "model": self.name,
            "labels": list(LABELS),
            "options": {name: value for name, value in to_json(self.options).items() if name not in FILES},
            "rows": {**rows, "train": counts(task.train), "dev": counts(task.dev), "test": counts(parts["test"])},
            "notes": self.union.notes,
            **record,
            "test_examples": len(parts["test"]),
            "sampled": cut,
            "calibration": calibration,
            **scored,
            "out_of_set_gap_points": gap_points(scored["in_set"], scored["out_of_set"]),
            "functional": {
                "at_half": check(Classifier(runs, list(LABELS), True, None)),
                "at_thresholds": check(Classifier(runs, list(LABELS), True, known)),
            },
        }
        errors = [*worst_errors(parts["test"], inside), *worst_errors(parts["left-out"], outside)]
        self._write(folder, model, report, {**thresholds, "calibration": calibration}, errors)
        return {name: report[name] for name in SUMMARY} | {"functional": functional_summary(report)}

    def _decided(self, model: Any, runs: Runs, dev: Split) -> tuple[dict[str, dict[str, float]], dict[str, Any]]:
        """Fold the calibration into the model, and choose the thresholds, both on the same dev rows."""
        truth = as_array(dev.labels)
        calibration = calibrate(_logits(runs, dev), truth, LABELS)
        fold_calibration(model, calibration)
        chances = sigmoid(_logits(runs, dev))
        return calibration, choose_thresholds(truth, chances, dev.languages, LABELS, self.options.wanted)

    def _write(
        self,
        folder: Path,
        model: Any,
        report: dict[str, Any],
        thresholds: dict[str, Any],
        errors: list[dict[str, Any]],
    ) -> None:
        """Write all files; the checkpoints are deleted last, so that a killed run only measures again."""
        from kdnas.evaluation.finetune import save_classifier
        from kdnas.evaluation.hap_classifier.card import card

        saving = folder / SAVING
        shutil.rmtree(saving, ignore_errors=True)
        save_classifier(model, self.encoder, saving, card(report, thresholds, errors, self.encoder))
        write_json(saving / THRESHOLDS, thresholds)
        write_json(saving / REPORT, report)
        lines = [json.dumps(error, ensure_ascii=False) for error in errors]
        (saving / ERRORS_FILE).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        for file in saving.iterdir():
            os.replace(file, folder / file.name)
        saving.rmdir()
        shutil.rmtree(folder / UNFINISHED, ignore_errors=True)
        (folder / PLAN).unlink(missing_ok=True)


def _logits(runs: Runs, split: Split) -> np.ndarray:
    """Logits (N, C) of the texts of a split."""
    return text_logits(runs, split.texts) if len(split) else np.zeros((0, len(LABELS)), dtype=np.float32)


def functional_summary(report: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Macro-F1, false-positive rate and its largest gap between groups in each language of the suite, at a half."""
    names = ("macro_f1", "found", "false_positive_rate", "false_positive_gap")
    languages = report["functional"]["at_half"]["languages"]
    return {code: {name: round(scores[name], 4) for name in names} for code, scores in languages.items()}


def show_report(report: Mapping[str, Any]) -> None:
    """Print macro-F1 in and out of the trained sets, and the functional suite."""
    from rich.table import Table

    table = Table("macro-F1", "rows", *LABELS)
    for title, part in (("in the trained sets (mean)", report["in_set"]), ("outside (mean)", report["out_of_set"])):
        if not part["rows"]:
            continue
        table.add_row(title, str(part["rows"]), *(_shown(part["macro_f1"].get(label)) for label in LABELS))
        for name, scores in part["by_set"].items():
            table.add_row(f"  {name}", "", *(_shown(scores.get(f"{label}_macro_f1")) for label in LABELS))
    say_table(table)
    show(report["functional"]["at_half"])
    if report["out_of_set_gap_points"]:
        gaps = ", ".join(f"{label} {points:.1f}" for label, points in report["out_of_set_gap_points"].items())
        say(f"hap: points of macro-F1 lost outside of the trained sets: {gaps}")
    if report["reduced"]:
        say(
            f"hap: to fit --max-minutes: trained with {', '.join(report['reduced'])}; without the limit scores may be higher"
        )
    if report["sampled"]:
        say(f"hap: with --max-test: scored {', '.join(report['sampled'])}; thresholds and scores vary with the sample")


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
