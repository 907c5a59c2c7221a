"""Facts of many families: a statement, the value in it, and questions that only this fact answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from xl3m_integrations.bundled import words as w
from xl3m_integrations.bundled.corpus.values import (
    VALUES,
    Key,
    Rng,
    any_word,
    coined,
    digits,
    entity,
    first_upper,
    make_key,
    new_uuid,
    person,
    phrase,
    saying,
)


@dataclass(frozen=True, slots=True)
class Fact:
    """One statement, and a question that it answers.

    Attributes:
        family: The kind of fact; two facts of one family can be mistaken for each other.
        identity: What makes the question unambiguous: no two facts of a document share it.
        statement: The sentence or line as it stands in a document.
        questions: Phrasings of a question that only this fact answers.
        value: The answer, verbatim as in the statement.
        value_at: Character offset of `value` in `statement`.
        line: Whether the statement stands on a line of its own rather than among sentences.
        like: Makes another fact that differs from this one in a word of its key, or in what is said of it.
        parts: The statements that a document holds for it, in this order; empty where `statement` is all.
        hops: How many of the parts the answer needs.
    """

    family: str
    identity: str
    statement: str
    questions: tuple[str, ...]
    value: str
    value_at: int
    line: bool
    like: Callable[[Rng], Fact]
    parts: tuple[str, ...] = ()
    hops: int = 1

    @property
    def statements(self) -> tuple[str, ...]:
        """All that a document holds for it, in order; `statement` is one of them."""
        return self.parts or (self.statement,)

    @property
    def question(self) -> str:
        """The first of its questions."""
        return self.questions[0]


def make_fact(
    family: str,
    identity: str,
    template: str,
    questions: Sequence[str],
    value: str,
    like: Callable[[Rng], Fact],
    line: bool = False,
) -> Fact:
    """A fact from a template with `{V}` where the value stands; a sentence gets its capital, a `line` stays as it is."""
    before, _, after = template.partition("{V}")
    before, after = before[:1].upper() + before[1:] if not line else before, after.replace("{V}", value)
    return Fact(family, identity, before + value + after, tuple(questions), value, len(before), line, like)


_LINKS = ("is", "is", "is", "was", "remains", "reads", "equals", "is now", "was set to", "is still", "turned out to be")
_STATEMENTS = (
    "the {A} of {E} {L} {V}.", "the {A} of {E} {L} {V}.", "the {A} for {E} {L} {V}.", "the {A} for {E} {L} {V}.",
    "{E}: {A} {V}.", "{E}, {A}: {V}.", "{A} of {E}: {V}.", "{A} for {E}: {V}.", "for {E}, the {A} {L} {V}.",
    "note that the {A} of {E} {L} {V}.", "the {A} assigned to {E} {L} {V}.", "remember: the {A} for {E} {L} {V}.",
    "{E} was given the {A} {V}.", "{E} has the {A} {V}.", "{E} has {A} {V}.", "as for {E}, its {A} {L} {V}.",
    "the {A} that belongs to {E} {L} {V}.", "concerning {E}: the {A} {L} {V}.", "the {A} of {E}, {N}, {L} {V}.",
    "{N}, the {A} of {E} {L} {V}.", "we were told that the {A} for {E} {L} {V}.", "{E} uses {V} as its {A}.",
    "under {E} the record shows {A} {V}.", "for the {A} of {E}, write {V}.", "the {A} {E} uses {L} {V}.",
    "everyone knows that the {A} of {E} {L} {V}.", "it was written that the {A} for {E} {L} {V}.",
    "[{E}] {A} = {V}.", "({E}) {A}: {V}.", "regarding {E}, {A} {V}.",
)  # fmt: skip
ASIDES = (
    "as everyone knows", "according to the report", "in the end", "for the moment", "by the way", "on that day",
    "after the change", "as agreed", "to be clear", "in this case", "as of today", "so they say", "without any doubt",
)  # fmt: skip
_QUESTIONS = (
    "What is the {A} of {E}?", "What is the {A} of {E}?", "What is the {A} for {E}?", "What is the {A} for {E}?",
    "What was the {A} of {E}?", "Tell me the {A} of {E}.", "Give the {A} for {E}.", "{A} of {E}?", "{A} for {E}",
    "Which {A} does {E} have?", "What {A} does {E} have?", "What {A} was assigned to {E}?", "Find the {A} of {E}.",
    "I need the {A} of {E}. What is it?", "State the {A} for {E}.", "Do you know the {A} of {E}?",
    "Can you tell me the {A} for {E}?", "According to the text, what is the {A} of {E}?", "{E}: what is the {A}?",
    "Please give me the {A} of {E}.", "Look up the {A} for {E}.", "What does the text say is the {A} of {E}?",
    "For {E}, what is the {A}?", "What is {E}'s {A}?", "What is the {A} that belongs to {E}?",
    "what is the {A} of {E}", "what's the {A} for {E}?",
)  # fmt: skip


def attribute_name(rng: Rng) -> str:
    """What is asked about; one time in four with a word before it, as in `harbor code`."""
    name = rng.choice(list(w.ATTRIBUTES))
    if rng.random() < 0.75:
        return name
    return (
        f"{rng.choice((rng.choice(w.NOUNS), rng.choice(w.MORE_NOUNS), rng.choice(w.ADJECTIVES), coined(rng)))} {name}"
    )


def base_attribute(name: str) -> str:
    """The attribute without the word before it."""
    return name if name in w.ATTRIBUTES else name.split(" ", 1)[1]


def attribute_fact(rng: Rng, key: Key | None = None, attribute: str | None = None) -> Fact:
    """Something has an attribute, as in: The access code for Project Amber is 48213."""
    key = key or entity(rng)
    attribute = attribute or attribute_name(rng)
    fill = {"A": attribute, "E": str(key), "V": "{V}", "L": rng.choice(_LINKS), "N": rng.choice(ASIDES)}
    statement = rng.choice(_STATEMENTS).format(**fill)
    questions = [first_upper(form.format(**fill)) for form in rng.sample(_QUESTIONS, 4)]

    def like(rng: Rng) -> Fact:
        if rng.random() < 0.7:
            return attribute_fact(rng, key.vary(rng), attribute)
        return attribute_fact(rng, key, next(a for a in iter(lambda: attribute_name(rng), None) if a != attribute))

    kind = w.ATTRIBUTES[base_attribute(attribute)] if rng.random() < 0.85 else rng.choice(list(VALUES))
    return make_fact("attribute", f"{attribute} of {key}".lower(), statement, questions, VALUES[kind](rng), like)


_PAIRS = (
    ('"{K}": "{V}",', '"{K}"'), ('"{K}": "{V}"', '"{K}"'), ('{{"key": "{K}", "value": "{V}"}}', '"{K}"'),
    ("{K}: {V}", "{K}"), ("{K} = {V}", "{K}"), ("{K}={V}", "{K}"), ("{K} -> {V}", "{K}"), ("| {K} | {V} |", "{K}"),
    ("{K},{V}", "{K}"), ("{K};{V}", "{K}"), ("<{K}>{V}</{K}>", "{K}"), ("VAR {K} = {V}", "VAR {K}"),
    ("* {K}: {V}", "{K}"), ("- {K} - {V}", "{K}"), ("set {K} {V}", "{K}"), ("{K}\t{V}", "{K}"),
)  # fmt: skip
_PAIR_QUESTIONS = (
    "{K}", "What is the value of {K}?", "What is the value for {K}?", "Which value belongs to {K}?", "Value of {K}?",
    "What is the value associated with the key {K}?", "Extract the value for the key {K}.", "Look up {K}.",
    "What does {K} map to?", "Find the value for {K}.", "What is the value associated with the specified key? Key: {K}",
)  # fmt: skip


PAIR_KEYS = (
    (3, "adjective noun", "{}-{}"), (2, "adjective noun", "{}_{}"), (1, "adjective noun", "{} {}"),
    (1, "adjective noun", "{}.{}"), (1, "noun small", "{}_{}"), (1, "noun", "{}"), (1, "pseudo", "{}"),
    (1, "alnum", "{}"), (1, "letters", "{}"), (1, "Adjective Noun", "{}{}"),
)  # fmt: skip


def pair_fact(rng: Rng, key: Key | None = None, style: int | None = None, kind: str | None = None) -> Fact:
    """A line that pairs a key with a value: JSON, `key: value`, a table row, an assignment, a UUID pair."""
    style = rng.randrange(len(_PAIRS)) if style is None else style
    kind = kind or rng.choices(["uuid", "digits", "alnum", "word", "phrase", "person"], [4, 4, 3, 3, 2, 1])[0]
    if key is None and kind == "uuid" and rng.random() < 0.8:
        key = make_key(rng, "uuid", "{}")
    key = key or make_key(rng, *rng.choices(PAIR_KEYS, [weight for weight, *_ in PAIR_KEYS])[0][1:])
    template, shown = (part.format(K=key, V="{V}") for part in _PAIRS[style])
    forms = rng.sample(_PAIR_QUESTIONS, 4)
    questions = [form.format(K=shown if rng.random() < 0.7 else key) for form in forms]

    def like(rng: Rng) -> Fact:
        return pair_fact(rng, key.vary(rng), style, kind)

    return make_fact("pair", str(key).lower(), template, questions, VALUES[kind](rng), like, line=True)


_REGISTERS = ("REGISTER_CONTENT", "REGISTER_CONTENT", "VALUE", "ENTRY_TEXT", "CELL", "CONTENT")
_REGISTER_QUESTIONS = (
    "Tell me what is the <{R}> in line {K}? I need the number.", "What is the <{R}> in line {K}?",
    "What is the {R} of line {K}?", "Give the {R} in line {K}.", "Which {R} stands in line {K}?",
)  # fmt: skip


def register_fact(rng: Rng, key: Key | None = None, register: str | None = None) -> Fact:
    """A register line: `line torpid-kid: REGISTER_CONTENT is <2416>`."""
    key = key or make_key(rng, *rng.choice([("adjective noun", "{}-{}"), ("pseudo pseudo", "{}-{}")]))
    register = register or rng.choice(_REGISTERS)
    questions = [form.format(R=register, K=key) for form in rng.sample(_REGISTER_QUESTIONS, 3)]
    statement = f"line {key}: {register} is <{{V}}>"

    def like(rng: Rng) -> Fact:
        return register_fact(rng, key.vary(rng), register)

    return make_fact("register", f"{register} {key}".lower(), statement, questions, digits(rng, 3, 6), like, line=True)


_PASS_NAMES = ("pass key", "passkey", "secret number", "password", "vault code", "secret phrase", "launch code")


def pass_fact(rng: Rng, name: str | None = None) -> Fact:
    """A key without an owner, as in: The pass key is 48213. Remember it. 48213 is the pass key."""
    name = name or rng.choice(_PASS_NAMES)
    statements = (
        f"the {name} is {{V}}. Remember it. {{V}} is the {name}.", f"the {name} is {{V}}.",
        f"important: the {name} is {{V}}.", f"do not forget that the {name} is {{V}}.",
        f"there is one thing to remember here: the {name} is {{V}}.",
    )  # fmt: skip
    questions = (
        f"What is the {name}?", f"What is the {name}? The {name} is", f"Tell me the {name}.",
        f"Which {name} is mentioned in the text?", f"What was the {name}?",
    )  # fmt: skip

    def like(rng: Rng) -> Fact:
        return pass_fact(rng, rng.choice([other for other in _PASS_NAMES if other != name]))

    value = digits(rng, 4, 7) if name != "secret phrase" else phrase(rng)
    return make_fact("pass", name, rng.choice(statements), rng.sample(questions, 3), value, like)


def magic_fact(rng: Rng, key: Key | None = None, kind: str | None = None) -> Fact:
    """The needle of the RULER tasks: One of the special magic numbers for quiet-falcon is: 7281930."""
    kind = kind or rng.choices(["number", "word", "uuid"], [6, 2, 1])[0]
    key = key or make_key(
        rng, *rng.choice([("adjective noun", "{}-{}"), ("noun", "{}"), ("city", "{}"), ("pseudo", "{}")])
    )
    value = {"number": digits(rng, 4, 7), "word": f"{any_word(rng)}-{any_word(rng)}", "uuid": new_uuid(rng)}[kind]
    questions = (
        f"What is the special magic {kind} for {key} mentioned in the provided text?",
        f"What is the special magic {kind} for {key}?", f"Which special magic {kind} belongs to {key}?",
    )  # fmt: skip

    def like(rng: Rng) -> Fact:
        return magic_fact(rng, key.vary(rng), kind)

    statement = f"One of the special magic {kind}s for {key} is: {{V}}."
    return make_fact("magic", f"{kind} {key}".lower(), statement, rng.sample(questions, len(questions)), value, like)


_MOVES = ("went to", "moved to", "travelled to", "journeyed to", "went back to", "is in", "is now in", "ran to")


def place_fact(rng: Rng, who: str | None = None) -> Fact:
    """Where somebody is; said again later in a document, the last place holds."""
    who = who or (rng.choice(w.FIRST_NAMES) if rng.random() < 0.6 else person(rng))
    questions = rng.sample((f"Where is {who}?", f"In which place is {who}?", f"Where is {who} now?"), 3)
    last = f"{who} {rng.choice(_MOVES)} the {{V}}."
    before = f"{who} {rng.choice(_MOVES)} the {rng.choice(w.PLACES)}."
    other = f"{rng.choice(w.LAST_NAMES)} {rng.choice(_MOVES)} the {rng.choice(w.PLACES)}."
    statement = rng.choices((last, f"{before} {last}", f"{before} {other} {last}"), (6, 2, 2))[0]
    fact = make_fact("place", who, statement, questions, rng.choice(w.PLACES), lambda rng: place_fact(rng))
    return replace(fact, parts=(before, fact.statement)) if rng.random() < 0.3 else fact


def keep_fact(rng: Rng, who: str | None = None, thing: str | None = None) -> Fact:
    """Who keeps, gave, bought or saw what, where."""
    who, thing = who or person(rng), thing or f"{rng.choice(w.ADJECTIVES)} {rng.choice(w.THINGS)}"
    place, city, other, food = rng.choice(w.PLACES), rng.choice(w.CITIES), person(rng), rng.choice(w.FOODS)
    forms = (
        ("keep", f"{who} keeps the {thing} in the {{V}}.", f"Where does {who} keep the {thing}?", place),
        ("hid", f"{who} hid the {thing} in the {{V}}.", f"Where did {who} hide the {thing}?", place),
        ("left", f"{who} left the {thing} in the {{V}}.", f"Where did {who} leave the {thing}?", place),
        ("gave", f"{who} gave the {thing} to {{V}}.", f"Who did {who} give the {thing} to?", other),
        ("gave", f"{who} gave the {thing} to {{V}}.", f"To whom did {who} give the {thing}?", other),
        ("bought", f"{who} bought the {thing} in {{V}}.", f"In which city did {who} buy the {thing}?", city),
        ("lives", f"{who} lives in {{V}}.", f"Where does {who} live?", city),
        ("born", f"{who} was born in {{V}}.", f"Where was {who} born?", city),
        ("eats", f"{who} likes to eat {{V}}.", f"What does {who} like to eat?", food),
        ("married", f"{who} is married to {{V}}.", f"Who is {who} married to?", other),
        ("works", f"{who} works for {{V}}.", f"Who does {who} work for?", other),
        (
            "paid",
            f"{who} paid {{V}} for the {thing}.",
            f"How much did {who} pay for the {thing}?",
            VALUES["price"](rng),
        ),
        ("arrives", f"{who} arrives at {{V}}.", f"When does {who} arrive?", VALUES["time"](rng)),
        ("best", f"the best thing to do in {city} is {{V}}.", f"What is the best thing to do in {city}?", _doing(rng)),
    )
    verb, statement, question, value = rng.choice(forms)

    def like(rng: Rng) -> Fact:
        if rng.random() < 0.5:
            return keep_fact(rng, who, None)
        return keep_fact(rng, None, thing)

    subject = city if verb == "best" else who if thing not in statement else f"{who} {thing}"
    return make_fact("keep", f"{verb} {subject}".lower(), statement, (question,), value, like)


def _doing(rng: Rng) -> str:
    verb = rng.choice(["eat", "feed", "paint", "photograph", "look for", "walk to", "listen to"])
    return f"{verb} the {phrase(rng)}"


def event_fact(rng: Rng, key: Key | None = None) -> Fact:
    """When or where something takes place."""
    key = key or make_key(
        rng, "adjective noun", rng.choice(("the {} {} fair", "the {} {} meeting", "the {} {} festival"))
    )
    city, date, day, time = rng.choice(w.CITIES), VALUES["date"](rng), rng.choice(w.DAYS), VALUES["time"](rng)
    forms = (
        ("where", f"{key} takes place in {{V}} on {date}.", f"Where does {key} take place?", city),
        ("when", f"{key} takes place in {city} on {{V}}.", f"When does {key} take place?", date),
        ("start", f"{key} starts at {{V}} on {day}.", f"At what time does {key} start?", time),
        ("day", f"{key} is held every {{V}} at {time}.", f"On which day is {key} held?", day),
        ("date", f"they moved {key} to {{V}}.", f"To which date was {key} moved?", date),
    )
    aspect, statement, question, value = rng.choice(forms)
    identity = f"{aspect} {key}".lower()
    return make_fact("event", identity, statement, (question,), value, lambda rng: event_fact(rng, key.vary(rng)))


def said_fact(rng: Rng, who: str | None = None) -> Fact:
    """A quoted sentence, to be repeated verbatim."""
    who = who or person(rng)
    verb = rng.choice(("said", "wrote", "whispered", "shouted", "answered"))
    statement = rng.choice((f'{who} {verb}, "{{V}}."', f'{who} {verb}: "{{V}}."', f"{who} {verb} that {{V}}."))
    questions = {
        "said": (f"What did {who} say?", f"Repeat what {who} said.", f"What exactly did {who} say?"),
        "wrote": (f"What did {who} write?", f"Quote what {who} wrote."),
        "whispered": (f"What did {who} whisper?", f"Repeat what {who} whispered."),
        "shouted": (f"What did {who} shout?", f"Quote what {who} shouted."),
        "answered": (f"What did {who} answer?", f"What was the answer of {who}?"),
    }[verb]
    return make_fact(
        "said", who.lower(), statement, rng.sample(questions, len(questions)), saying(rng), lambda rng: said_fact(rng)
    )
