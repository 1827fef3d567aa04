"""Tasks on hate, abuse and profanity (HAP), each in one language, and one that is taught English and scored in eight others."""

from collections.abc import Mapping

from kdnas.evaluation.kinds import CLASSES
from kdnas.evaluation.spec import Part, Source, Spec

LABELS = ("not-hap", "hap")
BINARY = {"0": 0, "1": 1}


def _hap(
    task: str,
    hub: str,
    text: str,
    target: str | tuple[str, ...],
    languages: tuple[str, ...] = (),
    classes: Mapping[str, int] | None = None,
    otherwise: int | None = None,
    config: str | None = None,
    splits: tuple[str, str | None, str] = ("train", None, "test"),
    group: str = "",
    labels: tuple[str, ...] = LABELS,
    folder: str | None = None,
    hub_files: Mapping[str, str] | None = None,
    file: str | None = None,
    taught: tuple[str, ...] = (),
    parts: tuple[Part, ...] = (),
) -> Spec:
    """A HAP task: binary by default."""
    file = file or ("{split}" if config is None else f"{config}.{{split}}")
    source = Source(hub, f"hap/{folder or task}", config, file, hub_files=hub_files or {})
    return Spec(
        f"hap/{task}", source, (text,), target, CLASSES, labels, "macro_f1", 2e-5, 3, splits=splits,
        languages=languages, taught=taught, classes=BINARY if classes is None else classes, otherwise=otherwise,
        positive=1 if labels == LABELS else None, group=group, parts=parts,
    )  # fmt: skip


DAVIDSON = _hap(
    "davidson", "tdavidson/hate_speech_offensive", "tweet", "class", classes={"0": 1, "1": 1, "2": 0},
    splits=("train", None, "train"), folder="hate_speech_offensive",
)  # fmt: skip
GERMEVAL = _hap("germeval18", "philschmid/germeval18", "text", "binary", classes={"OTHER": 0, "OFFENSE": 1})
TOLD_BR = _hap(
    "told_br", "JAugusto97/told-br", "text", "label", config="binary", splits=("train", "validation", "test")
)
# test.csv has one column more than the others, so `datasets` cannot read all files as one set.
COLD_FILES = {split: f"{split}.csv" for split in ("train", "dev", "test")}
COLD = _hap(
    "cold", "thu-coai/cold", "TEXT", "label", splits=("train", "dev", "test"), group="topic",
    hub_files=COLD_FILES,
)  # fmt: skip
KOR_HATE = _hap("kor_hate", "inmoonlight/kor_hate", "comments", "hate", classes={"0": 1, "1": 1, "2": 0})
INDONESIAN = _hap(
    "id_hate_abusive", "", "Tweet", ("HS", "Abusive"), classes={"0 0": 0}, otherwise=1, splits=("train", None, "train")
)
MLMA = _hap(
    "mlma", "", "tweet", "sentiment", languages=("ar", "en", "fr"), classes={"normal": 0}, otherwise=1,
    config="{language}", splits=("train", None, "train"),
)  # fmt: skip
ROMAN_URDU = _hap(
    "roman_urdu", "community-datasets/roman_urdu_hate_speech", "tweet", "label", classes={"0": 1, "1": 0},
    config="Coarse_Grained", splits=("train", "validation", "test"), folder="roman_urdu_hate_speech",
)  # fmt: skip
# A set without a test split is scored whole, because only English is taught.
ZERO_SHOT = (
    Part("en", DAVIDSON, ("train", None, None)),
    *(Part(code, MLMA, (None, None, "train")) for code in ("ar", "fr")),
    Part("de", GERMEVAL, ("train", None, "test")),
    Part("id", INDONESIAN, (None, None, "train")),
    Part("ko", KOR_HATE, ("train", None, "test")),
    Part("pt", TOLD_BR, ("train", None, "test")),
    Part("ur", ROMAN_URDU, ("train", None, "test")),
    Part("zh", COLD, ("train", None, "test")),
)

HAP = (
    DAVIDSON,
    _hap(
        "davidson-fine", "tdavidson/hate_speech_offensive", "tweet", "class", classes={"0": 0, "1": 1, "2": 2},
        splits=("train", None, "train"), labels=("hate", "offensive", "neither"), folder="hate_speech_offensive",
    ),
    _hap(
        "tweet_eval_hate", "cardiffnlp/tweet_eval", "text", "label", splits=("train", "validation", "test"), config="hate",
        file="{split}",
    ),
    GERMEVAL,
    _hap(
        "germeval18-fine", "philschmid/germeval18", "text", "multi",
        classes={"OTHER": 0, "ABUSE": 1, "INSULT": 2, "PROFANITY": 3},
        labels=("other", "abuse", "insult", "profanity"), folder="germeval18",
    ),
    TOLD_BR,
    _hap("hatebr", "", "comentario", "label_final", splits=("train", None, "train")),
    COLD,
    KOR_HATE,
    INDONESIAN,
    MLMA,
    ROMAN_URDU,
    _hap(
        "zero-shot", "", "text", "label", tuple(part.language for part in ZERO_SHOT if part.splits[2]), {}, taught=("en",),
        parts=ZERO_SHOT,
    ),
)  # fmt: skip
