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
import json
import sqlite3
import struct
import time
import zlib
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
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
from xl3m_integrations.certainty import Measure
from xl3m_integrations.errors import JournalError, SettingError
from xl3m_integrations.tokens import TextTokenizer
from xl3m_integrations.types import Segment

if TYPE_CHECKING:
    from xl3m_integrations.backends.kv_cache import KVStore

Found = tuple[Evidence, ...]  # a segment's evidence for each question
APPLICATION_ID = 0x584C334D  # "XL3M", in the header of the SQLite file
VERSION = 1  # to be raised whenever rows come to mean something else, so that old ones are refused
BUSY_SECONDS = 60.0  # how long to wait for another process's transaction
SECONDS_BETWEEN_COMMITS = 1.0
LONGEST_SKIP = 1_024  # known segments in a row after which a pass ends, so that they need not be held until it asks on
_MAGIC = b"SQLite format 3\x00"
_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS runs (id INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, settings TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS evidence (
    run INTEGER NOT NULL REFERENCES runs (id), segment BLOB NOT NULL, numbers BLOB NOT NULL, PRIMARY KEY (run, segment)
) WITHOUT ROWID;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION};
COMMIT;
"""


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
        self.fingerprint = scorer.fingerprint
        self.path = Path(path)
        Journal(self.path).close()  # refused before any work is done

    @property
    def window(self) -> int:
        """See `Scorer.window`."""
        return self.scorer.window

    @property
    def tokenizer(self) -> TextTokenizer:
        """See `Scorer.tokenizer`."""
        return self.scorer.tokenizer

    def overhead(self, question: str) -> int:
        """See `Scorer.overhead`."""
        return self.scorer.overhead(question)

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
        data = self._journal.find(run, key)
        if data is None:
            return None
        numbers = data[:-4]
        if _checksum(key, numbers) != data[-4:]:
            raise _damaged(self._journal.path, "a row does not match its checksum")
        return Reused(struct.unpack(f"<{len(numbers) // 8}d", numbers))

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
        rows = []
        for key, found in self._new.items():
            for run, evidence in found.items():
                numbers = struct.pack(f"<{len(evidence)}d", *evidence)
                rows.append((run, key, numbers + _checksum(key, numbers)))
        if rows:
            self._journal.insert(rows)
        self._new.clear()
        self._committed = time.monotonic()


class Journal:
    """The file: evidence by run and segment.

    Args:
        path: Where it is, or is to be.

    Raises:
        JournalError: The file is no journal, is damaged, or cannot be written. It is left as it is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        _require_journal(path)
        with _explained(path):
            # A generator may be closed by another thread than the one that ran it; no two threads use it at once.
            self._connection = sqlite3.connect(
                path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            try:
                self._prepare()
            except BaseException:
                self._connection.close()
                raise

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def run(self, settings: dict[str, str]) -> int:
        """The number of the run with these settings."""
        text = json.dumps(settings, sort_keys=True)
        digest = hashlib.blake2b(text.encode(), digest_size=32).digest()
        with _explained(self.path):
            self._connection.execute("INSERT OR IGNORE INTO runs (digest, settings) VALUES (?, ?)", (digest, text))
            row = self._connection.execute("SELECT id FROM runs WHERE digest = ?", (digest,)).fetchone()
        if row is None:
            raise _damaged(self.path, "its runs cannot be read")
        return int(row[0])

    def find(self, run: int, segment: bytes) -> bytes | None:
        """What is kept under a segment's digest."""
        with _explained(self.path):
            row = self._connection.execute(
                "SELECT numbers FROM evidence WHERE run = ? AND segment = ?", (run, segment)
            ).fetchone()
        if row is None:
            return None
        if not isinstance(row[0], bytes):
            raise _damaged(self.path, "a row holds no numbers")
        return row[0]

    def insert(self, rows: Sequence[tuple[int, bytes, bytes]]) -> None:
        """Add rows of run, segment and numbers in one transaction; what another process has added meanwhile stays."""
        with _explained(self.path), self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany(
                "INSERT OR IGNORE INTO evidence (run, segment, numbers) VALUES (?, ?, ?)", rows
            )

    def _prepare(self) -> None:
        execute = self._connection.execute
        version = execute("PRAGMA user_version").fetchone()[0]
        if version == 0:  # made before the switch to WAL, so that the file's own header says what it is
            self._connection.executescript(_SCHEMA)
        elif version != VERSION:
            raise JournalError(
                f"{self.path} is a journal of version {version}, but this program writes version {VERSION}; "
                "give another file."
            )
        # Enough against a killed process. Where the file system cannot do WAL, SQLite keeps to its rollback journal.
        execute("PRAGMA synchronous = NORMAL")
        if execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            with suppress(sqlite3.OperationalError):  # another process is at it
                execute("PRAGMA journal_mode = WAL")


def _header(path: Path) -> bytes:
    if not path.exists():
        return b""
    with path.open("rb") as file:
        return file.read(100)


def _require_journal(path: Path) -> None:
    """Refuse what is no journal before SQLite touches it."""
    if not path.parent.is_dir():
        raise JournalError(f"The journal {path} cannot be made: the folder {path.parent} does not exist.")
    try:
        header = _header(path)
    except OSError as error:
        raise JournalError(f"The journal {path} cannot be read: {error.strerror}; give a file's path.") from error
    if header and (header[:16] != _MAGIC or header[68:72] != APPLICATION_ID.to_bytes(4, "big")):
        raise JournalError(
            f"{path} is no journal of this program; it was left as it is. Give another file, or one that does not "
            "exist yet."
        )


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        if "locked" in str(error) or "busy" in str(error):
            raise JournalError(f"Another process has kept {path} locked for {BUSY_SECONDS:.0f} seconds.") from error
        raise JournalError(
            f"The journal {path} cannot be used: {error}; check the rights of the file and its folder, and the disk's "
            "free space."
        ) from error
    except sqlite3.DatabaseError as error:
        raise _damaged(path, str(error)) from error


def _damaged(path: Path, why: str) -> JournalError:
    return JournalError(f"The journal {path} is damaged ({why}). It was left as it is; move it away, or give another.")


def _digest(ids: Sequence[int]) -> bytes:
    return hashlib.blake2b(array("q", ids).tobytes(), digest_size=32).digest()


def _checksum(key: bytes, numbers: bytes) -> bytes:
    return zlib.crc32(numbers, zlib.crc32(key)).to_bytes(4, "big")


def _identity(measure: Measure) -> str:
    """A measure's class and settings, the same in every process."""
    if not is_dataclass(measure):
        raise SettingError(
            f"The measure {measure.name!r} is no dataclass, so a journal cannot tell its settings; make "
            f"{type(measure).__name__} a frozen dataclass, or leave journal= out."
        )
    settings = {field.name: repr(getattr(measure, field.name)) for field in fields(measure)}
    return f"{type(measure).__module__}.{type(measure).__qualname__}{settings}{list(measure.columns)}"
