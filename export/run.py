"""`kdnas export`: convert a model folder to ONNX and OpenVINO, each in float32 and int8, and check every form against PyTorch."""

from dataclasses import replace
from pathlib import Path

from kdnas.errors import UsageError
from kdnas.export.checkpoint import Checkpoint, open_checkpoint
from kdnas.export.folder import LAYOUT
from kdnas.export.hub import upload
from kdnas.export.int8_search import require_inside
from kdnas.export.labelled import read_labelled
from kdnas.export.making import Making
from kdnas.export.options import ExportOptions
from kdnas.export.recipes import RECIPES
from kdnas.export.summary import lines_of
from kdnas.export.thresholds import THRESHOLDS, read_thresholds
from kdnas.models.folder import model_in, model_label
from kdnas.models.teacher import resolve_teacher
from kdnas.store.artifact import MANIFEST, Artifact, build
from kdnas.store.digest import file_sha256
from kdnas.store.json_files import to_json
from kdnas.store.outcome import Result
from kdnas.store.output import RECORD, deliver, require_output
from kdnas.store.progress import say
from kdnas.text.corpus import Corpus, build_corpus, sample_corpus, sentences_needed
from kdnas.text.readers import BUILTIN, TextOptions

LEAST_SENTENCES = 1000  # enough to fill a model's longest input when they are joined


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
        model: Hugging Face folder of an encoder, a text or token classifier, or a question-answering model (BERT, RoBERTa,
            XLM-RoBERTa), the artifact of `kdnas distill` or `kdnas refine`, a hub id, or `builtin:minilm-l6`.
        options: export options.
        corpus: sentences for calibration and parity: `builtin:pydocs`, a file or a hub id. Only the sentences needed are
            tokenised, or all with `--vocabulary corpus`.
        text: how to read the corpus.
        home: root of artifacts.
        push_to_hub: owner/name on the model hub to upload the finished export to; null uploads nothing.
        languages: values of the corpus's `language_column`, for example en,de; the vocabulary is cut to the tokens of texts in
            these languages. Short for `--text.languages` with `--vocabulary corpus`.
        output: folder for a copy of the result as plain files; null keeps it only below `home`.

    Raises:
        UsageError: `languages` and `text.languages` differ, or as `run_export`.
    """
    require_output(output, "export")
    if languages is not None:
        if text.languages not in (None, languages):
            given = f"{','.join(languages)} and {','.join(text.languages or ())}"
            raise UsageError(f"languages and text.languages are {given}; give one of them")
        text, options = replace(text, languages=languages), replace(options, vocabulary="corpus")
    checkpoint = open_checkpoint(model, home)
    if corpus == BUILTIN and is_foreign(model):
        say(
            "export: int8 is calibrated, and outputs are compared, on docstrings of Python packages, which may be unlike the "
            "training texts of this model; give --corpus FILE with texts like yours"
        )
    built = export_corpus(home, corpus, text, checkpoint, options)
    exported = run_export(home, checkpoint.path, checkpoint.digest, built, options)
    if push_to_hub is not None:
        say(f"export: {upload(exported.path, push_to_hub)}")
    for line in lines_of(exported.results, options.forms):
        say(line)
    return deliver(exported, output)


def export_corpus(home: Path, source: str, text: TextOptions, checkpoint: Checkpoint, options: ExportOptions) -> Corpus:
    """The sentences of an export: the whole corpus if it is built already or gives the vocabulary, otherwise a sample.

    Args:
        home: root of artifacts.
        source: corpus, as for `build_corpus`.
        text: how to read it.
        checkpoint: model whose tokenizer makes the ids.
        options: numbers of calibration and parity sentences.

    Raises:
        UsageError, KdnasError: as `build_corpus`.
    """
    tokenizer = resolve_teacher(str(checkpoint.path))
    if options.vocabulary == "corpus":
        return build_corpus(home, source, text, tokenizer)
    wanted = (options.calibration_sentences, options.parity_sentences, text.validation_fraction)
    return sample_corpus(home, source, text, tokenizer, max(LEAST_SENTENCES, sentences_needed(*wanted)))


def is_foreign(model: str) -> bool:
    """Whether a model is neither builtin nor an artifact or `--output` of kdnas."""
    folder = model_in(Path(model)).resolve()
    made = [up / name for up in (folder, *folder.parents[:3]) for name in (MANIFEST, RECORD)]
    return not model.startswith("builtin:") and not any(file.is_file() for file in made)


def run_export(home: Path, model: Path, model_digest: str, corpus: Corpus, options: ExportOptions) -> Artifact:
    """Export a model, or return its finished export.

    Args:
        home: root of artifacts.
        model: Hugging Face folder, as for `open_checkpoint`.
        model_digest: identity of the model in the manifest.
        corpus: its train split gives the calibration sentences, its validation split the parity sentences.
        options: export options.

    Raises:
        UsageError: the model's kind is not supported, it lacks weights, or `evaluation` does not suit its task.
        BoundError: a float32 form differs from PyTorch beyond the bound, or int8 loses too much on the labelled texts.
    """
    checkpoint = open_checkpoint(str(model))
    label = model_label(model)
    inputs = {"model": model_digest, "corpus": corpus.digest}
    labelled = None
    if read_thresholds(checkpoint.path) is not None:
        inputs["thresholds"] = file_sha256(checkpoint.path / THRESHOLDS)
    if options.evaluation is not None:
        if checkpoint.task == "feature-extraction":
            raise UsageError(f"--evaluation is for models with a head; {model} is for {checkpoint.task}")
        names = checkpoint.settings["labels"]
        if len(names) == 1:
            raise UsageError(f"--evaluation is for models with labels or answers; {model} is a regression")
        labelled = read_labelled(
            options.evaluation, checkpoint.task, names, options.evaluation_texts, checkpoint.multi_label
        )
        inputs["evaluation"] = file_sha256(options.evaluation)
    # Disk space for up to seven copies of the weights: three in float32, five in int8 (a quarter each), and the quantiser's.
    needed = 50_000_000 + 7 * (checkpoint.path / "model.safetensors").stat().st_size
    # The result depends on the content of the labelled texts (see `inputs`), but not on their path or on `allow_loss`.
    kept = {name: value for name, value in to_json(options).items() if name not in ("evaluation", "allow_loss")}
    if checkpoint.head is None:
        kept.pop("head")  # without effect
    making = Making(label, checkpoint, corpus, options, labelled)
    config = {"options": kept, "task": checkpoint.task, "layout": LAYOUT}
    artifact = build(home, "export", label, config, inputs, making.work, needed)
    if labelled is not None and not options.allow_loss:  # a finished export may have used `allow_loss`
        for form in set(RECIPES) & set(options.forms):
            require_inside(form, artifact.results["forms"][form], options.max_loss_points)
    return artifact
