"""Batches hold every row once, no more tokens than they may, and next to no padding."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from xl3m_integrations.backends.batching import PADDED_TOKENS, PADDING, packed


@given(
    lengths=st.lists(st.integers(1, 700), max_size=60),
    batch_tokens=st.integers(1, 5_000),
    max_rows=st.integers(1, 20),
    exact=st.booleans(),
)
def test_batches(lengths: list[int], batch_tokens: int, max_rows: int, exact: bool):
    batches = list(packed(lengths, batch_tokens, max_rows=max_rows, exact=exact))
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        rows = [lengths[row] for row in batch]
        tokens = max(rows) * len(rows)
        assert len(rows) == 1 or tokens <= batch_tokens
        assert len(rows) <= max_rows
        wasted = tokens - min(rows) * len(rows)
        assert wasted <= (0 if exact else max(PADDED_TOKENS, PADDING * tokens))


def test_rows_of_one_length_fill_their_batches():
    assert [len(batch) for batch in packed([100] * 25, 1_000, max_rows=99, exact=True)] == [10, 10, 5]
    assert [len(batch) for batch in packed([100] * 25, 9_999, max_rows=12, exact=False)] == [12, 12, 1]


def test_a_few_short_rows_are_one_batch():
    assert len(list(packed([10, 20, 30, 40, 50], 1_000, max_rows=99, exact=False))) == 1
