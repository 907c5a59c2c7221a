"""Facts that need two statements: one names what the other tells of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from xl3m_integrations.bundled import words as w
from xl3m_integrations.bundled.corpus.facts import Fact, attribute_name, base_attribute, make_fact
from xl3m_integrations.bundled.corpus.values import VALUES, Rng, digits, entity, letters, person


def variable_fact(rng: Rng) -> Fact:
    """`VAR ABC = 123` and `VAR XYZ = VAR ABC`: the value of XYZ (RULER's variable tracking, one step of it)."""
    first, second = (letters(rng, rng.randint(3, 5)) for _ in range(2))
    questions = (f"What is the value of {second}?", f"What is the value of VAR {second}?", f"{second}?")
    statement, link = f"VAR {first} = {{V}}", f"VAR {second} = VAR {first}"
    fact = make_fact("hop", f"var {second}", statement, questions, digits(rng, 4, 6), variable_fact, line=True)
    return replace(fact, parts=(fact.statement, link), hops=2)


def carried_fact(rng: Rng) -> Fact:
    """Somebody took a thing and went somewhere: where is the thing, as in bAbI's second task."""
    who = rng.choice(w.FIRST_NAMES) if rng.random() < 0.6 else person(rng)
    thing = f"{rng.choice(w.ADJECTIVES)} {rng.choice(w.THINGS)}"
    took = f"{who} {rng.choice(('took', 'picked up', 'grabbed', 'got', 'carries'))} the {thing}."
    statement = f"{who} {rng.choice(('went to', 'moved to', 'travelled to', 'is now in'))} the {{V}}."
    questions = (f"Where is the {thing}?", f"Where is the {thing} now?", f"In which place is the {thing}?")
    fact = make_fact("hop", f"thing {thing}", statement, questions, rng.choice(w.PLACES), carried_fact)
    return replace(fact, parts=(took, fact.statement), hops=2)


def role_fact(rng: Rng) -> Fact:
    """The captain of the ship is a person, and that person has an attribute."""
    key, who, role = str(entity(rng)), person(rng), rng.choice(("captain", "owner", "manager", "author", "guide"))
    kind = rng.choice(("city", "attribute", "attribute"))
    link = f"{rng.choice(('the', 'now the', 'as agreed, the'))} {role} of {key} is {who}."
    link = link[:1].upper() + link[1:]
    if kind == "city":
        statement, value = f"{who} lives in {{V}}.", VALUES["city"](rng)
        questions = (f"Where does the {role} of {key} live?", f"In which city does the {role} of {key} live?")
    else:
        name = attribute_name(rng)
        statement, value = f"The {name} of {who} is {{V}}.", VALUES[w.ATTRIBUTES[base_attribute(name)]](rng)
        questions = (f"What is the {name} of the {role} of {key}?", f"Tell me the {name} of {key}'s {role}.")
    fact = make_fact("hop", f"{role} {key} {kind}".lower(), statement, questions, value, role_fact)
    return replace(fact, parts=_either_order(rng, fact.statement, link), hops=2)


def _either_order(rng: Rng, one: str, other: str) -> tuple[str, str]:
    return (one, other) if rng.random() < 0.5 else (other, one)


_MAKERS: tuple[Callable[[Rng], Fact], ...] = (variable_fact, carried_fact, role_fact)


def hop_fact(rng: Rng) -> Fact:
    """A fact of one of the kinds above."""
    return rng.choice(_MAKERS)(rng)


def told_fact(rng: Rng) -> Fact:
    """The same, but the question itself tells the statement that leads to the one with the value."""
    fact = hop_fact(rng)
    link = next(part for part in fact.parts if part != fact.statement)
    questions = tuple(f"{link} {question}" for question in fact.questions)
    return replace(fact, family="told", questions=questions, parts=(), hops=1, like=told_fact)
