"""What becomes of a group of segments on which replicas die, with a cluster that is played: no process is started."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from models import shared_tokenizer

from xl3m_integrations import ScoringError, Segment
from xl3m_integrations.backends.prompting import Prompting
from xl3m_integrations.backends.ray import RayBackend
from xl3m_integrations.certainty import Entropy, Measure


class RayError(Exception):
    pass


class RayTaskError(RayError):
    cause = None


@dataclass
class PlayedCluster:
    """Replicas that die on any group that holds a poisonous segment; tasks end in whatever order `picks` says."""

    poison: set[int] = field(default_factory=set)
    flaky: int = 0  # so many groups of several segments fail, whatever they hold
    picks: list[int] = field(default_factory=list)
    most: int = 0
    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def read(self, group: Sequence[Segment], question: str, measure: Measure) -> Any:
        died = (self.flaky > 0 and len(group) > 1) or any(segment.index in self.poison for segment in group)
        self.flaky -= len(group) > 1
        return None if died else [(segment.index / 4,) for segment in group]

    def get(self, reference: Any) -> Any:
        if reference.found is None:
            raise RayError("The actor died.")
        return reference.found

    def wait(self, references: list[Any], num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        self.most = max(self.most, len(references))
        at = self.picks.pop() % len(references) if self.picks else 0
        return [references[at]], references[:at] + references[at + 1 :]

    def cancel(self, reference: Any) -> None:
        return


@dataclass(frozen=True)
class Reference:
    number: int
    found: Any = field(compare=False)


def backend_on(cluster: PlayedCluster, replicas: int) -> RayBackend:
    made = RayBackend.__new__(RayBackend)
    Prompting.__init__(made, shared_tokenizer(), None)
    numbers = iter(range(10**6))

    def score(*arguments: Any) -> Reference:
        return Reference(next(numbers), cluster.read(*arguments))

    made._ray = cluster
    made._replicas = [SimpleNamespace(score=SimpleNamespace(remote=score)) for _ in range(replicas)]
    made.group_tokens = 64
    return made


def segments_of(count: int) -> list[Segment]:
    return [Segment(index, 4 * index, 4 * index + 4, "text", [1, 2, 3, 4]) for index in range(count)]


@given(count=st.integers(0, 200), replicas=st.integers(1, 4), flaky=st.integers(0, 3), picks=st.lists(st.integers(0)))
def test_whatever_order_replicas_end_in_evidence_is_in_order_and_whole(
    count: int, replicas: int, flaky: int, picks: list[int]
):
    cluster = PlayedCluster(flaky=flaky, picks=picks)
    found = list(backend_on(cluster, replicas).evidence(iter(segments_of(count)), "Who?", Entropy()))
    assert found == [(segment, (segment.index / 4,)) for segment in segments_of(count)]
    assert cluster.most <= 2 * replicas


@given(count=st.integers(1, 100), data=st.data())
def test_the_segment_on_which_replicas_die_is_found_and_named(count: int, data: st.DataObject):
    poison = data.draw(st.integers(0, count - 1))
    running = backend_on(PlayedCluster({poison}), 2).evidence(iter(segments_of(count)), "Who?", Entropy())
    with pytest.raises(ScoringError, match=rf"segment {poison} \(characters {4 * poison} to {4 * poison + 4}\) died"):
        list(running)
