"""A document as the engine reads it: once from front to back, then here and there for what was kept."""

from __future__ import annotations

import codecs
import tempfile
import threading
import weakref
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import IO

from xl3m_integrations.errors import InputError
from xl3m_integrations.tokens import require_encodable
from xl3m_integrations.types import Segment

Text = str | Path | Iterable[str]

_SPOOL_BYTES = 1 << 20  # a streamed text up to this size stays in memory
_READ_BYTES = 1 << 16  # of a file at a time
_BLOCK_CHARACTERS = 1 << 14  # what is read back at a time for an excerpt, however long the pieces were


class Document:
    """A text given whole, as the path of a UTF-8 file, or as an iterable of strings; the latter two are read once.

    A streamed text is written to a temporary file as it is read, so that kept excerpts can be cut out of it exactly
    while memory stays flat. The file is gone when the document is.

    Args:
        text: The text, the `Path` of a file that holds it, or strings whose concatenation it is.

    Raises:
        InputError: `text` is none of these.
    """

    def __init__(self, text: Text) -> None:
        if isinstance(text, Path):
            text = _file(text)
        if not isinstance(text, str) and (isinstance(text, (bytes, bytearray, dict)) or not isinstance(text, Iterable)):
            raise InputError(f"The document is a {type(text).__name__}; pass a str, a Path, or an iterable of str.")
        self._whole = text if isinstance(text, str) else None
        self._pieces = iter(()) if isinstance(text, str) else iter(text)
        self._spool: IO[bytes] | None = None
        self._marks: list[tuple[int, int]] = []  # (character, byte) at which each block begins in the spool
        self._reading = threading.Lock()
        self._read = 0
        self._blank = True
        self._ended = False
        self.prepared: Prepared | None = None  # where it is asked many times: its segments, kept

    def __deepcopy__(self, memo: object) -> Document:
        return self  # it does not change once it has been read

    @classmethod
    def of(cls, text: Text | Document) -> Document:
        """`text` as a document; a document stays what it is."""
        return text if isinstance(text, Document) else cls(text)

    @property
    def characters(self) -> int | None:
        """Length in characters; None while a streamed text has not been read to its end."""
        if self._whole is not None:
            return len(self._whole)
        return self._read if self._ended else None

    def beginning(self, characters: int) -> str | None:
        """The whole text if it is no longer than `characters`, else None; `pieces` still begins at its start."""
        if self._whole is None and self._ended:
            return self.slice(0, self._read) if self._read <= characters else None
        if self._whole is None:
            head: list[str] = []
            size = 0
            for piece in self._pieces:
                head.append(_string(piece))
                size += len(piece)
                if size > characters:
                    self._pieces = chain(head, self._pieces)
                    return None
            self._whole = "".join(head)
        return self._whole if len(self._whole) <= characters else None

    def pieces(self) -> Iterator[str]:
        """The text from front to back, in pieces; a streamed one comes from its temporary file after the first time.

        Raises:
            InputError: There is no text, or nothing but whitespace.
        """
        if self._ended:
            yield from [self._whole] if self._whole is not None else self._reread()
            return
        for piece in [self._whole] if self._whole is not None else self._spooled():
            self._read += len(piece)
            self._blank = self._blank and not piece.strip()
            yield piece
        self._ended = True
        if self._blank:
            raise InputError(
                f"The document is empty: it has {self._read} characters, none of them visible. Check that the file was "
                "read, or that its text layer was extracted."
            )

    def slice(self, start: int, end: int) -> str:
        """The characters from `start` to `end` of what was read."""
        if self._whole is not None:
            return self._whole[start:end]
        assert self._spool is not None
        first = bisect_right(self._marks, start, key=lambda mark: mark[0]) - 1
        last = bisect_right(self._marks, end, key=lambda mark: mark[0])
        character, byte = self._marks[first]
        stop = self._marks[last][1] - byte if last < len(self._marks) else -1
        with self._reading:  # several threads may ask
            self._spool.seek(byte)
            read = self._spool.read(stop)
        return read.decode("utf-8")[start - character : end - character]

    def _reread(self) -> Iterator[str]:
        starts = [character for character, _ in self._marks]
        for start, end in zip(starts, [*starts[1:], self._read], strict=True):
            yield self.slice(start, end)

    def _spooled(self) -> Iterator[str]:
        # Not in a `with`: the file lives as long as the document, whose excerpts are read after the pass.
        spool = tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES)  # noqa: SIM115
        self._spool = spool
        weakref.finalize(self, spool.close)
        character = byte = 0
        for piece in self._pieces:
            require_encodable(_string(piece), character)
            for at in range(0, len(piece), _BLOCK_CHARACTERS):
                block = piece[at : at + _BLOCK_CHARACTERS]
                self._marks.append((character, byte))
                byte += spool.write(block.encode("utf-8"))
                character += len(block)
            yield piece


class Prepared:
    """A document's segments, kept: 4 bytes a token and 32 a segment, and no text, which the document has.

    Args:
        segments: The segments, in order.
    """

    def __init__(self, segments: Iterable[Segment]) -> None:
        self._ids, self._ends = array("i"), array("q", [0])
        self._places = array("q")  # of each segment: first character, last character, first token
        for segment in segments:
            self._ids.extend(segment.ids)
            self._ends.append(len(self._ids))
            self._places.extend((segment.start, segment.end, segment.token))

    def __len__(self) -> int:
        """Number of segments."""
        return len(self._ends) - 1

    def segments(self, document: Document, number: int = 0) -> Iterator[Segment]:
        """The segments, in order.

        Args:
            document: Where their texts are cut from.
            number: Number to put on them.
        """
        for index in range(len(self)):
            start, end, token = self._places[3 * index : 3 * index + 3]
            ids = self._ids[self._ends[index] : self._ends[index + 1]]
            yield Segment(index, start, end, document.slice(start, end), ids, number, token)


def _string(piece: object) -> str:
    if not isinstance(piece, str):
        raise InputError(f"The document's pieces must be str, but one is a {type(piece).__name__}; decode it first.")
    return piece


def _file(path: Path) -> Iterator[str]:
    """The text of a UTF-8 file, line ends as they are, in pieces."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    at = 0  # bytes decoded
    try:
        with path.open("rb") as file:
            while block := file.read(_READ_BYTES):
                pending = len(decoder.getstate()[0])
                yield decoder.decode(block)
                at += pending + len(block) - len(decoder.getstate()[0])
            yield decoder.decode(b"", final=True)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}. Pass the path of a text file.") from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8 text: byte {at + error.start} is 0x{error.object[error.start]:02x}. Convert it, or "
            "pass open(path, encoding=…), which is read as an iterable of lines."
        ) from None
