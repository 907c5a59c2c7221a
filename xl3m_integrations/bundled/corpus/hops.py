"""Facts that need two statements: one names what the other tells of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from xl3m_integrations.bundled import words as w
from xl3m_integrations.bundled.corpus.facts import Fact, attribute_fact, attribute_name, base_attribute, make_fact
from xl3m_integrations.bundled.corpus.loose import ASKS, loose_fact
from xl3m_integrations.bundled.corpus.values import VALUES, Key, Rng, coined, digits, entity, letters, make_key, person


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


# (what somebody does, who that is); {P} is the person, {T} what it is done to.
_DEEDS = (
    ("paints", "painter"), ("carries", "carrier"), ("guards", "guard"), ("repairs", "repairer"), ("bought", "buyer"),
    ("sold", "seller"), ("found", "finder"), ("designed", "designer"), ("invented", "inventor"), ("founded", "founder"),
    ("leads", "leader"), ("wears", "wearer"), ("drives", "driver"), ("manages", "manager"), ("holds", "holder"),
    ("discovered", "discoverer"), ("restored", "restorer"), ("cleans", "cleaner"), ("mends", "mender"), ("stole", "thief"),
    ("lent", "lender"), ("borrowed", "borrower"), ("photographed", "photographer"), ("sends", "sender"), ("made", "maker"),
)  # fmt: skip
_ROLES = (
    "captain", "manager", "author", "guide", "editor", "winner", "heir", "teacher", "judge", "doctor", "director", "mayor",
    "friend", "sister", "uncle", "neighbour", "assistant", "inspector", "secretary", "pilot", "cook", "chair",
)  # fmt: skip
_ROLE_LINKS = (
    "the {r} of {T} is {P}.", "{P} is the {r} of {T}.", "now the {r} of {T} is {P}.", "{P} became the {r} of {T}.",
    "as agreed, the {r} of {T} is {P}.", "{P} was chosen as the {r} of {T}.", "{T} has a new {r}: {P}.",
)  # fmt: skip
_DOERS = ("the one who {d} {T}", "whoever {d} {T}", "the person who {d} {T}")
# (what is said of a person, question, kind of value)
_KNOWN = (
    ("{P} lives in {V}.", "Where does {P} live?", "city"),
    ("{P} was born in {V}.", "Where was {P} born?", "city"),
    ("{P} is married to {V}.", "Who is {P} married to?", "person"),
    ("{P} works for {V}.", "Who does {P} work for?", "person"),
    ("{P} arrives at {V}.", "When does {P} arrive?", "time"),
    ("{P} paid {V}.", "How much did {P} pay?", "price"),
    ("{P} carries {V}.", "What does {P} carry?", "thing"),
    ("{P} went to {V}.", "Where is {P}?", "place"),
)


@dataclass(frozen=True, slots=True)
class _Form:
    """How a pair of statements is worded; its look-alikes are worded the same.

    Attributes:
        link: Tells who {P} is, by {T}.
        described: The person in the question's words, by {T}.
        statement: What is said of {P}, with {V} for the value.
        questions: Questions for {V}, with {P} for the person.
        kind: Kind of value.
    """

    link: str
    described: str
    statement: str
    questions: tuple[str, ...]
    kind: str


def _form(rng: Rng) -> _Form:
    link, described = _link(rng)
    draw, somebody = rng.random(), Key((), "{{P}}")
    if draw < 0.4:
        statement, question, kind = rng.choice(_KNOWN)
        return _Form(link, described, statement, (question,), kind)
    if draw < 0.7:
        name = attribute_name(rng)
        fact, kind = attribute_fact(rng, somebody, name), w.ATTRIBUTES[base_attribute(name)]
    else:
        kind = rng.choice(list(ASKS))
        fact = loose_fact(rng, somebody, kind=kind, line=False)
    after = fact.statement[fact.value_at + len(fact.value) :].replace(fact.value, "{V}")
    return _Form(link, described, fact.statement[: fact.value_at] + "{V}" + after, fact.questions, kind)


def _link(rng: Rng) -> tuple[str, str]:
    """What tells who somebody is, and how the question names them."""
    draw = rng.random()
    if draw < 0.35:
        role = rng.choice(_ROLES)
        return rng.choice(_ROLE_LINKS).replace("{r}", role), f"the {role} of {{T}}"
    if draw < 0.75:
        deed, doer = rng.choice(_DEEDS)
    else:
        verb = rng.choice(w.MORE_VERBS) if rng.random() < 0.8 else coined(rng)
        deed, doer = f"{verb}s", f"{verb}r" if verb.endswith("e") else f"{verb}er"
    asked = rng.choice((f"the {doer} of {{T}}", rng.choice(_DOERS).replace("{d}", deed)))
    return f"{{P}} {deed} {{T}}.", asked


def linked_fact(rng: Rng, form: _Form | None = None, who: Key | None = None, thing: Key | None = None) -> Fact:
    """One statement tells who somebody is, another something of that person: `who guards the lamp` lives where?"""
    form = form or _form(rng)
    who = who or make_key(rng, "first last", "{} {}")
    thing = thing or (make_key(rng, "adjective thing", "the {} {}") if rng.random() < 0.7 else entity(rng))
    link = form.link.replace("{P}", str(who)).replace("{T}", str(thing))
    described = form.described.replace("{T}", str(thing))
    questions = [question.replace("{P}", described) for question in form.questions]
    identity = f"{who} {form.statement}".lower()

    def like(rng: Rng) -> Fact:
        if rng.random() < 0.2:
            return linked_fact(rng)
        return linked_fact(rng, form, who.vary(rng), replace(thing, kin={}).vary(rng))

    statement = form.statement.replace("{P}", str(who))
    fact = make_fact("hop", identity, statement, questions, VALUES[form.kind](rng), like)
    return replace(fact, parts=_either_order(rng, fact.statement, link[:1].upper() + link[1:]), hops=2)


def _either_order(rng: Rng, one: str, other: str) -> tuple[str, str]:
    return (one, other) if rng.random() < 0.5 else (other, one)


_MAKERS: tuple[Callable[[Rng], Fact], ...] = (variable_fact, carried_fact, linked_fact, linked_fact, linked_fact)


def hop_fact(rng: Rng) -> Fact:
    """A fact of one of the kinds above."""
    return rng.choice(_MAKERS)(rng)


def told_fact(rng: Rng) -> Fact:
    """The same, but the question itself tells the statement that leads to the one with the value."""
    return _told(rng, hop_fact(rng), document_tells_it_too=rng.random() < 0.5)


def _told(rng: Rng, fact: Fact, *, document_tells_it_too: bool) -> Fact:
    link = next(part for part in fact.parts if part != fact.statement)
    questions = tuple(f"{link} {question}" for question in fact.questions)

    def like(rng: Rng) -> Fact:
        return _told(rng, fact.like(rng), document_tells_it_too=document_tells_it_too)

    parts = fact.parts if document_tells_it_too else ()
    return replace(fact, family="told", questions=questions, parts=parts, hops=1, like=like)
