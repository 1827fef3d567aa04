"""The topic task, made from a corpus with topics: for pydocs, predict the package of a docstring sentence."""

from collections import Counter, defaultdict

from kdnas.errors import UsageError
from kdnas.evaluation.tasks import Task, ordered, position_of
from kdnas.text.corpus import Corpus
from kdnas.text.sentences import Sentences

LEAST_TRAIN, LEAST_TEST = 20, 5
DEV_SHARE, MOST_DEV_SHARE = 0.15, 0.3

GroupedText = tuple[str, str]  # text and group


def topic_task(corpus: Corpus, topics: int, train_cap: int, test_cap: int, seed: int) -> tuple[Task | None, str]:
    """The topic task, or None and the reason why this corpus has none.

    The test rows come from the corpus's validation split, which shares no group (module) with train. The dev rows are whole
    groups of train, chosen by hash, so that dev and test measure the same.

    Args:
        corpus: any corpus; a topic needs at least 20 train and 5 validation sentences.
        topics: number of topics; the most frequent ones are used.
        train_cap: maximum number of train and dev sentences per topic.
        test_cap: maximum number of test sentences per topic.
        seed: seed for the choice of sentences and of dev groups.
    """
    sizes, test_sizes = Counter(corpus.train.topics), Counter(corpus.validation.topics)
    usable = [topic for topic in sizes if topic and sizes[topic] >= LEAST_TRAIN and test_sizes[topic] >= LEAST_TEST]
    labels = sorted(sorted(usable, key=lambda topic: (-sizes[topic], topic))[:topics])
    if len(labels) < 2:
        return None, (
            f"no topic task: {len(labels)} topics have at least {LEAST_TRAIN} train and {LEAST_TEST} validation "
            "sentences in this corpus, two are needed; name a column of class labels with --text.topic"
        )
    train_rows = _by_topic(corpus.train, labels, train_cap, seed)
    test_rows = _by_topic(corpus.validation, labels, test_cap, seed)
    splits: dict[str, list[tuple[str, int]]] = {"train": [], "dev": [], "test": []}
    for index, topic in enumerate(labels):
        kept = train_rows[topic]
        dev_texts = _dev_texts(kept, seed)
        for text, _ in kept:
            splits["dev" if text in dev_texts else "train"].append((text, index))
        splits["test"] += ((text, index) for text, _ in test_rows[topic])
    notes = (
        f"{len(labels)} most frequent topics of the corpus; at most {train_cap} train and dev and {test_cap} test "
        "sentences each; test: the corpus's validation groups; dev: groups taken from train"
    )
    train, dev, test = (ordered(rows, seed) for rows in splits.values())
    task = Task("topic", labels, train, dev, test, notes=notes)
    try:
        task.check("the topic task of this corpus")
    except UsageError as error:
        return None, f"no topic task: {error}"
    return task, notes


def _by_topic(sentences: Sentences, topics: list[str], cap: int, seed: int) -> dict[str, list[GroupedText]]:
    """The first `cap` rows of each topic in the order of their hash; about twice as many are in memory."""
    rows: dict[str, list[tuple[float, str, str]]] = {topic: [] for topic in topics}
    for text, topic, group in zip(sentences.texts, sentences.topics, sentences.groups, strict=True):
        if (found := rows.get(topic)) is not None:
            found.append((position_of(text, seed), text, group))
            if len(found) > 2 * cap + 1000:
                found[:] = sorted(found)[:cap]
    return {topic: [(text, group) for _, text, group in sorted(found)[:cap]] for topic, found in rows.items()}


def _dev_texts(rows: list[GroupedText], seed: int) -> set[str]:
    """Texts of about DEV_SHARE of one topic's rows: whole groups in the order of their hash, as long as they fit.

    If the groups of a topic are too large (for example a single module), single sentences are chosen instead.
    """
    wanted = max(1, round(DEV_SHARE * len(rows)))
    groups: dict[str, list[str]] = defaultdict(list)
    for text, group in rows:
        groups[group].append(text)
    chosen: set[str] = set()
    for group in sorted(groups, key=lambda name: (position_of(name, seed), name)):
        if len(chosen) < wanted and len(chosen) + len(groups[group]) <= MOST_DEV_SHARE * len(rows):
            chosen.update(groups[group])
    if len(chosen) < wanted / 2:
        chosen = {text for text, _ in rows[:wanted]}
    return chosen
