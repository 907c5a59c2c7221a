"""Files, globs and standard input as one text, and the way back from an offset to its file."""

from __future__ import annotations

import glob
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import typer

from xl3m_integrations.cli.controls import visible
from xl3m_integrations.errors import InputError, SettingError
from xl3m_integrations.types import Span


@dataclass(frozen=True, slots=True)
class Source:
    """A passage of a file; offsets are characters of that file."""

    file: str
    start: int
    end: int
    text: str

    def json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Sources:
    """Several files as one text, and the way back from an offset to the file."""

    text: str
    files: tuple[tuple[str, int, int], ...]  # (name, start, end) in the text

    def cited(self, spans: tuple[Span, ...]) -> list[Source]:
        """The passages under `spans`, split where a span runs from one file into the next."""
        found = []
        for start, end in spans:
            for name, first, last in self.files:
                low, high = max(start, first), min(end, last)
                if low < high:
                    found.append(Source(name, low - first, high - first, self.text[low:high]))
        return found


def read_files(names: list[str], encoding: str) -> Sources:
    """The files' texts, a blank line between them; raises `typer.BadParameter` for one that is not there."""
    between = "\n\n"
    texts, files, at = [], [], 0
    for name in _expanded(names):
        text = _read_one(name, encoding)
        files.append((name, at, at + len(text)))
        texts.append(text)
        at += len(text) + len(between)
    return Sources(between.join(texts), tuple(files))


def _expanded(names: list[str]) -> Iterator[str]:
    for name in names:
        if name == "-" or Path(name).is_file():
            yield name
        elif found := sorted(path for path in glob.glob(name, recursive=True) if Path(path).is_file()):
            yield from found
        else:
            kind = "is a folder" if Path(name).is_dir() else "does not exist, and no file matches it as a glob"
            name = visible(name)
            raise typer.BadParameter(f"{name} {kind}; give text files, globs in quotes, or - for standard input.")


def _read_one(name: str, encoding: str) -> str:
    try:
        data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise InputError(f"{name} cannot be read: {error.strerror}.") from error
    try:
        return data.decode(encoding)
    except LookupError:
        raise SettingError(f"--encoding is {encoding!r}, which Python does not know; try utf-8 or latin-1.") from None
    except UnicodeDecodeError as error:
        raise InputError(
            f"{'standard input' if name == '-' else name} is not {encoding} text: byte {error.start} is "
            f"0x{data[error.start]:02x}. Give its --encoding, or convert it; "
            "PDFs and office files need their text extracted first."
        ) from None
