"""Runs that are killed (SIGKILL) at random points, and two that share a journal: the result is that of a quiet run."""

from __future__ import annotations

import multiprocessing
import random
import sqlite3
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

SEED = 20_240_528
KILLS = 4
CHARACTERS = 60_000
SERVER = multiprocessing.get_context("forkserver")  # imports what is heavy once; every run is a process of its own
SERVER.set_forkserver_preload(["xl3m_integrations.engine", "xl3m_integrations.backends.loading"])


AGAIN = 10**6  # what a run tells of the answers that it looks at begins here
FURTHER = 40  # segments that a run reads at most beyond the point at which it is to be killed


def run(journal: Path | None, told: Connection, hangs_at: int) -> None:
    """Select from the same text; tells how many segments are read, one by one, and the result at the end.

    It waits for its end at `hangs_at`, so that a machine at work elsewhere cannot let it finish before it is killed.
    """
    from xl3m_integrations import XL3M, scoring
    from xl3m_integrations.bundled import corpus

    rng = random.Random(3)
    fact = corpus.register_fact(rng)
    text = "".join(corpus.stream_document(rng, [(0.4, fact)], CHARACTERS))
    scoring._SECONDS_BETWEEN_REPORTS = 0.0
    xl3m = XL3M.default(device="cpu", batch_tokens=160)
    read = xl3m.scorer.evidence

    def tell(point: int) -> None:
        told.send(point)
        if hangs_at <= point < AGAIN or hangs_at == point:
            threading.Event().wait()

    def evidence(segments: Any, question: str, measure: Any) -> Iterator[Any]:
        for number, found in enumerate(read(segments, question, measure), 1):
            if measure.name == "second_look":
                tell(AGAIN + number)
            yield found

    xl3m.scorer.evidence = evidence
    selection = xl3m.select(text, fact.question, journal=journal, progress=lambda p: tell(p.segments))
    told.send((selection.scores, [segment.start for segment in selection.segments], selection.reused))


class Run:
    """A process at work, and what it tells."""

    def __init__(self, journal: Path | None, hangs_at: int = sys.maxsize) -> None:
        self._heard, told = SERVER.Pipe(duplex=False)
        self.process = SERVER.Process(target=run, args=(journal, told, hangs_at))
        self.process.start()
        told.close()

    def told(self) -> Iterator[Any]:
        while True:
            try:
                yield self._heard.recv()
            except EOFError:
                return

    def kill_at(self, point: int) -> None:
        next(said for said in self.told() if said >= point)
        self.process.kill()
        self.process.join()
        assert self.process.exitcode == -9
        self._heard.close()

    def result(self) -> Any:
        *_, last = self.told()
        self.process.join()
        assert self.process.exitcode == 0
        self._heard.close()
        return last


@pytest.fixture(scope="module")
def quiet() -> Any:
    """What a run without a journal finds: scores and kept places."""
    scores, kept, reused = Run(None).result()
    assert reused == 0 and len(set(scores)) > 100
    return scores, kept


def rows(journal: Path) -> tuple[int, int, int]:
    """How many there are of the first look, of the sentences, and of the answers."""
    with closing(sqlite3.connect(journal)) as connection:
        counts = connection.execute(
            "SELECT settings, count(*) FROM evidence JOIN runs ON run = id GROUP BY run"
        ).fetchall()
    looks = ["SentenceLook{", "SecondLook{"]
    sentences, answers = (sum(count for settings, count in counts if look in settings) for look in looks)
    return sum(count for _, count in counts) - sentences - answers, sentences, answers


def test_a_run_killed_at_random_points_ends_as_one_that_was_not(quiet: Any, tmp_path: Path) -> None:
    scores, kept = quiet
    rng = random.Random(SEED)
    journal, saved = tmp_path / "run.db", []
    for point in sorted(rng.randrange(1, len(scores) - FURTHER) for _ in range(KILLS)):
        Run(journal, hangs_at=point + FURTHER).kill_at(point)
        saved.append(rows(journal)[0])
    assert saved == sorted(saved) and 0 < saved[-1] < len(scores), f"seed {SEED}"
    Run(journal, hangs_at=AGAIN + 5).kill_at(AGAIN + 5)
    first, sentences, answers = rows(journal)
    assert first == len(scores) and sentences > 16 and answers < 8
    assert Run(journal).result() == (scores, kept, len(scores))
    assert rows(journal) == (len(scores), sentences, 8)


def test_two_processes_share_a_journal(quiet: Any, tmp_path: Path) -> None:
    scores, kept = quiet
    journal = tmp_path / "run.db"
    for one in [Run(journal), Run(journal)]:
        found, places, _ = one.result()
        assert found == pytest.approx(scores, abs=0.1)  # bfloat16: what the other leaves over is read in other batches
        assert places == kept
    assert rows(journal)[0] == len(scores)
