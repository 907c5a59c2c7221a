"""Keys and values made up for tests, an engine that writes many small files of them, and what of these is used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import indexes
import torch
from indexes import QUESTIONS, passes

from xl3m_integrations import XL3M
from xl3m_integrations.backends.kv_blocks import KVBlock, key_of
from xl3m_integrations.backends.kv_files import KVFiles
from xl3m_integrations.index import Index

KEYS = [key_of([[n, n + 1]]) for n in range(6)]


def engine(architecture: str = "llama", batch_tokens: int = 100, **settings: Any) -> XL3M:
    """Reads few rows at a time, so that one text becomes many blocks."""
    return indexes.engine(architecture, batch_tokens=batch_tokens, **settings)


def rows_read(xl3m: XL3M, index: Index, question: str = QUESTIONS[0]) -> int:
    """Rows whose segment the model reads for one question; 0 where all keys and values come from the cache."""
    backend: Any = xl3m.scorer
    shortest = len(backend.prompt(question).after) + 1
    read = passes(xl3m, lambda: index.select(question, measure="entropy"))
    return sum(rows for rows, tokens in read if tokens > shortest)


def block(seed: int = 0, dtype: torch.dtype = torch.float32, layers: int = 2) -> KVBlock:
    generator = torch.Generator().manual_seed(seed)
    return KVBlock(
        tuple(
            (torch.randn(1, 1, 2, 4, generator=generator).to(dtype), torch.randn(1, 2, 2, 3, generator=generator))
            for _ in range(layers)
        )
    )


def same(found: KVBlock | None, expected: KVBlock) -> bool:
    return found is not None and all(
        a.dtype == b.dtype and torch.equal(a, b)
        for ours, theirs in zip(found.layers, expected.layers, strict=True)
        for a, b in zip(ours, theirs, strict=True)
    )


def held(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def size(folder: Path) -> int:
    """Bytes of all files in `folder`."""
    return sum(path.stat().st_size for path in held(folder))


def size_of_one(folder: Path) -> int:
    """Bytes of the one block that is put there."""
    KVFiles(folder, "a").put(KEYS[0], block())
    return size(folder)
