"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

UNFINISHED = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{32}\.part")  # what a killed process may have left beside a file


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to, which takes the place of `path` at once when the block has ended, and is gone if it failed.

    Links are followed: a link stays a link, and the file it points to is replaced.
    """
    path = path.resolve()
    beside = path.with_name(f".{path.name}.{uuid4().hex}.part")
    try:
        yield beside
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
