"""The proxy with embeddings: its loss, prompts and cached layers, and recordings that know their objective."""

import csv
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from kdnas.distill.building import shared_with_candidates
from kdnas.distill.cut_table import ids_of
from kdnas.distill.options import DistillOptions
from kdnas.distill.projection import RIDGE
from kdnas.distill.prompting import Prompting, read_prompting
from kdnas.distill.starting import start_student
from kdnas.distill.warm_start import TeacherLayers
from kdnas.errors import UsageError
from kdnas.evaluation.fidelity import FidelityOptions, fidelity
from kdnas.models.arch import Arch, SearchSpace
from kdnas.models.head import Prompts, read_prompts
from kdnas.models.pooling import write_modules
from kdnas.models.teacher import Teacher, load_encoder, resolve_teacher
from kdnas.search.options import ProxyOptions, SearchOptions
from kdnas.search.prompted import PromptedSentences
from kdnas.search.proxy import Proxy
from kdnas.search.record import RecordOptions, run_record
from kdnas.search.recording import PROVENANCE, read_recording
from kdnas.search.replays import open_replays
from kdnas.search.run import search
from kdnas.search.teacher_states import Subset
from kdnas.text.corpus import Corpus

from .search_fixture import recorded, table

ARCH = Arch(3, 12, 288, 384, "gelu")
SPACE = SearchSpace(layers=(3, 4), hidden=(288,), ffn=(384,), activation=("gelu",))
PROXY = ProxyOptions(objective="embedding", tokens=900, batch_tokens=256, validation_sentences=20)


@pytest.fixture(scope="module")
def prompted_teacher(tiny_teacher: Teacher, tmp_path_factory: pytest.TempPathFactory) -> Teacher:
    """The tiny teacher with two prompts."""
    folder = tmp_path_factory.mktemp("prompted")
    for file in tiny_teacher.path.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    write_modules(folder, 96, 64, prompts=Prompts({"query": "query: ", "passage": "passage: "}))
    return resolve_teacher(str(folder))


def test_sentences_have_the_ids_of_the_prompted_texts(prompted_teacher: Teacher, corpus: Corpus) -> None:
    tokenizer = Tokenizer.from_file(str(prompted_teacher.path / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    prompting = read_prompting(prompted_teacher.path, read_prompts(prompted_teacher.path), 64)
    split = PromptedSentences(corpus.train.path, "train", prompting)
    for number in (0, 1, 6, 7):
        text = ("query: ", "passage: ")[number % 2] + corpus.train.texts[number]
        assert split[number].tolist() == tokenizer.encode(text).ids
    assert split.lengths.tolist() == [len(split[number]) for number in range(len(split))]
    again = pickle.loads(pickle.dumps(split))
    assert again[7].tolist() == split[7].tolist()
    ids, mask = split.batch(np.array([3, 8]), corpus.pad_id)
    assert mask.sum(1).tolist() == split.lengths[[3, 8]].tolist()
    assert ids.shape == mask.shape
    short = PromptedSentences(corpus.train.path, "train", replace_positions(prompting, int(corpus.train.lengths[0])))
    assert short[0].tolist() == corpus.train[0].tolist()  # no position is left


def replace_positions(prompting: Prompting, positions: int) -> Prompting:
    return Prompting(prompting.prompts, 1, positions)


def test_rows_of_the_prompts_are_trained_in_a_cut_table(prompted_teacher: Teacher, tiny_teacher: Teacher) -> None:
    class NoText:
        pad_id, train, validation = (
            0,
            type("Split", (), {"tokens": np.zeros(0, int)}),
            type("Split", (), {"tokens": []}),
        )

    without = set(ids_of(NoText, tiny_teacher))  # type: ignore[arg-type]
    tokenizer = Tokenizer.from_file(str(tiny_teacher.path / "tokenizer.json"))
    prompts = tokenizer.encode_batch(["query: ", "passage: "], add_special_tokens=False)
    assert set(ids_of(NoText, prompted_teacher)) - without == {row for one in prompts for row in one.ids if row}  # type: ignore[arg-type]
    assert tokenizer.token_to_id(":") not in without


def vectors(model: torch.nn.Module, subset: Subset) -> np.ndarray:
    """Mean-pooled states of each sentence."""
    found = []
    for number in subset.numbers:
        ids = torch.from_numpy(subset.sentences[int(number)].astype(np.int64))[None]
        with torch.no_grad():
            found.append(model(input_ids=ids).last_hidden_state[0].mean(0).numpy())
    return np.stack(found).astype(np.float64)


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_loss_is_the_distance_of_the_prompted_embeddings(
    prompted_teacher: Teacher, corpus: Corpus, tmp_path: Path
) -> None:
    """With no effective training step, the proxy's loss is that of a head in closed form, in numpy, text by text."""
    options = ProxyOptions("embedding", tokens=1500, peak_lr=1e-30, validation_sentences=12)
    proxy = Proxy(tmp_path / "states", prompted_teacher, corpus, SPACE, options, 5)
    found = proxy(ARCH).loss
    encoder = load_encoder(prompted_teacher.path)
    batches = [proxy.train.batch(indices, corpus.pad_id) for indices in proxy.plan]
    student = start_student(ARCH, encoder, "layers", 5, TeacherLayers(encoder, batches)).eval()
    inputs, wanted = vectors(student, proxy.train), unit(vectors(encoder, proxy.train))
    inputs = np.hstack([inputs, np.ones((len(inputs), 1))])
    gram = inputs.T @ inputs
    ridge = RIDGE * np.diag(gram)[:-1].mean() * np.diag([1.0] * 288 + [0.0])
    head = np.linalg.solve(gram + ridge, inputs.T @ wanted)
    held_out = np.hstack([vectors(student, proxy.validation), np.ones((12, 1))])
    cosines = (unit(held_out @ head) * unit(vectors(encoder, proxy.validation))).sum(1)
    assert found == pytest.approx(1 - cosines.mean(), rel=0.03)
    assert 0 < found < 1
    plain = Proxy(tmp_path / "plain", prompted_teacher, corpus, SPACE, replace(options, objective="hidden-state"), 5)
    assert plain.train.lengths.sum() < proxy.train.lengths.sum()  # prompts are for embeddings alone


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["embedding", "hidden-state+embedding"])
def test_training_lowers_the_loss_with_cached_or_live_states(
    tiny_teacher: Teacher, corpus: Corpus, tmp_path: Path, objective: str
) -> None:
    distill = DistillOptions(objective="embedding", similarity_weight=0.5, matryoshka=(32,), contrastive_weight=0.3)

    def proxy(tokens: int, cache_gb: float = 1.0) -> Proxy:
        options = replace(PROXY, objective=objective, tokens=tokens, cache_gb=cache_gb)  # type: ignore[arg-type]
        return Proxy(tmp_path / f"{tokens}-{cache_gb}", tiny_teacher, corpus, SPACE, options, 0, distill)

    long = proxy(6000)
    assert long.figures["objective"] == objective
    cached = sorted(file.name for file in (tmp_path / "6000-1.0" / "train").glob("*.f16"))
    every = ["layer-1.f16", "layer-2.f16", "layer-3.f16", "layer-4.f16"]
    assert cached == (["layer-4.f16"] if objective == "embedding" else every)
    found = long(ARCH)
    assert found == long(ARCH)
    assert found.loss < 0.9 * proxy(300)(ARCH).loss
    assert proxy(6000, cache_gb=0)(ARCH).loss == pytest.approx(found.loss, rel=0.03)  # the cached states are float16


def test_widths_above_the_teachers_are_rejected(tiny_teacher: Teacher, corpus: Corpus, tmp_path: Path) -> None:
    distill = DistillOptions(objective="embedding", matryoshka=(96,))
    with pytest.raises(UsageError, match="96 dimensions"):
        Proxy(tmp_path, tiny_teacher, corpus, SPACE, PROXY, 0, distill)(ARCH)


def test_keys_have_the_options_of_the_objective() -> None:
    one, other = DistillOptions(objective="embedding"), DistillOptions(objective="embedding", embedding_loss="mse")
    assert shared_with_candidates(one, "hidden-state") == shared_with_candidates(other, "hidden-state")
    assert shared_with_candidates(one, "embedding") != shared_with_candidates(other, "embedding")
    assert "contrastive_weight" not in shared_with_candidates(one, "embedding")
    with pytest.raises(UsageError, match=r"proxy\.objective is 'vectors'; allowed are hidden-state, embedding"):
        ProxyOptions(objective="vectors")  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_recording_knows_its_objective(tiny_teacher: Teacher, corpus: Corpus, tmp_path: Path) -> None:
    options = RecordOptions(architectures=1, second_seed_for=0, checkpoints=2, proxy=PROXY)
    made = run_record(tmp_path, tiny_teacher, corpus, SPACE, options)
    recording = read_recording(made.path)
    assert recording.source.objective == made.results["objective"] == "embedding"
    arch = next(iter(recording.losses))
    found = Proxy(tmp_path / "states", tiny_teacher, corpus, SPACE, PROXY, 0)(arch)
    assert recording(arch).loss == pytest.approx(found.loss, abs=1e-6)
    other = run_record(
        tmp_path, tiny_teacher, corpus, SPACE, replace(options, proxy=replace(PROXY, objective="hidden-state"))
    )
    assert other.path != made.path
    assert read_recording(other.path).source.objective == "hidden-state"


def test_recordings_of_another_objective_are_refused(
    tiny_teacher: Teacher, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = recorded(tmp_path / "old.csv", list(SPACE))
    known = dict.fromkeys(PROVENANCE, "") | {"objective": "embedding"}
    file = recorded(tmp_path / "embedding.csv", list(SPACE), **known)
    assert read_recording(old).source.objective == "hidden-state"
    latencies = table(tmp_path).path
    run = SearchOptions(episodes=1, candidates_per_episode=2, strategy="random")
    more = {"teacher": str(tiny_teacher.path), "space": SPACE, "home": tmp_path}
    with pytest.raises(
        UsageError, match=r"of objective 'embedding', not of 'hidden-state'; give --proxy\.objective emb"
    ):
        search(run, latencies, replay=file, **more)  # type: ignore[arg-type]
    embedding = replace(run, proxy=PROXY)
    with pytest.raises(
        UsageError, match=r"'hidden-state', not of 'embedding'.*kdnas record --proxy\.objective embedding"
    ):
        search(embedding, latencies, replay=old, **more)  # type: ignore[arg-type]
    search(embedding, latencies, replay=file, **more)  # type: ignore[arg-type]
    given = ([file], [latencies], SPACE, str(tiny_teacher.path), tmp_path)
    with pytest.raises(UsageError, match=r"^compare-strategies: .*embedding\.csv: .*give --objective embedding"):
        open_replays(*given)
    assert len(open_replays(*given, "embedding")) == 1
    long = DistillOptions(steps=2)
    with pytest.raises(UsageError, match=r"^fidelity: .*give --distill\.objective embedding"):
        fidelity(FidelityOptions(), file, long, teacher=str(tiny_teacher.path), space=SPACE, home=tmp_path)
    rows = [*csv.reader(file.open(newline="")), *list(csv.reader(old.open(newline="")))[1:]]
    (tmp_path / "both.csv").write_text("".join(",".join(row) + "\n" for row in rows))
    with pytest.raises(UsageError, match="losses of the objectives embedding, hidden-state"):
        read_recording(tmp_path / "both.csv")
