"""`kdnas export`: one model folder to ONNX and OpenVINO, each in float32 and int8, proven against PyTorch."""

from dataclasses import replace
from pathlib import Path

from kdnas.errors import UsageError
from kdnas.export.checkpoint import open_checkpoint
from kdnas.export.hub import upload
from kdnas.export.labelled import read_labelled
from kdnas.export.making import Making
from kdnas.export.options import ExportOptions
from kdnas.export.recipes import RECIPES, require_inside
from kdnas.models.folder import model_label
from kdnas.models.teacher import resolve_teacher
from kdnas.store.artifact import Artifact, build, file_sha256, to_json
from kdnas.store.outcome import Result
from kdnas.store.output import deliver, require_output
from kdnas.store.progress import say
from kdnas.text.corpus import Corpus, build_corpus
from kdnas.text.readers import TextOptions


def export(
    model: str,
    options: ExportOptions = ExportOptions(),
    corpus: str = "builtin:pydocs",
    text: TextOptions = TextOptions(),
    home: Path = Path("artifacts"),
    push_to_hub: str | None = None,
    languages: tuple[str, ...] | None = None,
    output: Path | None = None,
) -> Result:
    """Write ONNX and OpenVINO forms of a model, each checked against PyTorch.

    Args:
        model: Hugging Face folder of an encoder, a classifier of texts or tokens, or a question answerer (BERT, RoBERTa,
            XLM-RoBERTa), the artifact of `kdnas distill` or `kdnas refine`, a hub id, or `builtin:minilm-l6`.
        options: how.
        corpus: sentences for calibration and parity: `builtin:pydocs`, a file or a hub id.
        text: how the corpus is read.
        home: root of artifacts.
        push_to_hub: owner/name on the model hub, where the finished export goes; null keeps it here.
        languages: of the corpus's `language_column`, as en,de; the vocabulary is cut to what its texts in these need. Short for
            `--text.languages` with `--vocabulary corpus`.
        output: folder that gets the result as plain files; null leaves it below `home` alone.

    Raises:
        UsageError: two different lists of languages, or as `run_export`.
    """
    require_output(output, "export")
    if languages is not None:
        if text.languages not in (None, languages):
            given = f"{','.join(languages)} and {','.join(text.languages or ())}"
            raise UsageError(f"languages and text.languages are {given}; give one of them")
        text, options = replace(text, languages=languages), replace(options, vocabulary="corpus")
    checkpoint = open_checkpoint(model)
    built = build_corpus(home, corpus, text, resolve_teacher(str(checkpoint.path)))
    exported = run_export(home, checkpoint.path, checkpoint.digest, built, options)
    if push_to_hub is not None:
        say(f"export: {upload(exported.path, push_to_hub)}")
    return deliver(exported, output)


def run_export(home: Path, model: Path, model_digest: str, corpus: Corpus, options: ExportOptions) -> Artifact:
    """Export a model, or return the finished export of it.

    Args:
        home: root of artifacts.
        model: Hugging Face folder, as `open_checkpoint` takes it.
        model_digest: its identity in the manifest.
        corpus: calibration takes sentences of its train split, parity of its validation split.

    Raises:
        UsageError: the model is not of a supported kind or lacks weights.
        BoundError: a float32 form differs from PyTorch beyond the bound, or int8 loses too much on the labelled texts.
    """
    checkpoint = open_checkpoint(str(model))
    label = model_label(model)
    inputs = {"model": model_digest, "corpus": corpus.digest}
    labelled = None
    if options.evaluation is not None:
        if checkpoint.task == "feature-extraction":
            raise UsageError(f"--evaluation is for models with a head; {model} is for {checkpoint.task}")
        names = checkpoint.settings["labels"]
        if len(names) == 1:
            raise UsageError(f"--evaluation is for labels and answers; {model} gives a number (regression)")
        labelled = read_labelled(options.evaluation, checkpoint.task, names, options.evaluation_texts)
        inputs["evaluation"] = file_sha256(options.evaluation)
    # Weights are written up to seven times (float32 three times, int8 five times in a quarter, and the quantiser's copies).
    needed = 50_000_000 + 7 * (checkpoint.path / "model.safetensors").stat().st_size
    # Where the labelled texts lie does not decide the result, what is in them does; nor does leave to lose more.
    kept = {name: value for name, value in to_json(options).items() if name not in ("evaluation", "allow_loss")}
    making = Making(label, checkpoint, corpus, options, labelled)
    artifact = build(home, "export", label, {"options": kept, "task": checkpoint.task}, inputs, making.work, needed)
    if labelled is not None and not options.allow_loss:  # one that was made with leave to lose
        for form in set(RECIPES) & set(options.forms):
            require_inside(form, artifact.results["forms"][form], options.max_loss_points)
    return artifact
