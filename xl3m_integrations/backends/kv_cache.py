"""Keys and values of segments, kept from one question to the next and bounded by bytes, in files too where asked for.

Bytes of a token: 2 x layers x key-value heads x head size x bytes of a number; 3,840 for the bundled model in
bfloat16. They are read from memory once for each question, which takes far less time than the 2 x parameters FLOP a
token that computing them takes.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

import torch

from xl3m_integrations.backends.kv_blocks import Key, KVBlock
from xl3m_integrations.backends.kv_files import KVFiles
from xl3m_integrations.errors import SettingError


class KVCache:
    """Blocks within a budget of bytes; the least recently used go out. Threads may share it.

    A block that was asked for in this pass over a document or in the one before is not put out for another: a document
    larger than the budget, read from front to back, would otherwise lose each block just before it is needed again.
    What finds no room is computed again for the next question.

    With files every block is written as soon as it is computed, so that nothing is lost with the process, and memory
    is but the faster part of what they hold.

    Args:
        max_bytes: The budget in memory.
        files: Where blocks are kept beside memory; None keeps them in memory alone.

    Raises:
        SettingError: The budget is negative.
    """

    def __init__(self, max_bytes: int, files: KVFiles | None = None) -> None:
        if max_bytes < 0:
            raise SettingError(f"cache_bytes is {max_bytes}; it must be at least 0, which keeps nothing.")
        self.max_bytes = max_bytes
        self.nbytes = 0  # held in memory now
        self._files = files
        self._blocks: OrderedDict[Key, tuple[KVBlock, int]] = OrderedDict()  # with the pass that last asked for it
        self._pass = 0
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Say that a new pass begins."""
        with self._lock:
            self._pass += 1
        if self._files is not None:
            self._files.begin()

    def get(self, key: Key, device: torch.device | str = "cpu") -> KVBlock | None:
        """The block of these rows, if it is held; what comes from a file is put on `device`.

        Raises:
            CacheError: Its file cannot be read.
        """
        with self._lock:
            found = self._blocks.get(key)
            if found is not None:
                self._blocks[key] = (found[0], self._pass)
                self._blocks.move_to_end(key)
                return found[0]
        block = None if self._files is None else self._files.get(key, device)
        if block is not None:
            self._hold(key, block)
        return block

    def put(self, key: Key, block: KVBlock) -> None:
        """Keep a block where there is room or older ones can make room.

        Raises:
            CacheError: Its file cannot be written.
        """
        self._hold(key, block)
        if self._files is not None:
            self._files.put(key, block)

    def rows(self) -> dict[bytes, tuple[KVBlock, int]]:
        """Of each row in memory the block that holds it and its number there."""
        with self._lock:
            return {row: (block, number) for key, (block, _) in self._blocks.items() for number, row in enumerate(key)}

    def shrink(self) -> None:
        """Halve the budget and what is held, since memory is short."""
        with self._lock:
            self.max_bytes = min(self.max_bytes, self.nbytes) // 2
            self._make_room(self.max_bytes, before=self._pass + 1)

    def clear(self) -> None:
        """Let go of everything in memory; files stay."""
        with self._lock:
            self._blocks.clear()
            self.nbytes = 0

    def _hold(self, key: Key, block: KVBlock) -> None:
        with self._lock:
            if key in self._blocks or block.nbytes > self.max_bytes:
                return
            if self._make_room(self.max_bytes - block.nbytes, before=self._pass - 1):
                self._blocks[key] = (block, self._pass)
                self.nbytes += block.nbytes

    def _make_room(self, most: int, before: int) -> bool:
        """Put out blocks last asked for in a pass before `before` until at most `most` bytes are held."""
        while self.nbytes > most:
            oldest = next(iter(self._blocks))
            if self._blocks[oldest][1] >= before:
                return False
            self.nbytes -= self._blocks.pop(oldest)[0].nbytes
        return True


class HeldRows:
    """A cache for a pass over a few of its segments, in batches of its own: it takes what is there and adds nothing."""

    def __init__(self, cache: KVCache) -> None:
        self._cache = cache
        self._rows: dict[bytes, tuple[KVBlock, int]] = {}

    def begin(self) -> None:
        """Look what is there. Passes over a few segments are not counted."""
        self._rows = self._cache.rows()

    def get(self, key: Key, device: torch.device | str = "cpu") -> KVBlock | None:
        """The rows' keys and values out of the blocks that hold them; they are on the model's device already."""
        found = [self._rows[row] for row in key if row in self._rows]
        if len(found) < len(key):
            return None
        layers = zip(
            *([(keys[row], values[row]) for keys, values in block.layers] for block, row in found), strict=True
        )
        return KVBlock(tuple((torch.stack([k for k, _ in own]), torch.stack([v for _, v in own])) for own in layers))

    def put(self, key: Key, block: KVBlock) -> None:
        """Nothing: it would push out what the next pass over all segments needs."""

    def shrink(self) -> None:
        """See `KVCache.shrink`."""
        self._cache.shrink()
