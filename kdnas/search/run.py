"""The search: propose, distil briefly, reward, learn; every finished candidate is kept in the journal."""

import csv
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from kdnas.arch import Arch, SearchSpace
from kdnas.artifact import Artifact, build
from kdnas.corpus import Corpus, build_corpus
from kdnas.errors import KdnasError, UsageError
from kdnas.progress import stage
from kdnas.rows import TextOptions
from kdnas.search import journal
from kdnas.search.journal import Candidate
from kdnas.search.options import ProxyOptions, SearchOptions
from kdnas.search.pareto import pareto_front
from kdnas.search.reward import reward
from kdnas.teacher import Teacher, resolve_teacher

if TYPE_CHECKING:
    from kdnas.search.proxy import ProxyResult
    from kdnas.search.strategies import Proposal, Strategy

__all__ = ["ProxyOptions", "SearchOptions", "read_latencies", "run_search", "search"]

TABLE = "table.csv"
STATES = "teacher-states"  # scratch in the working folder, deleted before the artifact is published


def search(
    options: SearchOptions,
    table: Path,
    teacher: str = "builtin:minilm-l6",
    corpus: str = "builtin:pydocs",
    text: TextOptions = TextOptions(),
    space: SearchSpace = SearchSpace(),
    home: Path = Path("artifacts"),
) -> None:
    """Search for the student with the best reward, and print the folder of the result.

    Args:
        options: the search.
        table: folder that `kdnas latency-table` printed.
        teacher: `builtin:minilm-l6`, a folder, or a hub id.
        corpus: `builtin:pydocs`, a file, or a hub id.
        text: how the corpus is read.
        space: values that each field may take; depths beyond the teacher's are left out.
        home: root of all artifacts.
    """
    artifact = Artifact.load(table, "latency-table")
    latencies, teacher_latency_ms = read_latencies(artifact)
    found = resolve_teacher(teacher)
    built = build_corpus(home, corpus, text, found)
    result = run_search(home, found, built, space, latencies.__getitem__, teacher_latency_ms, artifact.digest, options)
    print(result.path)


def read_latencies(artifact: Artifact) -> tuple[dict[Arch, float], float]:
    """Milliseconds of each architecture of a latency table, and of the teacher that was measured with it.

    Raises:
        UsageError: the table is missing, damaged or has no teacher.
    """
    path = artifact.path / TABLE
    try:
        with path.open(newline="") as file:
            rows = csv.DictReader(file)
            latencies = {
                Arch(
                    int(row["layers"]), int(row["heads"]), int(row["hidden"]), int(row["ffn"]), row["activation"]
                ): float(row["latency_ms"])
                for row in rows
            }
        teacher_latency_ms = float(artifact.results["teacher_latency_ms"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"{path}: not a whole latency table ({type(error).__name__}: {error}); run `kdnas latency-table` again"
        ) from error
    return latencies, teacher_latency_ms


@dataclass(frozen=True)
class Goal:
    """What a candidate is rewarded by: latencies of the space and the constants of Eq. 4."""

    latencies: dict[Arch, float]
    teacher_latency_ms: float
    alpha: float
    beta: float

    def reward(self, arch: Arch, loss: float) -> float:
        """Eq. 4."""
        return reward(loss, self.latencies[arch], self.teacher_latency_ms, self.alpha, self.beta)


def run_search(
    home: Path,
    teacher: Teacher,
    corpus: Corpus,
    space: SearchSpace,
    latency_ms: Callable[[Arch], float],
    teacher_latency_ms: float,
    latency_digest: str,
    options: SearchOptions,
) -> Artifact:
    """Search the part of a space that the teacher can teach; resumes from the journal after an interruption.

    Args:
        home: root of artifacts.
        teacher: the teacher.
        corpus: what candidates are distilled on.
        space: values that each field may take.
        latency_ms: latency of each architecture of it.
        teacher_latency_ms: the teacher's, from the same host and engine.
        latency_digest: digest of where the latencies come from.
        options: the search.

    Raises:
        UsageError: the teacher can teach nothing of the space, or latencies are missing.
        KdnasError: not one candidate could be evaluated.
    """
    space = space.teachable(teacher.layers)
    goal = Goal(collect_latencies(space, latency_ms), teacher_latency_ms, options.alpha, options.beta)
    config = {"space": space, "options": options, "teacher_latency_ms": teacher_latency_ms}
    inputs = {"teacher": teacher.digest, "corpus": corpus.digest, "latency-table": latency_digest}
    return build(
        home, "search", teacher.label, config, inputs, lambda path: _work(path, teacher, corpus, space, goal, options)
    )


def collect_latencies(space: SearchSpace, latency_ms: Callable[[Arch], float]) -> dict[Arch, float]:
    """Latency of every architecture of the space.

    Raises:
        UsageError: some have none, or one that is not above 0.
    """
    latencies: dict[Arch, float] = {}
    for arch in space:
        try:
            latencies[arch] = float(latency_ms(arch))
        except KeyError:
            continue
    wrong = [arch for arch in space if not 0 < latencies.get(arch, math.nan) < math.inf]
    if wrong:
        raise UsageError(
            f"latency table: no usable latency for {len(wrong)} of {len(space)} architectures of the space, the first is "
            f"{wrong[0]}; run `kdnas latency-table` again, or cut the space"
        )
    return latencies


def _work(
    path: Path, teacher: Teacher, corpus: Corpus, space: SearchSpace, goal: Goal, options: SearchOptions
) -> dict[str, Any]:
    from kdnas.search.controller import Controller
    from kdnas.search.proxy import Proxy
    from kdnas.search.strategies import Epsilon, Kdnas

    proxy = Proxy(path / STATES, teacher, corpus, space, options.proxy, options.seed)
    epsilon = Epsilon(options.epsilon_start, options.epsilon_decay, options.epsilon_min)
    controller = Controller(options.controller_lr, options.controller_epochs, options.seed)
    strategy = Kdnas(space, epsilon, controller, options.seed)
    candidates = explore(path / journal.FILE, strategy, proxy, goal, options)
    proxy.close()
    return summary(candidates, space, goal) | {
        "episodes": options.episodes,
        "proxy_tokens": proxy.tokens,
        "precision": proxy.precision,
    }


def explore(
    path: Path,
    strategy: "Strategy",
    evaluate: "Callable[[Arch], ProxyResult]",
    goal: Goal,
    options: SearchOptions,
) -> list[Candidate]:
    """Run the episodes, taking from the journal what an earlier run finished.

    Args:
        path: the journal; each candidate is appended to it as soon as it is finished.
        strategy: proposes and learns.
        evaluate: distils an architecture.
        goal: latencies and reward.
        options: episodes and candidates an episode.

    Returns:
        All candidates, in order; fewer than asked for where the space has no more.
    """
    from kdnas.search.strategies import Observation

    candidates = journal.read(path)
    total = min(options.episodes * options.candidates_per_episode, len(goal.latencies))
    with stage("search", total, len(candidates)) as progress:
        for episode in range(options.episodes):
            finished = [candidate for candidate in candidates if candidate.episode == episode]
            proposals = strategy.ask(options.candidates_per_episode, [candidate.arch for candidate in finished])
            for proposal in proposals:
                candidate = evaluate_one(proposal, len(candidates), episode, evaluate, goal)
                journal.append(path, candidate)
                candidates.append(candidate)
                finished.append(candidate)
                progress.update(len(candidates), _note(candidate, candidates))
            if not finished:
                break
            strategy.tell([Observation(candidate.arch, candidate.reward) for candidate in finished])
    return candidates


def evaluate_one(
    proposal: "Proposal", number: int, episode: int, evaluate: "Callable[[Arch], ProxyResult]", goal: Goal
) -> Candidate:
    """Distil a proposal; one that diverges or cannot run is a failed candidate, not the end of the search."""
    start, failed, tokens, loss = time.monotonic(), None, 0, math.nan
    try:
        result = evaluate(proposal.arch)
        loss, tokens = result.loss, result.tokens
        if not math.isfinite(loss):
            failed = f"the loss is {loss}"
    except (RuntimeError, MemoryError) as error:  # out of memory, a kernel that refuses a shape
        failed = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}"
    return Candidate(
        number=number,
        episode=episode,
        arch=proposal.arch,
        explored=proposal.explored,
        loss=None if failed else loss,
        latency_ms=goal.latencies[proposal.arch],
        reward=None if failed else goal.reward(proposal.arch, loss),
        predicted_reward=proposal.predicted_reward,
        tokens=tokens,
        seconds=round(time.monotonic() - start, 3),
        failed=failed,
    )


def summary(candidates: list[Candidate], space: SearchSpace, goal: Goal) -> dict[str, Any]:
    """Figures of a finished search.

    Raises:
        KdnasError: every candidate failed.
    """
    winner = journal.best(candidates)
    if winner is None:
        raise KdnasError(
            f"search: all {len(candidates)} candidates failed, the first with '{candidates[0].failed}'; "
            "try a lower --proxy.peak_lr"
        )
    finished = [candidate for candidate in candidates if candidate.loss is not None]
    front = pareto_front([(candidate.loss or 0.0, candidate.latency_ms) for candidate in finished])
    return {
        "winner": str(winner.arch),
        "winner_reward": winner.reward,
        "candidates": len(candidates),
        "failed": len(candidates) - len(finished),
        "space_size": len(space),
        "teacher_latency_ms": goal.teacher_latency_ms,
        "pareto": [
            {"arch": str(one.arch), "loss": one.loss, "latency_ms": one.latency_ms, "reward": one.reward}
            for one in (finished[place] for place in front)
        ],
        "seconds_per_candidate": round(mean(candidate.seconds for candidate in candidates), 3),
    }


def _note(latest: Candidate, candidates: list[Candidate]) -> str:
    """The latest and the best candidate, for the progress display."""
    best = journal.best(candidates)
    shown = (
        f"{latest.arch} failed" if latest.failed else f"{latest.arch} loss {latest.loss:.3f} reward {latest.reward:.3f}"
    )
    return shown + (f"; best {best.arch} {best.reward:.3f}" if best else "")
