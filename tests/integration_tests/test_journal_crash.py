"""Runs that are killed (SIGKILL) at random points, and two that share a journal: the result is that of a quiet run."""

from __future__ import annotations

import json
import random
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SEED = 20_240_528
KILLS = 4
RUN = """
import json, sys
from xl3m_integrations import XL3M, scoring
from xl3m_integrations.bundled import corpus
import random

path, tokens = sys.argv[1], int(sys.argv[2])
rng = random.Random(3)
fact = corpus.register_fact(rng)
text = "".join(corpus.stream_document(rng, [(0.4, fact)], tokens))
scoring._SECONDS_BETWEEN_REPORTS = 0.0
xl3m = XL3M.default(device="cpu", batch_tokens=400)
print("begin", flush=True)
journal = None if path == "-" else path
selection = xl3m.select(text, fact.question, journal=journal, progress=lambda p: print(p.segments, flush=True))
print(json.dumps([selection.scores, [s.start for s in selection.segments], selection.reused]), flush=True)
"""
CHARACTERS = 160_000


def start(journal: Path | str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", RUN, str(journal), str(CHARACTERS)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def result(process: subprocess.Popen[str]) -> Any:
    lines = process.communicate()[0].splitlines()
    assert process.returncode == 0
    return json.loads(lines[-1])


@pytest.fixture(scope="module")
def quiet() -> Any:
    """What a run without a journal finds: scores, kept places, segments reused."""
    scores, kept, reused = result(start("-"))
    assert reused == 0 and len(set(scores)) > 100
    return scores, kept


def rows(journal: Path) -> int:
    connection = sqlite3.connect(journal)
    try:
        return int(connection.execute("SELECT count(*) FROM evidence").fetchone()[0])
    finally:
        connection.close()


def test_a_run_killed_at_random_points_ends_as_one_that_was_not(quiet: Any, tmp_path: Path) -> None:
    scores, kept = quiet
    rng = random.Random(SEED)
    journal, saved = tmp_path / "run.db", []
    for point in sorted(rng.randrange(len(scores)) for _ in range(KILLS)):
        process = start(journal)
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip().isdigit() and int(line) >= point:
                break
        process.kill()
        process.communicate()
        assert process.returncode != 0
        saved.append(rows(journal))
    assert saved == sorted(saved) and 0 < saved[-1] < len(scores), f"seed {SEED}"
    assert result(start(journal)) == [scores, kept, saved[-1]]
    assert result(start(journal)) == [scores, kept, len(scores)]


def test_two_processes_share_a_journal(quiet: Any, tmp_path: Path) -> None:
    scores, kept = quiet
    journal = tmp_path / "run.db"
    both = [start(journal), start(journal)]
    for process in both:
        found, places, _ = result(process)
        assert found == pytest.approx(scores, abs=1e-3)  # what the other has left over is read in other batches
        assert places == kept
    assert rows(journal) == len(set(scores))
