"""What unit and integration tests share."""

from __future__ import annotations

import os
import random
from array import array
from collections.abc import Callable
from typing import Protocol

import pytest

from xl3m_integrations.assembly import assemble
from xl3m_integrations.types import ScoredSegment, SegmentTable, Selection

# Tests that run side by side share the cores: threads of several processes would wait for each other.
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):
    os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // workers))

SIZE, STRIDE = 60, 45  # characters of a segment, and from one to the next


class MakeSelection(Protocol):
    def __call__(self, segments: int, kept: int, cut: Callable[[int, int], str], seed: int = 0) -> Selection: ...


@pytest.fixture(scope="session")
def make_selection() -> MakeSelection:
    """Selections of any size without a model: random scores, of which the best `kept` are kept."""

    def make(segments: int, kept: int, cut: Callable[[int, int], str], seed: int = 0) -> Selection:
        rng = random.Random(seed)
        entropy = array("d", (rng.uniform(1, 9) for _ in range(segments)))
        gain = array("d", (rng.random() for _ in range(segments)))
        scores = tuple(b - a for a, b in zip(entropy, gain, strict=True))
        order = sorted(range(segments), key=lambda index: -scores[index])
        ranks = array("i", bytes(4 * segments))
        for rank, index in enumerate(order, 1):
            ranks[index] = rank
        starts = array("q", (STRIDE * index for index in range(segments)))
        ends = array("q", (start + SIZE for start in starts))
        chosen = tuple(
            ScoredSegment(
                index, starts[index], ends[index], cut(starts[index], ends[index]), scores[index], ranks[index],
                {"entropy": entropy[index], "gain": gain[index]}, 16,
            )
            for index in sorted(order[:kept])
        )  # fmt: skip
        return Selection(
            question="Who keeps the brass lantern?",
            measure="blend",
            segments=chosen,
            key_context=assemble(chosen, cut),
            scores=scores,
            tokens=12 * segments,
            characters=ends[-1] if ends else 0,
            seconds=1.25,
            table=SegmentTable(starts, ends, ranks, {"entropy": entropy, "gain": gain}, cut=cut),
            settings={"model": "none", "segment_tokens": 16},
        )

    return make
