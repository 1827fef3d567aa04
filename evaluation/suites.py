"""The downstream suites. Each task is one row, with its hub id, columns, splits, metric and the paper's hyperparameters."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from kdnas.errors import UsageError
from kdnas.evaluation.kinds import CLASSES, SCORE, SPANS, WORDS, TaskKind

NER = ("O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC")
MISC, DATE = ("B-MISC", "I-MISC"), ("B-DATE", "I-DATE")
NLI = ("entailment", "neutral", "contradiction")
HAP = ("not-hap", "hap")
BINARY_HAP = {"0": 0, "1": 1}
XNLI = ("ar", "bg", "de", "el", "en", "es", "fr", "hi", "ru", "sw", "th", "tr", "ur", "vi", "zh")
TYDIQA = {
    "ar": "arabic", "bn": "bengali", "en": "english", "fi": "finnish", "id": "indonesian", "ko": "korean",
    "ru": "russian", "sw": "swahili", "te": "telugu",
}  # fmt: skip
PANX = ("ar", "bg", "de", "el", "en", "es", "fr", "hi", "ru", "sw", "tr", "ur", "vi", "zh")
MASAKHANER = ("amh", "hau", "ibo", "kin", "lug", "luo", "pcm", "swa", "wol", "yor")
TWEETS = ("arabic", "english", "french", "german", "hindi", "italian", "portuguese", "spanish")
# The hub's branch of a set with its rows as Parquet files, one folder per configuration. For sets that are loading scripts, which
# `datasets` no longer runs.
PARQUET = "refs/convert/parquet"
AFRISENTI = ("amh", "arq", "ary", "hau", "ibo", "kin", "pcm", "por", "swa", "tso", "twi", "yor")


@dataclass(frozen=True)
class Source:
    """Source of rows: a data set on the hub, and a folder below `--data_root` with the same columns.

    Args:
        hub: hub id (owner/name); empty if the hub does not have the set with these columns.
        folder: folder below the data root.
        config: configuration of the hub's set; `{language}` is replaced by the language's name in the set.
        file: file name of a split in the folder, without .jsonl.gz; `{split}`, `{code}` and `{language}` are replaced.
        revision: branch, tag or commit of the hub's set; `PARQUET` for a loading script; None reads the newest rows.
        by_id: whether the hub's set mixes all languages, and `id` begins with the language's name.
        hub_splits: name on the hub of each split that has another name there.
    """

    hub: str
    folder: str
    config: str | None = None
    file: str = "{split}"
    revision: str | None = None
    by_id: bool = False
    hub_splits: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class StandIn:
    """Replacement for a split that is missing locally. Reports state it in a note."""

    source: Source
    split: str
    note: str


@dataclass(frozen=True)
class Spec:
    """One task of a suite.

    Args:
        name: name as `suite/task`.
        source: source of the rows.
        columns: columns of the input: one text, two texts, the words, or question and context.
        target: column of the label.
        kind: kind of the task.
        labels: class names, in the order of their numbers.
        metric: the main metric, one of the scores of its kind.
        learning_rate: learning rate of the paper's Table 5 for this suite.
        epochs: epochs of the same table.
        seq_len: maximum number of tokens in an input.
        splits: names of the train, dev and test splits; if the second is None, dev is a tenth of train.
        languages: language codes, each with the language's name in the set; empty for a set with one language.
        train_languages: codes of the languages for training; empty for all.
        classes: class number of each label in the data; empty if the labels are class numbers.
        otherwise: class of labels that are not in `classes`; None refuses them.
        positive: positive class of the binary metrics; None for other tasks.
        stand_ins: replacement for a missing local split, by `train` or `test`.
        group: column by whose values scores are also reported, for example the topic of an insult; empty for none.
    """

    name: str
    source: Source
    columns: tuple[str, ...]
    target: str
    kind: TaskKind
    labels: tuple[str, ...]
    metric: str
    learning_rate: float
    epochs: int
    seq_len: int = 128
    splits: tuple[str, str | None, str] = ("train", None, "validation")
    languages: Mapping[str, str] = field(default_factory=dict)
    train_languages: tuple[str, ...] = ()
    classes: Mapping[str, int] = field(default_factory=dict)
    otherwise: int | None = None
    positive: int | None = None
    stand_ins: Mapping[str, StandIn] = field(default_factory=dict)
    group: str = ""

    @property
    def suite(self) -> str:
        return self.name.partition("/")[0]


def _glue(
    task: str,
    columns: tuple[str, ...],
    labels: tuple[str, ...],
    metric: str,
    test: str = "validation",
    epochs: int = 3,
    stand_ins: Mapping[str, StandIn] | None = None,
) -> Spec:
    """A GLUE task. As usual, the official validation split replaces the hidden test split; dev is cut from train."""
    kind = SCORE if task == "stsb" else CLASSES
    source = Source("nyu-mll/glue", f"glue/{task}", task)
    return Spec(
        f"glue/{task}", source, columns, "label", kind, labels, metric, 2e-5, epochs,
        splits=("train", None, test), stand_ins=stand_ins or {},
        positive=1 if metric == "binary_f1" else None,
    )  # fmt: skip


def _hap(
    task: str,
    hub: str,
    text: str,
    target: str,
    languages: Mapping[str, str] | None = None,
    classes: Mapping[str, int] | None = None,
    otherwise: int | None = None,
    config: str | None = None,
    splits: tuple[str, str | None, str] = ("train", None, "test"),
    group: str = "",
    labels: tuple[str, ...] = HAP,
    folder: str | None = None,
    revision: str | None = None,
    hub_splits: Mapping[str, str] | None = None,
    file: str | None = None,
) -> Spec:
    """A HAP task: binary by default."""
    file = file or ("{split}" if config is None else f"{config}.{{split}}")
    source = Source(hub, f"hap/{folder or task}", config, file, revision, hub_splits=hub_splits or {})
    return Spec(
        f"hap/{task}", source, (text,), target, CLASSES, labels, "macro_f1", 2e-5, 3, splits=splits,
        languages=languages or {}, classes=BINARY_HAP if classes is None else classes, otherwise=otherwise,
        positive=1 if labels == HAP else None, group=group,
    )  # fmt: skip


PAIR = ("sentence1", "sentence2")
MNLI_SUBSET = StandIn(
    Source("", "nli"),
    "taxinli_mnli_subset",
    "trained on 10,071 pairs of MultiNLI (TaxiNLI), not on all 392,702",
)
XNLI_DEV = StandIn(
    Source("facebook/xnli", "xnli", "{language}", "{language}.{split}"),
    "validation",
    "scored on XNLI's validation split, not on its test split",
)
SQUAD_HALF = StandIn(
    Source("", "squad_v2"),
    "validation_half",
    "trained and scored on parts of half of SQuAD 2.0's validation split, without unanswerable questions; no SQuAD train split",
)

SPECS = (
    _glue("mnli", ("premise", "hypothesis"), NLI, "accuracy", "validation_matched"),
    _glue("qqp", ("question1", "question2"), ("not_duplicate", "duplicate"), "binary_f1"),
    _glue("qnli", ("question", "sentence"), ("entailment", "not_entailment"), "accuracy"),
    _glue("sst2", ("sentence",), ("negative", "positive"), "accuracy"),
    _glue("cola", ("sentence",), ("unacceptable", "acceptable"), "matthews", epochs=10),
    _glue("stsb", PAIR, ("score",), "pearson_spearman"),
    _glue("mrpc", PAIR, ("not_equivalent", "equivalent"), "binary_f1"),
    _glue("rte", PAIR, ("entailment", "not_entailment"), "accuracy"),
    Spec(
        "squad/v1", Source("rajpurkar/squad", "squad"), ("question", "context"), "answers", SPANS, (), "answer_f1",
        3e-5, 6, 384, stand_ins={"train": SQUAD_HALF, "test": SQUAD_HALF},
    ),
    Spec(
        "conll/2003", Source("eriktks/conll2003", "ner/conll2003", "conll2003", revision=PARQUET), ("tokens",), "ner_tags",
        WORDS, NER + MISC, "entity_f1", 5e-5, 3, splits=("train", "validation", "test"),
    ),
    Spec(
        "xnli/xnli", Source("facebook/xnli", "xnli", "{language}", "{language}.{split}"), ("premise", "hypothesis"), "label",
        CLASSES, NLI, "accuracy", 2e-5, 5, splits=("train", None, "test"), languages=dict(zip(XNLI, XNLI, strict=True)),
        train_languages=("en",), stand_ins={"train": MNLI_SUBSET, "test": XNLI_DEV},
    ),
    Spec(
        "tydiqa/goldp", Source("google-research-datasets/tydiqa", "tydiqa_goldp", "secondary_task", "{code}.{split}", by_id=True),
        ("question", "context"), "answers", SPANS, (), "answer_f1", 1e-5, 10, 384,
        languages=TYDIQA,
    ),
    Spec(
        "ner/panx", Source("unimelb-nlp/wikiann", "ner/panx", "{language}", "{language}.{split}"), ("tokens",), "ner_tags",
        WORDS, NER, "entity_f1", 5e-5, 5, languages=dict(zip(PANX, PANX, strict=True)),
    ),
    Spec(
        "ner/masakhaner", Source("masakhane/masakhaner", "ner/masakhaner", "{language}", "{language}.{split}", PARQUET),
        ("tokens",), "ner_tags", WORDS, NER + DATE, "entity_f1", 5e-5, 5, splits=("train", "validation", "test"),
        languages=dict(zip(MASAKHANER, MASAKHANER, strict=True)),
    ),
    _hap(
        "davidson", "tdavidson/hate_speech_offensive", "tweet", "class", classes={"0": 1, "1": 1, "2": 0},
        splits=("train", None, "train"), folder="hate_speech_offensive",
    ),
    _hap(
        "davidson-fine", "tdavidson/hate_speech_offensive", "tweet", "class", classes={"0": 0, "1": 1, "2": 2},
        splits=("train", None, "train"), labels=("hate", "offensive", "neither"), folder="hate_speech_offensive",
    ),
    _hap(
        "tweet_eval_hate", "cardiffnlp/tweet_eval", "text", "label", splits=("train", "validation", "test"), config="hate",
        file="{split}",
    ),
    _hap("germeval18", "philschmid/germeval18", "text", "binary", classes={"OTHER": 0, "OFFENSE": 1}),
    _hap(
        "germeval18-fine", "philschmid/germeval18", "text", "multi",
        classes={"OTHER": 0, "ABUSE": 1, "INSULT": 2, "PROFANITY": 3},
        labels=("other", "abuse", "insult", "profanity"), folder="germeval18",
    ),
    _hap(
        "told_br", "JAugusto97/told-br", "text", "label", config="binary", splits=("train", "validation", "test"),
        revision=PARQUET,
    ),
    _hap("hatebr", "", "comentario", "label_final", splits=("train", None, "train")),
    _hap(
        "cold", "thu-coai/cold", "TEXT", "label", splits=("train", "dev", "test"), group="topic",
        hub_splits={"dev": "validation"},  # the hub's dev.csv is read as the split `validation`
    ),
    _hap(
        "kor_hate", "inmoonlight/kor_hate", "comments", "hate", classes={"0": 1, "1": 1, "2": 0}, revision=PARQUET,
    ),
    _hap(
        "mlma", "", "tweet", "sentiment", languages={code: code for code in ("ar", "en", "fr")},
        classes={"normal": 0}, otherwise=1, config="{language}", splits=("train", None, "train"),
    ),
    _hap(
        "roman_urdu", "community-datasets/roman_urdu_hate_speech", "tweet", "label", classes={"0": 1, "1": 0},
        config="Coarse_Grained", splits=("train", "validation", "test"), folder="roman_urdu_hate_speech",
    ),
    Spec(
        "sentiment/tweets",
        Source(
            "cardiffnlp/tweet_sentiment_multilingual", "sentiment/tweet_sentiment_multilingual", "{language}",
            "{language}.{split}", PARQUET,
        ),
        ("text",), "label", CLASSES, ("negative", "neutral", "positive"), "macro_f1", 2e-5, 3,
        splits=("train", "validation", "test"), languages=dict(zip(TWEETS, TWEETS, strict=True)),
    ),
    Spec(
        "sentiment/afrisenti",
        Source(
            "shmuhammad/AfriSenti-twitter-sentiment", "sentiment/afrisenti", "{language}", "{language}.{split}", PARQUET,
        ),
        ("tweet",), "label", CLASSES, ("positive", "neutral", "negative"), "macro_f1", 2e-5, 3,
        splits=("train", "validation", "test"), languages=dict(zip(AFRISENTI, AFRISENTI, strict=True)),
    ),
    Spec(
        "sentiment/wisesight", Source("pythainlp/wisesight_sentiment", "sentiment/wisesight_sentiment"), ("texts",), "category",
        CLASSES, ("pos", "neu", "neg", "question"), "macro_f1", 2e-5, 3, splits=("train", "validation", "test"),
    ),
)  # fmt: skip
SUITES = tuple(dict.fromkeys(spec.suite for spec in SPECS))


def chosen_specs(names: tuple[str, ...]) -> list[Spec]:
    """The tasks with these names or in these suites, in the order of the table.

    Raises:
        UsageError: no name is given, or a name is neither a suite nor a task.
    """
    known = {*SUITES, *(spec.name for spec in SPECS)}
    if not names or (unknown := [name for name in names if name not in known]):
        given = f"there is no suite or task {', '.join(unknown)}" if names else "no suite is given"
        tasks = ", ".join(spec.name for spec in SPECS)
        raise UsageError(f"suites: {given}; suites are {', '.join(SUITES)}; their tasks are {tasks}")
    return [spec for spec in SPECS if spec.name in names or spec.suite in names]
