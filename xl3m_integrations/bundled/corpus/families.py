"""Which families of facts there are, and how often each is drawn."""

from __future__ import annotations

from collections.abc import Callable

from xl3m_integrations.bundled.corpus.facts import (
    Fact,
    attribute_fact,
    event_fact,
    keep_fact,
    magic_fact,
    pair_fact,
    pass_fact,
    place_fact,
    register_fact,
    said_fact,
)
from xl3m_integrations.bundled.corpus.hops import hop_fact, told_fact
from xl3m_integrations.bundled.corpus.loose import loose_fact
from xl3m_integrations.bundled.corpus.values import Rng

Maker = Callable[[Rng], Fact]
FAMILIES: dict[Maker, float] = {
    attribute_fact: 30, loose_fact: 30, pair_fact: 14, register_fact: 6, pass_fact: 4, magic_fact: 5, place_fact: 9,
    keep_fact: 7, event_fact: 5, said_fact: 5,
}  # fmt: skip
_DRAWN: dict[Maker, float] = FAMILIES | {hop_fact: 12, told_fact: 14}


def any_fact(rng: Rng) -> Fact:
    """A fact of a family, or one of two statements, drawn by weight."""
    return rng.choices(list(_DRAWN), list(_DRAWN.values()))[0](rng)


# Families whose questions stay unambiguous in a document of any length.
DEMO_FAMILIES: tuple[Maker, ...] = (
    attribute_fact,
    register_fact,
    magic_fact,
    keep_fact,
    event_fact,
    pair_fact,
    said_fact,
)
