"""The cache of keys and values in memory: what goes out, and that nothing is mistaken for anything else."""

from __future__ import annotations

import weakref

import pytest
import torch

from xl3m_integrations.backends.kv_blocks import KVBlock, key_of, past_of
from xl3m_integrations.backends.kv_cache import HeldRows, KVCache


def zeros(rows: int) -> KVBlock:
    return KVBlock(((torch.zeros(rows, 1, 2, 4), torch.zeros(rows, 1, 2, 4)),))


def test_the_least_recently_used_goes_out():
    cache = KVCache(3 * zeros(1).nbytes)
    keys = [key_of([[n, n]]) for n in range(5)]
    for key in keys[:3]:
        cache.put(key, zeros(1))
    cache.begin()
    cache.begin()
    assert cache.get(keys[0]) is not None
    cache.begin()
    cache.put(keys[3], zeros(1))
    assert [cache.get(key) is not None for key in keys] == [True, False, True, True, False]
    assert cache.nbytes == 3 * zeros(1).nbytes


def test_keys_are_the_ids_themselves():
    cache = KVCache(1 << 20)
    cache.put(key_of([[1, 2], [3, 4]]), zeros(2))
    assert cache.get(key_of([[1, 2], [3, 4]])) is not None
    for rows in ([[1, 2], [3, 5]], [[1, 2, 3, 4]], [[1, 2]], [[1], [2], [3], [4]]):
        assert cache.get(key_of(rows)) is None


def test_rows_are_gathered_from_the_blocks_that_hold_them():
    cache = KVCache(3 * zeros(1).nbytes)
    one, pair = zeros(1), zeros(2)
    for number, layer in enumerate((*one.layers[0], *pair.layers[0])):
        layer += number + torch.arange(len(layer))[:, None, None, None] / 10
    cache.put(key_of([[1, 2]]), one)
    cache.put(key_of([[3, 4], [5, 6]]), pair)
    held = HeldRows(cache)
    held.begin()
    found = held.get(key_of([[5, 6], [1, 2], [3, 4]]))
    assert [layer[:, 0, 0, 0].tolist() for layer in found.layers[0]] == [
        pytest.approx([2.1, 0.0, 2.0]),
        pytest.approx([3.1, 1.0, 3.0]),
    ]
    assert held.get(key_of([[1, 2], [7, 8]])) is None
    held.put(key_of([[7, 8]]), zeros(1))
    cache.begin()
    cache.begin()
    cache.put(key_of([[7, 8]]), zeros(1))  # puts the least recently used block out
    held.begin()
    assert held.get(key_of([[1, 2]])) is None
    assert held.get(key_of([[7, 8], [3, 4]])).rows == 2
    cache.clear()
    held.begin()
    assert held.get(key_of([[3, 4]])) is None


def test_blocks_go_out_whatever_rows_they_hold_and_by_whatever_key_they_were_asked_for():
    """A text that repeats itself has equal rows; a later question asks by keys of its own."""
    cache = KVCache(2 * zeros(2).nbytes)
    rows = [[[1, 2], [1, 2]], [[1, 2], [3, 4]], [[5, 6], [1, 2]], [[7, 8], [7, 8]]]
    for number, some in enumerate(rows):
        for _ in range(3):
            cache.begin()
        cache.put(key_of(some), zeros(2))
        held = [earlier for earlier in rows if cache.get(key_of(earlier)) is not None]
        assert held == rows[max(0, number - 1) : number + 1]
    cache.shrink()
    assert cache.nbytes == sum(cache.get(key_of(some)) is not None for some in rows) * zeros(2).nbytes


def test_a_block_larger_than_the_budget_is_not_kept():
    cache = KVCache(zeros(1).nbytes)
    cache.put(key_of([[1], [2]]), zeros(2))
    assert cache.nbytes == 0


@pytest.mark.parametrize("once", [True, False])
def test_what_is_put_together_is_held_only_where_something_continues_from_it(once: bool):
    """Both blocks' first token, then one more; of several layers the copies would be most of a pass's memory."""
    blocks = [KVBlock(((torch.full((1, 1, 2, 4), n), torch.full((1, 1, 2, 4), -n)),)) for n in (1.0, 2.0)]
    past = past_of(blocks, 1, 0, 2, once=once)
    following = torch.full((2, 1, 1, 4), 3.0)
    keys, values = past.update(following, -following, 0)
    assert keys[:, 0, :, 0].tolist() == [[1, 3], [2, 3]] and torch.equal(values, -keys)
    held = weakref.ref(keys)
    del keys, values
    assert (held() is None) == once
