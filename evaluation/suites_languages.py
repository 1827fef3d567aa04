"""Tasks in several languages: inference, paraphrases, questions, entities and sentiment.

The name of a task with two variants says which it is. `zero-shot`: taught English alone, scored in the other languages too, as
XTREME (arXiv 2003.11080) and the paper's XNLI. `in-language`: taught the train rows of all languages together.
"""

from dataclasses import replace

from kdnas.evaluation.kinds import CLASSES, SPANS, WORDS
from kdnas.evaluation.spec import Part, Source, Spec, StandIn
from kdnas.evaluation.suites_english import CONLL_2003, MISC, NER, NLI, PAIR

DATE = ("B-DATE", "I-DATE")
POLARITY = ("negative", "neutral", "positive")
ENGLISH_ALONE = ("en",)
XNLI = ("ar", "bg", "de", "el", "en", "es", "fr", "hi", "ru", "sw", "th", "tr", "ur", "vi", "zh")
TYDIQA = {
    "ar": "arabic", "bn": "bengali", "en": "english", "fi": "finnish", "id": "indonesian", "ko": "korean",
    "ru": "russian", "sw": "swahili", "te": "telugu",
}  # fmt: skip
# All languages of the local copy; the hub has more.
PANX = (
    "af", "ar", "az", "bg", "bn", "de", "el", "en", "es", "et", "eu", "fa", "fi", "fr", "gu", "he", "hi", "hu", "id", "it", "ja",
    "jv", "ka", "kk", "ko", "lt", "ml", "mr", "ms", "my", "nl", "pa", "pl", "pt", "qu", "ro", "ru", "sw", "ta", "te", "tl", "tr",
    "uk", "ur", "vi", "yo", "zh",
)  # fmt: skip
MASAKHANER = {
    "am": "amh", "ha": "hau", "ig": "ibo", "lg": "lug", "luo": "luo", "pcm": "pcm", "rw": "kin", "sw": "swa", "wo": "wol",
    "yo": "yor",
}  # fmt: skip
TWEETS = {
    "ar": "arabic", "de": "german", "en": "english", "es": "spanish", "fr": "french", "hi": "hindi", "it": "italian",
    "pt": "portuguese",
}  # fmt: skip
AFRISENTI = {
    "am": "amh", "arq": "arq", "ary": "ary", "ha": "hau", "ig": "ibo", "om": "orm", "pcm": "pcm", "pt": "por", "rw": "kin",
    "sw": "swa", "ti": "tir", "ts": "tso", "tw": "twi", "yo": "yor",
}  # fmt: skip
XQUAD = ("ar", "de", "el", "en", "es", "hi", "ro", "ru", "th", "tr", "vi", "zh")
MLQA = ("ar", "de", "en", "es", "hi", "vi", "zh")
WIKINEURAL = ("de", "en", "es", "fr", "it", "nl", "pl", "pt", "ru")

MNLI_SUBSET = StandIn(
    Source("", "nli"),
    "taxinli_mnli_subset",
    "trained on 10,071 pairs of MultiNLI (TaxiNLI), not on all 392,702",
    ENGLISH_ALONE,
)
XNLI_SOURCE = Source("facebook/xnli", "xnli", "{language}", "{language}.{split}")
XNLI_DEV = StandIn(XNLI_SOURCE, "validation", "scored on XNLI's validation split, not on its test split")
PAWSX_SOURCE = Source("google-research-datasets/paws-x", "paws-x", "{language}", "{language}.{split}", pair_id="id")
# The pairs of a language are translations of the English ones, so a pair is taught or scored in all languages alike.
PAWSX_DEV = StandIn(
    PAWSX_SOURCE,
    "validation",
    "trained on English pairs of PAWS-X's validation split (no train split), and scored on the other pairs in every language; "
    "no pair is taught in one language and scored in another",
)
TYDIQA_SOURCE = Source(
    "google-research-datasets/tydiqa", "tydiqa_goldp", "secondary_task", "{code}.{split}", by_id=True, names=TYDIQA
)
TYDIQA_TRAIN = StandIn(
    TYDIQA_SOURCE,
    "train",
    "scored on the train rows of the languages that are not taught: the validation rows have no answers",
    ("en", "ko", "sw"),
)
TYDIQA_GOLDP = Spec(
    "tydiqa/goldp", TYDIQA_SOURCE, ("question", "context"), "answers", SPANS, (), "answer_f1", 1e-5, 10, 384,
    languages=tuple(TYDIQA), taught=ENGLISH_ALONE, stand_ins={"test": TYDIQA_TRAIN},
)  # fmt: skip
# Never SQuAD: XQuAD is a translation of it, and the half that is at hand has articles in common with XQuAD.
TYDIQA_ENGLISH = Part("en", TYDIQA_GOLDP, ("train", None, None))
CONLL_ENGLISH = Part("en", CONLL_2003, ("train", "validation", None))
MLQA_DEV = StandIn(
    Source("facebook/mlqa", "mlqa", "mlqa.{language}.{language}", "{language}.{language}.{split}"),
    "validation",
    "scored on MLQA's dev split, not on its test split",
)
PANX_IN_LANGUAGE = Spec(
    "ner/panx-in-language", Source("unimelb-nlp/wikiann", "ner/panx", "{language}", "{language}.{split}"), ("tokens",),
    "ner_tags", WORDS, NER, "entity_f1", 5e-5, 5, languages=PANX,
)  # fmt: skip
MASAKHANER_IN_LANGUAGE = Spec(
    "ner/masakhaner-in-language",
    Source("masakhane/masakhaner", "ner/masakhaner", "{language}", "{language}.{split}", names=MASAKHANER),
    ("tokens",), "ner_tags", WORDS, NER + DATE, "entity_f1", 5e-5, 5, splits=("train", "validation", "test"),
    languages=tuple(MASAKHANER),
)  # fmt: skip
TWEETS_IN_LANGUAGE = Spec(
    "sentiment/tweets-in-language",
    Source(
        "cardiffnlp/tweet_sentiment_multilingual", "sentiment/tweet_sentiment_multilingual", "{language}",
        "{language}.{split}", names=TWEETS,
    ),
    ("text",), "label", CLASSES, POLARITY, "macro_f1", 2e-5, 3, splits=("train", "validation", "test"),
    languages=tuple(TWEETS),
)  # fmt: skip

LANGUAGES = (
    Spec(
        "xnli/xnli", XNLI_SOURCE, ("premise", "hypothesis"), "label", CLASSES, NLI, "accuracy", 2e-5, 5,
        splits=("train", None, "test"), languages=XNLI, taught=ENGLISH_ALONE,
        stand_ins={"train": MNLI_SUBSET, "test": XNLI_DEV},
    ),
    Spec(
        "paraphrase/paws-x", PAWSX_SOURCE, PAIR, "label", CLASSES, ("different", "paraphrase"), "accuracy", 2e-5, 5,
        splits=("train", None, "test"), languages=("de", "en", "es", "fr", "ja", "ko", "zh"), taught=ENGLISH_ALONE,
        stand_ins={"train": PAWSX_DEV, "test": PAWSX_DEV},
    ),
    TYDIQA_GOLDP,
    Spec(
        "qa/xquad", Source("google/xquad", "xquad", "xquad.{language}", "{language}.{split}"), ("question", "context"),
        "answers", SPANS, (), "answer_f1", 1e-5, 10, 384, languages=XQUAD, taught=ENGLISH_ALONE, parts=(TYDIQA_ENGLISH,),
    ),
    Spec(
        "qa/mlqa", MLQA_DEV.source, ("question", "context"), "answers", SPANS, (), "answer_f1", 1e-5, 10, 384,
        splits=("train", None, "test"), languages=MLQA, taught=ENGLISH_ALONE, stand_ins={"test": MLQA_DEV},
        parts=(TYDIQA_ENGLISH,),
    ),
    replace(PANX_IN_LANGUAGE, name="ner/panx-zero-shot", taught=ENGLISH_ALONE),
    PANX_IN_LANGUAGE,
    Spec(
        "ner/wikineural",
        Source(
            "Babelscape/wikineural", "ner/wikineural", file="{split}_{language}",
            hub_splits={split: f"{split}_{{language}}" for split in ("train", "val", "test")},
        ),
        ("tokens",), "ner_tags", WORDS, NER + MISC, "entity_f1", 5e-5, 3, splits=("train", "val", "test"),
        languages=WIKINEURAL, taught=ENGLISH_ALONE, parts=(CONLL_ENGLISH,),
    ),
    Spec(
        "ner/conll2002", Source("eriktks/conll2002", "ner/conll2002", "{language}", "{language}.{split}"),
        ("tokens",), "ner_tags", WORDS, NER + MISC, "entity_f1", 5e-5, 3, splits=("train", "validation", "test"),
        languages=("es", "nl"), taught=ENGLISH_ALONE, parts=(CONLL_ENGLISH,),
    ),
    # CoNLL-2003 has no dates and MasakhaNER no miscellaneous entities; both have the tags 7 and 8, which become O.
    replace(
        MASAKHANER_IN_LANGUAGE, name="ner/masakhaner-zero-shot", labels=NER, classes={"7": 0, "8": 0}, taught=ENGLISH_ALONE,
        parts=(CONLL_ENGLISH,),
    ),
    MASAKHANER_IN_LANGUAGE,
    replace(TWEETS_IN_LANGUAGE, name="sentiment/tweets-zero-shot", taught=ENGLISH_ALONE),
    TWEETS_IN_LANGUAGE,
    Spec(
        "sentiment/afrisenti",
        Source(
            "shmuhammad/AfriSenti-twitter-sentiment", "sentiment/afrisenti", "{language}", "{language}.{split}",
            names=AFRISENTI,
        ),
        ("tweet",), "label", CLASSES, ("positive", "neutral", "negative"), "macro_f1", 2e-5, 3,
        splits=("train", "validation", "test"), languages=tuple(AFRISENTI),
        taught=tuple(code for code in AFRISENTI if code not in ("om", "ti")),  # these two have no train rows
    ),
    Spec(
        "sentiment/wisesight", Source("pythainlp/wisesight_sentiment", "sentiment/wisesight_sentiment"), ("texts",), "category",
        CLASSES, ("pos", "neu", "neg", "question"), "macro_f1", 2e-5, 3, splits=("train", "validation", "test"),
    ),
)  # fmt: skip
