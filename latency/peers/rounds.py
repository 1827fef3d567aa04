"""The timed rounds: in each, every library runs every input once, one library at a time in random order."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from kdnas.latency.peers.measure import Live, Sets, Times, turn, workloads_of
from kdnas.latency.peers.options import PeerOptions
from kdnas.latency.peers.rows import Row
from kdnas.latency.process import ATTEMPTS, WorkerError
from kdnas.store.json_files import append_jsonl, read_jsonl
from kdnas.store.progress import say, stage


class Rounds:
    """Rounds of an earlier, interrupted run, and new ones.

    A library whose process dies is started again; after `ATTEMPTS` deaths it is left out and its rounds are dropped.

    Args:
        log: log of finished turns; new ones are appended.
        live: the libraries by name; those that die too often are removed.
        sets: the inputs.
        options: rounds, minutes, batches and seed.
        reasons: the removed ones are added here.
        again: starts a library again.
    """

    def __init__(
        self,
        log: Path,
        live: dict[str, Live],
        sets: Sets,
        options: PeerOptions,
        reasons: dict[str, str],
        again: Callable[[Row], Live],
    ) -> None:
        self._log, self._live, self._sets, self._options = log, live, sets, options
        self._reasons, self._again = reasons, again
        self._deaths = dict.fromkeys(live, 0)
        self._done: dict[str, dict[int, Times]] = {name: {} for name in live}
        self._spent = 0.0
        for line in read_jsonl(log):
            if "round" in line and line["row"] in self._done:
                self._done[line["row"]][line["round"]] = line["times_ms"]
                self._spent += line["seconds"]

    def run(self) -> dict[str, dict[int, Times]]:
        """Time until the rounds or the minutes are used up; at least 2 rounds.

        Returns:
            Times of each remaining library, by the number of the round.
        """
        options, start = self._options, time.monotonic()
        with stage("peers: rounds", options.rounds) as progress:
            for number in range(options.rounds):
                if number >= 2 and self._spent + time.monotonic() - start > 60 * options.minutes:
                    break
                names = list(self._live)
                for index in np.random.default_rng([options.seed, number]).permutation(len(names)):
                    if number not in self._done[names[index]]:
                        self._one_turn(names[index], number)
                progress.advance()
            progress.update(options.rounds)
        return {name: rounds for name, rounds in self._done.items() if name in self._live}

    def _one_turn(self, name: str, number: int) -> None:
        """One library's turn in a round; its process is replaced if it dies."""
        while name in self._live:
            began = time.monotonic()
            try:
                one = self._live[name]
                times = turn(one, workloads_of(self._sets, self._options.batches, one.opened["ids"]))
            except WorkerError as error:
                self._start_again(name, error)
                continue
            seconds = round(time.monotonic() - began, 3)
            append_jsonl(self._log, {"row": name, "round": number, "seconds": seconds, "times_ms": times})
            self._done[name][number] = times
            return

    def _start_again(self, name: str, error: WorkerError) -> None:
        self._deaths[name] += 1
        if self._deaths[name] == ATTEMPTS:
            self._leave_out(name, f"it failed {ATTEMPTS} times while it was timed: {error}")
            return
        say(f"peers: {name} failed ({error}); starting it again")
        try:
            self._live[name].process = self._again(self._live[name].row).process
        except WorkerError as second:
            self._leave_out(name, f"it failed while it was timed ({error}) and does not start again: {second}")

    def _leave_out(self, name: str, reason: str) -> None:
        self._reasons[name] = reason
        del self._live[name]
