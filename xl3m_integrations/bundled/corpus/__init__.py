"""Documents with facts hidden in them, and questions whose only answer is one of those facts.

The same generator makes the training text of the bundled model and the documents of `xl3m demo`: it knows nothing of
models or tokenizers. Everything is drawn from the `random.Random` that the caller hands in, so a seed fixes the text.
"""

from __future__ import annotations

from xl3m_integrations.bundled.corpus.documents import (
    Planted,
    Prose,
    filler,
    stream_document,
    unambiguous,
    weave,
)
from xl3m_integrations.bundled.corpus.facts import Fact, event_fact, magic_fact, register_fact
from xl3m_integrations.bundled.corpus.families import DEMO_FAMILIES, FAMILIES, Maker, any_fact
from xl3m_integrations.bundled.corpus.hops import hop_fact, told_fact
from xl3m_integrations.bundled.corpus.sentences import with_sentences
from xl3m_integrations.bundled.corpus.values import VALUES, Rng

__all__ = [
    "DEMO_FAMILIES",
    "FAMILIES",
    "VALUES",
    "Fact",
    "Maker",
    "Planted",
    "Prose",
    "Rng",
    "any_fact",
    "event_fact",
    "filler",
    "hop_fact",
    "magic_fact",
    "register_fact",
    "stream_document",
    "told_fact",
    "unambiguous",
    "weave",
    "with_sentences",
]
