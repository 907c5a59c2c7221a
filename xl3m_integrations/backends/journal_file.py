"""The file of a journal: an SQLite database of evidence, under the settings it depends on and a segment's digest."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from xl3m_integrations.errors import JournalError

APPLICATION_ID = 0x584C334D  # "XL3M", in the header of the SQLite file
VERSION = 1  # to be raised whenever rows come to mean something else, so that old ones are refused
BUSY_SECONDS = 60.0  # how long to wait for another process's transaction
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
        """What is kept under a segment's digest, None where nothing is."""
        with _explained(self.path):
            row = self._connection.execute(
                "SELECT numbers FROM evidence WHERE run = ? AND segment = ?", (run, segment)
            ).fetchone()
        if row is None:
            return None
        if not isinstance(row[0], bytes) or _checksum(segment, row[0][:-4]) != row[0][-4:]:
            raise _damaged(self.path, "a row does not match its checksum")
        return row[0][:-4]

    def insert(self, rows: Sequence[tuple[int, bytes, bytes]]) -> None:
        """Add rows of run, segment and numbers in one transaction; what another process has added meanwhile stays."""
        checked = [(run, segment, numbers + _checksum(segment, numbers)) for run, segment, numbers in rows]
        with _explained(self.path), self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany(
                "INSERT OR IGNORE INTO evidence (run, segment, numbers) VALUES (?, ?, ?)", checked
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
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # the latter of damage within SQLite's own texts
        raise _damaged(path, str(error)) from error


def _damaged(path: Path, why: str) -> JournalError:
    return JournalError(f"The journal {path} is damaged ({why}). It was left as it is; move it away, or give another.")


def _checksum(key: bytes, numbers: bytes) -> bytes:
    return zlib.crc32(numbers, zlib.crc32(key)).to_bytes(4, "big")
