"""Held-out probes: facts and questions in wordings and on subjects that training never sees.

Written before the model was trained. `corpus` never imports this module; the training script imports it only to
measure. Each probe keeps the corpus's guarantee that its question has one answer in the document.
"""

from __future__ import annotations

from collections.abc import Sequence

from xl3m_integrations.bundled import corpus
from xl3m_integrations.bundled.corpus import Fact, Rng

_OBJECTS = [
    "ferry",
    "cello",
    "quarry",
    "glider",
    "bakery",
    "turbine",
    "windmill",
    "embassy",
    "aquarium",
    "observatory",
    "tramway",
    "distillery",
]
_MAKERS = [
    "Brightwater",
    "Hollis",
    "Tamarind",
    "Ostrava",
    "Pellworm",
    "Quillon",
    "Rookhope",
    "Sandviken",
    "Thornbury",
    "Umbria",
    "Varley",
]
_TOPICS = ("launch frequency", "vault combination", "catalogue entry", "ration card number", "call sign", "berth")

# family -> (statement, question, kind of value); {K} is the key.
_FORMS: dict[str, Sequence[tuple[str, str, str]]] = {
    "combination": (
        ("Whoever opens the safe at {K} must dial {V}.", "Which digits open the safe at {K}?", "digits"),
        ("The lock on {K} yields to {V} only.", "What opens the lock on {K}?", "digits"),
    ),
    "topic": (
        ("In the ledger, {K} carries the {T} {V}.", "Could you say which {T} {K} carries?", "alnum"),
        ("By decree the {T} granted to {K} shall be {V}.", "Please name the {T} granted to {K}.", "digits"),
    ),
    "colour": (("The painters finished {K} in {V}.", "In which shade was {K} finished?", "colour"),),
    "founder": (("{K} owes its existence to {V}.", "To whom does {K} owe its existence?", "person"),),
    "moored": (("You will find {K} moored in {V}.", "Where would I find {K} moored?", "city"),),
    "clock": (("At {K} the bell rings at {V} sharp.", "When does the bell ring at {K}?", "time"),),
    "config": (("{K} := {V}", "Report the setting of {K}.", "alnum"),),
    "line": (("entry {K} holds [{V}]", "What does entry {K} hold?", "digits"),),
    "quote": (('On the wall of {K} stands "{V}".', "Which words stand on the wall of {K}?", "phrase"),),
}


def probe_fact(rng: Rng, family: str | None = None) -> Fact:
    """A held-out fact of `family`, or of one drawn at random."""
    family = family or rng.choice(list(_FORMS))
    return _probe(rng, family, rng.randrange(len(_FORMS[family])), rng.choice(_TOPICS), _key(rng))


def _key(rng: Rng) -> tuple[str, str]:
    return rng.choice(_MAKERS), rng.choice(_OBJECTS)


def _probe(rng: Rng, family: str, form: int, topic: str, words: tuple[str, str]) -> Fact:
    key = "-".join(words).lower() if family in ("config", "line") else f"the {words[0]} {words[1]}"
    statement, question, kind = _FORMS[family][form]
    value = corpus.VALUES[kind](rng)
    said = topic if "{T}" in statement else ""
    before, _, after = statement.format(K=key, T=topic, V="\0").partition("\0")
    before = before[:1].upper() + before[1:] if family not in ("config", "line") else before

    def like(rng: Rng) -> Fact:
        new = _key(rng)
        varied = (new[0], words[1]) if rng.random() < 0.5 else (words[0], new[1])
        return _probe(rng, family, form, topic, varied)

    return Fact(
        family=f"probe-{family}", identity=f"{form} {said} {key}".lower(), statement=before + value + after,
        questions=(question.format(K=key, T=topic),), value=value, value_at=len(before),
        line=family in ("config", "line"), like=like,
    )  # fmt: skip
