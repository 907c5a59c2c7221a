"""Runs that survive: a scorer's evidence, kept in an SQLite file as it comes, so that a run goes on where it stopped.

One row per segment and question: the evidence, under a digest of the segment's token ids and the settings that it
depends on (the scorer's fingerprint with its template, the measure with its settings, the question). So every pass has
rows of its own: the first look, the second, each hop. Rows are only ever added. Several
processes may share a file; each waits for the other's short transactions.

Rows are committed when the scorer asks for more segments while it owes none, which the transformers backend does
between its groups of batches, or else once a second. So a killed run has lost one group or one second, and what is left
to do falls into the same batches as before: the numbers come out the same to the last bit.
"""

from __future__ import annotations

import hashlib
import struct
import time
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import fields, is_dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from xl3m_integrations.backends.base import (
    Evidence,
    Fingerprinted,
    Reused,
    Scorer,
    SharingScorer,
    evidence_many,
    one_by_one,
)
from xl3m_integrations.backends.journal_file import Journal
from xl3m_integrations.certainty import Measure
from xl3m_integrations.errors import SettingError
from xl3m_integrations.types import Segment

if TYPE_CHECKING:
    from xl3m_integrations.backends.kv_blocks import KVStore

Found = tuple[Evidence, ...]  # a segment's evidence for each question
SECONDS_BETWEEN_COMMITS = 1.0
LONGEST_SKIP = 1_024  # known segments in a row after which a pass ends, so that they need not be held until it asks on


class JournaledScorer:
    """A scorer that passes on to another what the journal does not hold yet, and keeps what that one says.

    Args:
        scorer: The scorer; it must have a fingerprint.
        path: The journal's file; it is made where there is none.

    Raises:
        SettingError: The scorer has no fingerprint.
        JournalError: The file is no journal, is damaged, or cannot be written. It is left as it is.
    """

    def __init__(self, scorer: Scorer, path: str | Path) -> None:
        if not isinstance(scorer, Fingerprinted):
            raise SettingError(
                f"{type(scorer).__name__} has no fingerprint, so a journal could not tell its numbers from another "
                "model's; give it a `fingerprint` (a string that changes with weights, tokenizer and template), or "
                "leave journal= out."
            )
        self.scorer = scorer
        self.window, self.tokenizer, self.overhead = scorer.window, scorer.tokenizer, scorer.overhead
        self.fingerprint = scorer.fingerprint
        self.path = Path(path)
        Journal(self.path).close()  # refused before any work is done

    def evidence(
        self, segments: Iterable[Segment], question: str, measure: Measure
    ) -> Iterator[tuple[Segment, Evidence]]:
        """See `Scorer.evidence`. What was computed before an error or a stop is kept."""
        for segment, (found,) in self._journaled(segments, [question], measure):
            yield segment, found

    def evidence_many(
        self, segments: Iterable[Segment], questions: Sequence[str], measure: Measure, cache: KVStore | None = None
    ) -> Iterator[tuple[Segment, tuple[Evidence, ...]]]:
        """See `SharingScorer.evidence_many`. A segment that is new to one of the questions is read for all of them."""
        if isinstance(self.scorer, SharingScorer):
            yield from self._journaled(segments, questions, measure, cache)
        else:
            yield from one_by_one(self, segments, questions, measure)

    def _journaled(
        self, segments: Iterable[Segment], questions: Sequence[str], measure: Measure, cache: KVStore | None = None
    ) -> Iterator[tuple[Segment, tuple[Evidence, ...]]]:
        identity = _identity(measure)
        settings = [{"scorer": self.fingerprint, "measure": identity, "question": question} for question in questions]
        with closing(Journal(self.path)) as journal:
            rows = _Rows(journal, settings)
            score = partial(evidence_many, self.scorer, questions=questions, measure=measure, cache=cache)
            source = iter(segments)
            try:
                for segment in source:
                    if (found := rows.find(segment)) is not None:
                        yield segment, found
                    else:
                        yield from _scored(rows, chain([segment], source), score)
            finally:
                rows.commit()


def _scored(
    rows: _Rows, segments: Iterator[Segment], score: Callable[[Iterator[Segment]], Iterator[tuple[Segment, Found]]]
) -> Iterator[tuple[Segment, Found]]:
    """One pass of the scorer, up to the document's end or a long run of known segments."""
    waiting: deque[tuple[Segment, Found | None]] = deque()  # in their order; None: the scorer owes it

    def known() -> Iterator[tuple[Segment, Found]]:
        while waiting and (evidence := waiting[0][1]) is not None:
            segment, _ = waiting.popleft()
            yield segment, evidence

    for _, evidence in score(rows.unseen(segments, waiting)):
        yield from known()
        segment, _ = waiting.popleft()
        yield segment, rows.add(segment, evidence)
    yield from known()


class _Rows:
    """The rows of some questions, of one measure and model."""

    def __init__(self, journal: Journal, settings: Sequence[dict[str, str]]) -> None:
        self._journal = journal
        self._runs = [journal.run(one) for one in settings]
        self._new: dict[bytes, dict[int, Evidence]] = {}
        self._owed = 0
        self._committed = time.monotonic()

    def unseen(self, segments: Iterator[Segment], waiting: deque[tuple[Segment, Found | None]]) -> Iterator[Segment]:
        """What the journal does not hold; everything that passes by is noted in `waiting`."""
        skipped = 0
        for segment in segments:
            if not self._owed or time.monotonic() - self._committed >= SECONDS_BETWEEN_COMMITS:
                self.commit()
            found = self.find(segment)
            waiting.append((segment, found))
            if found is None:
                skipped = 0
                self._owed += 1
                yield segment
            elif (skipped := skipped + 1) >= LONGEST_SKIP:
                return

    def find(self, segment: Segment) -> Found | None:
        """A segment's numbers for each question, None where there are none yet for one of them."""
        key = _digest(segment.ids)
        found: list[Evidence] = []
        for run in self._runs:
            if (numbers := self._row(run, key)) is None:
                return None
            found.append(numbers)
        return tuple(found)

    def _row(self, run: int, key: bytes) -> Evidence | None:
        numbers = self._journal.find(run, key)
        return None if numbers is None else Reused(struct.unpack(f"<{len(numbers) // 8}d", numbers))

    def add(self, segment: Segment, evidence: Found) -> Found:
        """Keep a segment's numbers. Those kept first count, of another segment with the same tokens too."""
        self._owed -= 1
        key = _digest(segment.ids)
        if key not in self._new:
            own = self._new[key] = dict[int, Evidence]()
            for run, numbers in zip(self._runs, evidence, strict=True):
                own.setdefault(run, self._row(run, key) or numbers)
        return tuple(self._new[key][run] for run in self._runs)

    def commit(self) -> None:
        """Write what is new, in one transaction."""
        rows = [
            (run, key, struct.pack(f"<{len(evidence)}d", *evidence))
            for key, found in self._new.items()
            for run, evidence in found.items()
        ]
        if rows:
            self._journal.insert(rows)
        self._new.clear()
        self._committed = time.monotonic()


def _digest(ids: Sequence[int]) -> bytes:
    return hashlib.blake2b(array("q", ids).tobytes(), digest_size=32).digest()


def _identity(measure: Measure) -> str:
    """A measure's class and settings, the same in every process."""
    if not is_dataclass(measure):
        raise SettingError(
            f"The measure {measure.name!r} is no dataclass, so a journal cannot tell its settings; make "
            f"{type(measure).__name__} a frozen dataclass, or leave journal= out."
        )
    settings = {field.name: repr(getattr(measure, field.name)) for field in fields(measure)}
    return f"{type(measure).__module__}.{type(measure).__qualname__}{settings}{list(measure.columns)}"
