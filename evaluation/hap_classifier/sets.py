"""The table of labelled sets of `kdnas hap`, and what their labels say about hate, abuse and profanity.

- **hate**: attacks or demeans people as members of a group (origin, religion, gender, sexuality, disability).
- **abuse**: insults, offends or is hostile; hate is abuse too.
- **profanity**: contains swear words, whoever they are meant for, if anybody.

A label is known in a set only if the set tells its positives from its negatives. Negatives alone would teach that texts in the
language of that set never have the label. An unknown label is None and has no loss (`kdnas.evaluation.kinds.MULTI_LABEL`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from kdnas.errors import UsageError
from kdnas.evaluation.kinds import MultiLabel
from kdnas.evaluation.kinds.multilabel import Truth
from kdnas.evaluation.spec import Source, Spec
from kdnas.evaluation.suites_hap import COLD_FILES

LABELS = ("hate", "abuse", "profanity")
UNCLEAR: Truth = (None, None, None)  # rows that annotators disagreed on or skipped


def table(**values: Truth) -> Callable[[str], Truth]:
    """The labels of each value; the name of a keyword is the value, after an underscore if it is a number."""
    return {name.removeprefix("_"): truth for name, truth in values.items()}.__getitem__


def mlma(value: str) -> Truth:
    """Hostility types joined by underscores. Only texts that are hostile and not called hateful have no known hate."""
    types = set(value.split("_"))
    if types - {"normal", "hateful", "abusive", "offensive", "disrespectful", "fearful"}:
        raise KeyError(value)
    if types == {"normal"}:
        return (0, 0, None)
    if "normal" in types or types == {"fearful"}:
        return UNCLEAR
    return (1 if "hateful" in types else None, 1, None)


def told_br(value: str) -> Truth:
    """Votes of three annotators: homophobia, obscene, insult, racism, misogyny, xenophobia; one vote counts, as in the paper."""
    homophobia, obscene, insult, racism, misogyny, xenophobia = (float(vote) > 0 for vote in value.split())
    hate = homophobia or racism or misogyny or xenophobia
    return (float(hate), float(hate or insult), float(obscene))


def indonesian(value: str) -> Truth:
    """Hate speech and abusive words, two binary labels; abusive words alone may be swearing at nobody."""
    hate, abusive = (int(part) for part in value.split())
    return (hate, max(hate, abusive), None)


@dataclass(frozen=True)
class HapSet:
    """One labelled set.

    Args:
        name: name on the command line.
        languages: codes of its languages.
        spec: how it is read; its kind maps its labels to `LABELS`.
    """

    name: str
    languages: tuple[str, ...]
    spec: Spec


def _set(
    name: str,
    languages: str,
    truth: Callable[[str], Truth],
    hub: str,
    text: str,
    target: str | tuple[str, ...],
    splits: tuple[str, str | None, str] = ("train", None, "train"),
    config: str | None = None,
    file: str = "{split}",
    hub_files: Mapping[str, str] | None = None,
) -> HapSet:
    codes = tuple(languages.split())
    source = Source(hub, f"hap/{name}", config, file, hub_files=hub_files or {})
    spec = Spec(
        f"hap-set/{name}", source, (text,), target, MultiLabel(truth), LABELS, "macro_f1", 2e-5, 3, splits=splits,
        languages=codes,
    )  # fmt: skip
    return HapSet(name, codes, spec)


SETS = (
    _set(  # 0 hate, 1 offensive, 2 neither
        "hate_speech_offensive", "en", table(_0=(1, 1, None), _1=(0, 1, None), _2=(0, 0, None)),
        "tdavidson/hate_speech_offensive", "tweet", "class",
    ),
    _set(  # 0 no hate, 1 hate, 2 skipped, 3 hate only together with another sentence
        "hate_speech18", "en", table(_0=(0, None, None), _1=(1, None, None), _2=UNCLEAR, _3=UNCLEAR),
        "odegiber/hate_speech18", "text", "label",
    ),
    _set("mlma", "ar en fr", mlma, "", "tweet", "sentiment", config="{language}", file="{language}.{split}"),
    _set(  # ABUSE attacks somebody as a member of a group, INSULT a person, PROFANITY nobody
        "germeval18", "de",
        table(OTHER=(0, 0, 0), ABUSE=(1, 1, None), INSULT=(0, 1, None), PROFANITY=(0, 0, 1)),
        "philschmid/germeval18", "text", "multi", ("train", None, "test"),
    ),
    _set(
        "told_br", "pt", told_br, "JAugusto97/told-br", "text",
        ("homophobia", "obscene", "insult", "racism", "misogyny", "xenophobia"),
        config="multilabel", file="multilabel.{split}",
    ),
    _set("hatebr", "pt", table(_0=(None, 0, None), _1=(None, 1, None)), "", "comentario", "label_final"),
    _set(  # 0 hate, 1 offensive, 2 none
        "kor_hate", "ko", table(_0=(1, 1, None), _1=(0, 1, None), _2=(0, 0, None)), "inmoonlight/kor_hate", "comments",
        "hate", ("train", None, "test"),
    ),
    _set("id_hate_abusive", "id", indonesian, "", "Tweet", ("HS", "Abusive")),
    _set(  # 1 offensive; the finer labels exist in test alone
        "cold", "zh", table(_0=(None, 0, None), _1=(None, 1, None)), "thu-coai/cold", "TEXT", "label",
        ("train", "dev", "test"), hub_files=COLD_FILES,
    ),
    _set(  # 0 abusive, 1 normal, 2 religious hate, 3 sexism, 4 profane but untargeted; its validation file repeats train
        "roman_urdu_hate_speech", "ur",
        table(_0=(0, 1, None), _1=(0, 0, 0), _2=(1, 1, None), _3=(1, 1, None), _4=(0, 0, 1)),
        "community-datasets/roman_urdu_hate_speech", "tweet", "label", ("train", None, "test"),
        config="Fine_Grained", file="Fine_Grained.{split}",
    ),
    _set(
        "tweet_eval_hate", "en", table(_0=(0, None, None), _1=(1, None, None)), "cardiffnlp/tweet_eval", "text", "label",
        ("train", "validation", "test"), config="hate",
    ),
)  # fmt: skip
NAMES = tuple(one.name for one in SETS)
LANGUAGES = tuple(sorted({code for one in SETS for code in one.languages}))


def chosen_sets(names: tuple[str, ...], option: str = "sets") -> list[HapSet]:
    """The sets with these names, in the order of the table; all if none is given.

    Raises:
        UsageError: a name is unknown.
    """
    if unknown := [name for name in names if name not in NAMES]:
        raise UsageError(f"{option} has {', '.join(unknown)}; allowed are {', '.join(NAMES)}")
    return [one for one in SETS if not names or one.name in names]
