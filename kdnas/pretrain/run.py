"""`kdnas pretrain`."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from kdnas.distill.building import build_stage, common_corpus, deciding, needed_bytes, require_possible
from kdnas.errors import UsageError
from kdnas.models.arch import Arch
from kdnas.models.teacher import Teacher, load_tokenizer, open_tokenizer, read_config, resolve_teacher
from kdnas.pretrain.options import POSITIONS, PretrainOptions
from kdnas.pretrain.vocabulary import build_tokenizer
from kdnas.store.artifact import Artifact
from kdnas.store.outcome import Result
from kdnas.store.output import deliver, require_output
from kdnas.store.progress import say
from kdnas.text.corpus import Corpus
from kdnas.text.readers import TextOptions

MAX_LAYERS_FROM_RANDOM = 6  # six layers with random weights learn within a few hundred steps; twelve do not


def run_pretrain(
    home: Path, tokenizer: Teacher, corpus: Corpus, arch: Arch, options: PretrainOptions, start: Teacher | None = None
) -> Artifact:
    """Train a masked language model.

    Args:
        home: root folder of all artifacts.
        tokenizer: tokenizer from `build_tokenizer`, or of an existing model; the new model then has that model's family.
        corpus: sentences, tokenised by this tokenizer.
        arch: the model's shape.
        options: training options.
        start: a model with this tokenizer, at most as many layers and otherwise the same shape; it gives the initial weights.

    Returns:
        Artifact with `teacher/`, a folder of `transformers.AutoModelForMaskedLM`, and `history.jsonl`.

    Raises:
        UsageError: the options contradict each other.
    """
    require_possible(options)

    def work(folder: Path) -> dict[str, Any]:
        from kdnas.pretrain.work import pretrain_into

        return pretrain_into(folder, tokenizer, corpus, arch, options, start.path if start else None)

    taken = bool(tokenizer.config.get("model_type"))
    rows = tokenizer.student_sizes.rows if taken else options.vocabulary + POSITIONS
    config = {"arch": str(arch), **deciding(options)}
    inputs = {"corpus": corpus.digest} | ({"start": start.digest} if start else {})
    return build_stage(home, "pretrain", arch.name, config, inputs, work, needed_bytes(arch, rows))


def pretrain(
    options: PretrainOptions,
    arch: str,
    corpus: str,
    tokenizer: str | None = None,
    start: str | None = None,
    text: TextOptions = TextOptions(),
    home: Path = Path("artifacts"),
    output: Path | None = None,
) -> Result:
    """Train a tokenizer and a masked language model that can be a teacher.

    Args:
        options: training options.
        arch: layers,heads,hidden,ffn,activation of the teacher, for example 12,12,384,1536,gelu.
        corpus: a local file, a folder of files, a hub id, or `builtin:pydocs`.
        tokenizer: model folder or hub id with the tokenizer and the model family to use; null trains a Unigram tokenizer as
            in XLM-R.
        start: model folder of the same shape with fewer layers, for example one that this command printed. The new model uses
            its tokenizer and starts from its layers, repeated. Without it, a model of more than six layers learns very little.
        text: how to read the corpus.
        home: root of all artifacts.
        output: folder for a copy of the model as plain files that `transformers` reads; null keeps it only below `home`.
    """
    require_output(output, "pretrain")
    shape = Arch.parse(arch)
    require_possible(options)
    if start and tokenizer:
        raise UsageError("start and tokenizer are both given; give one, because --start includes a tokenizer")
    begun = resolve_teacher(start, home) if start else None
    if begun:
        from kdnas.pretrain.stacking import require_stackable

        require_stackable(shape, begun.path)
    elif shape.layers > MAX_LAYERS_FROM_RANDOM:
        say(
            f"pretrain: {shape.layers} layers with random weights may learn only token frequencies; train 3 layers first "
            f"with --arch {replace(shape, layers=3)}, then give the printed folder as --start"
        )
    found = _tokenizer(home, start or tokenizer, corpus, text, options)
    built = common_corpus(home, corpus, text, found)
    return deliver(run_pretrain(home, found, built, shape, options, begun), output)


def _tokenizer(home: Path, given: str | None, corpus: str, text: TextOptions, options: PretrainOptions) -> Teacher:
    """The given tokenizer with its model's configuration, or a new one, which the main process trains."""
    if given is None:
        from kdnas.distill.processes import processes

        with processes().main_process_first():
            return build_tokenizer(home, corpus, text, options)
    found = open_tokenizer(given, home)
    if load_tokenizer(found.path).mask_token_id is None:
        raise UsageError(f"tokenizer '{given}': it has no mask token; give the tokenizer of a masked language model")
    return replace(found, config=read_config(given, found.path, "tokenizer"))
