"""An engine on a tiny model with random weights: everything runs, nothing is understood."""

from __future__ import annotations

import pytest
from models import make_backend

from xl3m_integrations import XL3M
from xl3m_integrations.evaluation import Evaluation, evaluate
from xl3m_integrations.evaluation.documents import Material

BUILT_IN = [
    "xl3m",
    "xl3m-hops-2",
    "xl3m-one-look",
    "xl3m-entropy",
    "longllmlingua",
    "random",
    "head",
    "tail",
    "middle-out",
    "full",
]


@pytest.fixture(scope="session")
def xl3m() -> XL3M:
    backend = make_backend()
    return XL3M(backend, backend, segment_tokens=40, overlap_tokens=16, max_new_tokens=4)


@pytest.fixture(scope="session")
def material() -> Material:
    """For tasks, whose longest needles a segment and its overlap must hold."""
    return Material(XL3M(make_backend(), segment_tokens=128, overlap_tokens=64))


@pytest.fixture(scope="session")
def evaluation(xl3m: XL3M) -> Evaluation:
    """Two tasks at two lengths by every method that needs no extra."""
    return evaluate(xl3m, tasks=["kv", "vt_2"], lengths=[300, 600], n=2, seed=5, methods=BUILT_IN)
