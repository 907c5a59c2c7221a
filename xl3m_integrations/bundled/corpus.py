"""Documents with facts hidden in them, and questions whose only answer is one of those facts.

The same generator makes the training text of the bundled model and the documents of `xl3m demo`: it knows nothing of
models or tokenizers. Everything is drawn from the `random.Random` that the caller hands in, so a seed fixes the text.
"""

from __future__ import annotations

import random
import uuid
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from xl3m_integrations.bundled import words as w

Rng = random.Random


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
    """

    family: str
    identity: str
    statement: str
    questions: tuple[str, ...]
    value: str
    value_at: int
    line: bool
    like: Callable[[Rng], Fact]

    @property
    def question(self) -> str:
        """The first of its questions."""
        return self.questions[0]


@dataclass(frozen=True, slots=True)
class Planted:
    """A fact and the character offset in its document at which its statement begins."""

    fact: Fact
    start: int

    @property
    def end(self) -> int:
        """Offset of the first character after the statement."""
        return self.start + len(self.fact.statement)


# ---------------------------------------------------------------------------------------------- values
def pseudo_word(rng: Rng) -> str:
    """A pronounceable word of two or three syllables that no dictionary need hold."""
    syllables = (
        rng.choice(
            [
                "b",
                "c",
                "d",
                "f",
                "g",
                "h",
                "j",
                "k",
                "l",
                "m",
                "n",
                "p",
                "r",
                "s",
                "t",
                "v",
                "w",
                "z",
                "br",
                "cl",
                "dr",
                "fl",
                "gr",
                "kr",
                "pl",
                "sh",
                "st",
                "th",
                "tr",
            ]
        )
        + rng.choice(["a", "e", "i", "o", "u", "ai", "ea", "io", "ou"])
        + rng.choice(["", "", "l", "m", "n", "r", "s", "x"])
        for _ in range(rng.choice((2, 2, 3)))
    )
    return "".join(syllables)


def digits(rng: Rng, low: int = 3, high: int = 8) -> str:
    """A number of `low` to `high` digits as text, without a leading zero."""
    return str(rng.randint(1, 9)) + "".join(str(rng.randint(0, 9)) for _ in range(rng.randint(low, high) - 1))


def _letters(rng: Rng, n: int, alphabet: str = "ABCDEFGHJKLMNPQRSTUVWXYZ") -> str:
    return "".join(rng.choice(alphabet) for _ in range(n))


def alnum(rng: Rng) -> str:
    """An identifier such as `QX-482` or `k7f2p9`."""
    style = rng.randrange(4)
    if style == 0:
        return f"{_letters(rng, rng.randint(1, 3))}-{digits(rng, 2, 5)}"
    if style == 1:
        return f"{_letters(rng, rng.randint(1, 3))}{digits(rng, 2, 5)}"
    if style == 2:
        return f"{digits(rng, 2, 3)}-{_letters(rng, 2)}-{digits(rng, 1, 3)}"
    return "".join(rng.choice("abcdefghjkmnpqrstuvwxyz23456789") for _ in range(rng.randint(5, 8)))


def person(rng: Rng) -> str:
    """First and last name; one in eight is a made-up pair, so that names are copied and not recalled."""
    if rng.random() < 0.12:
        return f"{pseudo_word(rng).title()} {pseudo_word(rng).title()}"
    return f"{rng.choice(w.FIRST_NAMES)} {rng.choice(w.LAST_NAMES)}"


def any_word(rng: Rng) -> str:
    """A plain word or, one time in three, a made-up one."""
    if rng.random() < 0.34:
        return pseudo_word(rng)
    return rng.choice(rng.choice((w.ADJECTIVES, w.NOUNS, w.THINGS, w.COLOURS)))


def phrase(rng: Rng) -> str:
    """Two to five words that belong together loosely."""
    words = [rng.choice(w.ADJECTIVES), rng.choice(w.NOUNS)]
    if rng.random() < 0.6:
        words += [rng.choice(["of", "and", "under", "by", "near"]), rng.choice(["the", "a", "every"])]
        words += [rng.choice(w.ADJECTIVES + w.NOUNS)] * (rng.random() < 0.3) + [rng.choice(w.NOUNS)]
    return " ".join(words)


def saying(rng: Rng) -> str:
    """A short sentence without its full stop, to be repeated verbatim."""
    forms = (
        lambda: f"never {rng.choice(['trust', 'wake', 'sell', 'feed', 'follow'])} a {phrase(rng)}",
        lambda: f"the {phrase(rng)} will {rng.choice(['wait', 'return', 'sing', 'fall'])} before {rng.choice(w.DAYS)}",
        lambda: f"I have left the {rng.choice(w.THINGS)} in the {rng.choice(w.PLACES)}",
        lambda: (
            f"we should {rng.choice(['buy', 'eat', 'cook', 'bring'])} more {rng.choice(w.FOODS)} and {rng.choice(w.FOODS)}"
        ),
        lambda: (
            f"my {rng.choice(w.NOUNS)} is {rng.choice(['older', 'louder', 'slower'])} than your {rng.choice(w.NOUNS)}"
        ),
        lambda: (
            f"nobody {rng.choice(w.VERBS)} the {rng.choice(w.ADJECTIVES)} {rng.choice(w.NOUNS)} {rng.choice(w.ADVERBS)}"
        ),
    )
    return rng.choice(forms)()


def new_uuid(rng: Rng) -> str:
    """A random UUID drawn from `rng`."""
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


VALUES: dict[str, Callable[[Rng], str]] = {
    "digits": digits,
    "small": lambda rng: str(rng.randint(2, 99)),
    "year": lambda rng: str(rng.randint(1500, 2090)),
    "alnum": alnum,
    "price": lambda rng: f"${rng.randint(2, 999)}" + (f".{rng.randint(10, 99)}" if rng.random() < 0.5 else ""),
    "measure": lambda rng: (
        f"{rng.randint(2, 980)} {rng.choice(['metres', 'miles', 'kilograms', 'feet', 'grams', 'degrees'])}"
    ),
    "phone": lambda rng: f"{digits(rng, 3, 3)}-{digits(rng, 4, 4)}",
    "version": lambda rng: f"{rng.randint(0, 12)}.{rng.randint(0, 20)}.{rng.randint(0, 30)}",
    "colour": lambda rng: rng.choice(w.COLOURS),
    "person": person,
    "word": any_word,
    "phrase": phrase,
    "place": lambda rng: f"the {rng.choice(w.PLACES)}",
    "city": lambda rng: rng.choice(w.CITIES),
    "food": lambda rng: rng.choice(w.FOODS),
    "thing": lambda rng: f"a {rng.choice(w.ADJECTIVES)} {rng.choice(w.THINGS)}",
    "time": lambda rng: f"{rng.randint(0, 23)}:{rng.randint(0, 59):02d}",
    "date": lambda rng: (
        f"{rng.randint(1, 28)} {rng.choice(w.MONTHS)}" + rng.choice(["", f" {rng.randint(1800, 2060)}"])
    ),
    "day": lambda rng: rng.choice(w.DAYS),
    "uuid": new_uuid,
}


# ---------------------------------------------------------------------------------------------- keys
@dataclass(frozen=True, slots=True)
class Key:
    """What a fact is about: words that can be varied one at a time, and how they are written."""

    words: tuple[tuple[str, str], ...]  # (pool name, word)
    form: str  # format string over the words

    def __str__(self) -> str:
        return self.form.format(*(word for _, word in self.words))

    def vary(self, rng: Rng) -> Key:
        """The same key with one of its words replaced."""
        at = rng.randrange(len(self.words))
        pool, old = self.words[at]
        new = next(word for word in iter(lambda: _POOLS[pool](rng), None) if word != old)
        return replace(self, words=(*self.words[:at], (pool, new), *self.words[at + 1 :]))


_POOLS: dict[str, Callable[[Rng], str]] = {
    "adjective": lambda rng: rng.choice(w.ADJECTIVES),
    "noun": lambda rng: rng.choice(w.NOUNS),
    "Adjective": lambda rng: rng.choice(w.ADJECTIVES).title(),
    "Noun": lambda rng: rng.choice(w.NOUNS).title(),
    "first": lambda rng: rng.choice(w.FIRST_NAMES) if rng.random() < 0.8 else pseudo_word(rng).title(),
    "last": lambda rng: rng.choice(w.LAST_NAMES) if rng.random() < 0.8 else pseudo_word(rng).title(),
    "city": lambda rng: rng.choice(w.CITIES),
    "pseudo": pseudo_word,
    "Pseudo": lambda rng: pseudo_word(rng).title(),
    "small": lambda rng: str(rng.randint(1, 99)),
    "letter": lambda rng: rng.choice("ABCDEFGHJKLMNPRSTUVWXYZ"),
    "kind": lambda rng: rng.choice(["unit", "gate", "room", "box", "locker", "station", "house", "platform", "tank"]),
    "Kind": lambda rng: rng.choice(
        ["Project", "Operation", "Team", "Section", "Building", "Vessel", "Account", "Mount"]
    ),
    "thing": lambda rng: rng.choice(w.THINGS),
    "place": lambda rng: rng.choice(w.PLACES),
    "uuid": lambda rng: new_uuid(rng),
    "alnum": lambda rng: alnum(rng),
    "letters": lambda rng: _letters(rng, rng.randint(3, 6)),
}
_ENTITY_FORMS: tuple[tuple[int, str, str], ...] = (
    (6, "adjective noun", "the {} {}"),
    (4, "adjective noun", "{} {}"),
    (5, "adjective noun", "{}-{}"),
    (2, "adjective adjective noun", "the {} {} {}"),
    (2, "adjective noun city", "the {} {} of {}"),
    (2, "adjective noun city", "the {} {} in {}"),
    (5, "first last", "{} {}"),
    (2, "first", "{}"),
    (2, "first noun", "{}'s {}"),
    (3, "Kind Adjective", "{} {}"),
    (2, "Kind Pseudo", "{} {}"),
    (1, "Kind Adjective Noun", "{} {} {}"),
    (2, "kind small", "{} {}"),
    (1, "kind letter small", "{} {}{}"),
    (2, "city", "{}"),
    (2, "Pseudo", "{}"),
    (1, "Pseudo Pseudo", "{} {}"),
    (2, "pseudo pseudo", "{}-{}"),
    (1, "noun", "the {}"),
    (1, "Adjective Noun", "{} {}"),
    (1, "adjective thing", "the {} {}"),
    (2, "last noun", "the {} {}"),
    (1, "city noun", "the {} {}"),
    (2, "Pseudo noun", "the {} {}"),
    (1, "Noun noun", "the {} {}"),
)


def _key(rng: Rng, pools: str, form: str) -> Key:
    return Key(tuple((pool, _POOLS[pool](rng)) for pool in pools.split()), form)


def entity(rng: Rng) -> Key:
    """A person, project, place, object or made-up name."""
    _, pools, form = rng.choices(_ENTITY_FORMS, [weight for weight, _, _ in _ENTITY_FORMS])[0]
    return _key(rng, pools, form)


# ---------------------------------------------------------------------------------------------- families
def _fact(
    family: str,
    identity: str,
    template: str,
    questions: Sequence[str],
    value: str,
    like: Callable[[Rng], Fact],
    line: bool = False,
) -> Fact:
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
_ASIDES = (
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


def _first_upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def attribute_fact(rng: Rng, key: Key | None = None, attribute: str | None = None) -> Fact:
    """Something has an attribute, as in: The access code for Project Amber is 48213."""
    key = key or entity(rng)
    attribute = attribute or rng.choice(list(w.ATTRIBUTES))
    fill = {"A": attribute, "E": str(key), "V": "{V}", "L": rng.choice(_LINKS), "N": rng.choice(_ASIDES)}
    statement = rng.choice(_STATEMENTS).format(**fill)
    questions = [_first_upper(form.format(**fill)) for form in rng.sample(_QUESTIONS, 4)]

    def like(rng: Rng) -> Fact:
        if rng.random() < 0.7:
            return attribute_fact(rng, key.vary(rng), attribute)
        return attribute_fact(rng, key, rng.choice([a for a in w.ATTRIBUTES if a != attribute]))

    kind = w.ATTRIBUTES[attribute] if rng.random() < 0.85 else rng.choice(list(VALUES))
    return _fact("attribute", f"{attribute} of {key}".lower(), statement, questions, VALUES[kind](rng), like)


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


_PAIR_KEYS = (
    (3, "adjective noun", "{}-{}"), (2, "adjective noun", "{}_{}"), (1, "adjective noun", "{} {}"),
    (1, "adjective noun", "{}.{}"), (1, "noun small", "{}_{}"), (1, "noun", "{}"), (1, "pseudo", "{}"),
    (1, "alnum", "{}"), (1, "letters", "{}"), (1, "Adjective Noun", "{}{}"),
)  # fmt: skip


def pair_fact(rng: Rng, key: Key | None = None, style: int | None = None, kind: str | None = None) -> Fact:
    """A line that pairs a key with a value: JSON, `key: value`, a table row, an assignment, a UUID pair."""
    style = rng.randrange(len(_PAIRS)) if style is None else style
    kind = kind or rng.choices(["uuid", "digits", "alnum", "word", "phrase", "person"], [4, 4, 3, 3, 2, 1])[0]
    if key is None and kind == "uuid" and rng.random() < 0.8:
        key = _key(rng, "uuid", "{}")
    key = key or _key(rng, *rng.choices(_PAIR_KEYS, [weight for weight, *_ in _PAIR_KEYS])[0][1:])
    template, shown = (part.format(K=key, V="{V}") for part in _PAIRS[style])
    forms = rng.sample(_PAIR_QUESTIONS, 4)
    questions = [form.format(K=shown if rng.random() < 0.7 else key) for form in forms]

    def like(rng: Rng) -> Fact:
        return pair_fact(rng, key.vary(rng), style, kind)

    return _fact("pair", str(key).lower(), template, questions, VALUES[kind](rng), like, line=True)


_REGISTERS = ("REGISTER_CONTENT", "REGISTER_CONTENT", "VALUE", "ENTRY_TEXT", "CELL", "CONTENT")
_REGISTER_QUESTIONS = (
    "Tell me what is the <{R}> in line {K}? I need the number.", "What is the <{R}> in line {K}?",
    "What is the {R} of line {K}?", "Give the {R} in line {K}.", "Which {R} stands in line {K}?",
)  # fmt: skip


def register_fact(rng: Rng, key: Key | None = None, register: str | None = None) -> Fact:
    """A register line: `line torpid-kid: REGISTER_CONTENT is <2416>`."""
    key = key or _key(rng, *rng.choice([("adjective noun", "{}-{}"), ("pseudo pseudo", "{}-{}")]))
    register = register or rng.choice(_REGISTERS)
    questions = [form.format(R=register, K=key) for form in rng.sample(_REGISTER_QUESTIONS, 3)]
    statement = f"line {key}: {register} is <{{V}}>"

    def like(rng: Rng) -> Fact:
        return register_fact(rng, key.vary(rng), register)

    return _fact("register", f"{register} {key}".lower(), statement, questions, digits(rng, 3, 6), like, line=True)


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
    return _fact("pass", name, rng.choice(statements), rng.sample(questions, 3), value, like)


def magic_fact(rng: Rng, key: Key | None = None, kind: str | None = None) -> Fact:
    """The needle of the RULER tasks: One of the special magic numbers for quiet-falcon is: 7281930."""
    kind = kind or rng.choices(["number", "word", "uuid"], [6, 2, 1])[0]
    key = key or _key(rng, *rng.choice([("adjective noun", "{}-{}"), ("noun", "{}"), ("city", "{}"), ("pseudo", "{}")]))
    value = {"number": digits(rng, 4, 7), "word": f"{any_word(rng)}-{any_word(rng)}", "uuid": new_uuid(rng)}[kind]
    questions = (
        f"What is the special magic {kind} for {key} mentioned in the provided text?",
        f"What is the special magic {kind} for {key}?", f"Which special magic {kind} belongs to {key}?",
    )  # fmt: skip

    def like(rng: Rng) -> Fact:
        return magic_fact(rng, key.vary(rng), kind)

    statement = f"One of the special magic {kind}s for {key} is: {{V}}."
    return _fact("magic", f"{kind} {key}".lower(), statement, rng.sample(questions, len(questions)), value, like)


_MOVES = ("went to", "moved to", "travelled to", "journeyed to", "went back to", "is in", "is now in", "ran to")


def place_fact(rng: Rng, who: str | None = None) -> Fact:
    """Where somebody is; said again later in a document, the last place holds."""
    who = who or (rng.choice(w.FIRST_NAMES) if rng.random() < 0.6 else person(rng))
    questions = rng.sample((f"Where is {who}?", f"In which place is {who}?", f"Where is {who} now?"), 3)
    last = f"{who} {rng.choice(_MOVES)} the {{V}}."
    before = f"{who} {rng.choice(_MOVES)} the {rng.choice(w.PLACES)}."
    other = f"{rng.choice(w.LAST_NAMES)} {rng.choice(_MOVES)} the {rng.choice(w.PLACES)}."
    statement = rng.choices((last, f"{before} {last}", f"{before} {other} {last}"), (6, 2, 2))[0]
    return _fact("place", who, statement, questions, rng.choice(w.PLACES), lambda rng: place_fact(rng))


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
    return _fact("keep", f"{verb} {subject}".lower(), statement, (question,), value, like)


def _doing(rng: Rng) -> str:
    verb = rng.choice(["eat", "feed", "paint", "photograph", "look for", "walk to", "listen to"])
    return f"{verb} the {phrase(rng)}"


def event_fact(rng: Rng, key: Key | None = None) -> Fact:
    """When or where something takes place."""
    key = key or _key(rng, "adjective noun", rng.choice(("the {} {} fair", "the {} {} meeting", "the {} {} festival")))
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
    return _fact("event", identity, statement, (question,), value, lambda rng: event_fact(rng, key.vary(rng)))


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
    return _fact(
        "said", who.lower(), statement, rng.sample(questions, len(questions)), saying(rng), lambda rng: said_fact(rng)
    )


# What a question asks with, for each kind of value.
_ASKS: dict[str, tuple[str, ...]] = {
    "digits": ("which number", "which digits", "what", "which figure", "how many", "which code"),
    "alnum": ("which code", "what", "which mark", "which id"),
    "person": ("who", "which person", "whom", "to whom", "by whom", "whose"),
    "place": ("where", "in which place", "which room"),
    "city": ("where", "in which city", "which city", "what"),
    "time": ("when", "at what time", "at which hour"),
    "date": ("when", "on which date", "by when"),
    "day": ("when", "on which day"),
    "colour": ("in which colour", "which shade", "what colour", "what"),
    "phrase": ("what", "which words", "which phrase"),
    "word": ("what", "which word", "which one"),
    "price": ("how much", "for how much", "what"),
    "thing": ("what", "which object"),
    "measure": ("how much", "how far", "what"),
}
_LOOSE = (
    "{E} {v} {p} {V}.", "{E} {v} {V}.", "{E} {v} the {n} {p} {V}.", "the {n} {p} {E} {v} {V}.", "near {E} one {n} {v} {V}.",
    "in the {n}, {E} {v} the {m} {V}.", "if they {u} {E}, they {u} {V}.", "we {u} {E} {p} {V}.", "{V} {v} {E}.",
    "after the {n}, the {m} {v} to {E} became {V}.", "to {u} {E}, {u} {V}.", "the {a} {n} {v} {E} {p} {V} {t}.",
    "{E}, {t}, {v} {V}.", "{E} {v} {V} {t}.", "when asked, {E} {v} {V} and {u}.", "under the {n} of {E} they {v} \"{V}\".",
    "they {v} {E} with {V}.", "{E} has been {v} {p} {V}.", "nothing but {V} {v} {E}.", "{t}, {V} can {u} {E}.",
    "the {n} says: {E} {v} {V}.", "{E} and {V} {u} together.", "it is {V} that {v} {E}.", "{E} with {V}.", "{E} ({V}) {v}.",
)  # fmt: skip
_LOOSE_LINES = (
    "{E} => {V}", "{E} :: {V}", "{E} ~ {V}", "{n} {E} has {V}", "{E} ({V})", "{E} / {V}", "{E} is {{{V}}}", "{E}\n{V}",
    "{n} {E}: {V}", "{E} >> {V}", "#{E} {V}", "{n}.{E} = \"{V}\"", "{E}|{n}|{V}", "[{E}] {V}", "@{E} {n} {V}",
    "{E} contains {{{V}}}", "{E} is set to ({V})", "{E} .... {V}", "{E} <- {V}", "{n}: {E} & {V}",
)  # fmt: skip
_LOOSE_QUESTIONS = (
    "{w} {v} {E}?", "{w} does {E} {u}?", "{w} did {E} {u} {p}?", "{w} {v} the {n} {p} {E}?", "{w} is it with {E}?",
    "{w} should they {u} for {E}?", "{E}: {w}?", "what about {E}?", "what stands at {E}?", "the {n} of {E}",
    "do you know {w} {E} {v}?", "the {n} {v} to {E}?", "{w} is {v} {p} {E}?", "{w} can we {u} {p} {E}?",
    "tell me {w} {E} {v}.", "I want to know {w} {v} {E}.", "{w} does the {n} of {E} {u}?", "what is there for {E}?",
    "{w} belongs with {E}?", "{w} {v} the {m} of {E}?", "for {E}, {w}?", "{w} goes with {E}?", "{w} has {E}?",
)  # fmt: skip


def _loose_words(rng: Rng) -> dict[str, str]:
    verb = rng.choice(w.MORE_VERBS)
    odd = pseudo_word(rng)
    return {
        "u": verb if rng.random() < 0.9 else odd,
        "v": rng.choice((f"{verb}s", f"{verb}ed", f"was {verb}ed", verb)) if rng.random() < 0.9 else f"{odd}s",
        "n": rng.choice(w.MORE_NOUNS),
        "m": rng.choice(w.NOUNS),
        "a": rng.choice(w.ADJECTIVES),
        "p": rng.choice(["in", "to", "by", "at", "with", "from", "under", "for", "as", "on", "into"]),
        "t": rng.choice(w.ADVERBS + list(_ASIDES)),
    }


def loose_fact(rng: Rng, key: Key | None = None, form: str | None = None, kind: str | None = None) -> Fact:
    """Something stands near a name, in words that the question need not share: only name and kind of value tell."""
    line = form in _LOOSE_LINES if form else rng.random() < 0.25
    form = form or rng.choice(_LOOSE_LINES if line else _LOOSE)
    key = key or (_key(rng, *rng.choice(_PAIR_KEYS)[1:]) if line else entity(rng))
    kind = kind or rng.choice(list(_ASKS))
    said = _loose_words(rng) | {"E": str(key), "V": "{V}"}
    questions = []
    for template in rng.sample(_LOOSE_QUESTIONS, 4):
        other = _loose_words(rng)
        asked = {name: word if rng.random() < 0.6 else other.get(name, word) for name, word in said.items()}
        asked |= {"E": str(key), "w": rng.choice(_ASKS[kind])}
        questions.append(_first_upper(template.format(**asked)))

    def like(rng: Rng) -> Fact:
        return loose_fact(rng, key.vary(rng), form, kind if rng.random() < 0.8 else None)

    value = VALUES[kind](rng)
    return _fact("loose", str(key).lower(), form.format(**said), questions, value, like, line=line)


Maker = Callable[[Rng], Fact]
FAMILIES: dict[Maker, float] = {
    attribute_fact: 36, loose_fact: 22, pair_fact: 12, register_fact: 6, pass_fact: 4, magic_fact: 5, place_fact: 5,
    keep_fact: 7, event_fact: 4, said_fact: 5,
}  # fmt: skip


def any_fact(rng: Rng) -> Fact:
    """A fact of a family drawn by the weights in `FAMILIES`."""
    return rng.choices(list(FAMILIES), list(FAMILIES.values()))[0](rng)


# ---------------------------------------------------------------------------------------------- filler
def _group(rng: Rng) -> str:
    return f"the {rng.choice(w.ADJECTIVES)} {rng.choice(w.NOUNS)}"


_FILLER: tuple[Callable[[Rng], str], ...] = (
    lambda r: f"{_group(r)} {r.choice(w.VERBS)} {_group(r)}",
    lambda r: f"{r.choice(w.FIRST_NAMES)} {r.choice(w.VERBS)} {_group(r)} {r.choice(w.ADVERBS)}",
    lambda r: (
        f"on {r.choice(w.DAYS)} the {r.choice(w.GROUPS)} {r.choice(w.VERBS)} {_group(r)} near the {r.choice(w.PLACES)}"
    ),
    lambda r: f"in {r.choice(w.CITIES)} the {r.choice(w.GROUPS)} talked about {_group(r)} and {_group(r)}",
    lambda r: (
        f"it rained {r.choice(w.ADVERBS)}, and the {r.choice(w.NOUNS)} stood {r.choice(w.ADJECTIVES)} in the {r.choice(w.PLACES)}"
    ),
    lambda r: (
        f"there were {r.randint(2, 90)} {r.choice(w.GROUPS)} by the {r.choice(w.NOUNS)}, all of them {r.choice(w.ADJECTIVES)}"
    ),
    lambda r: f"nobody in the {r.choice(w.PLACES)} had seen such a {r.choice(w.ADJECTIVES)} {r.choice(w.NOUNS)} before",
    lambda r: (
        f"the {r.choice(w.GROUPS)} shared {r.choice(w.FOODS)} and {r.choice(w.FOODS)} while {_group(r)} {r.choice(w.VERBS)} past"
    ),
    lambda r: (
        f"{r.choice(w.FIRST_NAMES)} asked {r.choice(w.FIRST_NAMES)} whether {_group(r)} was older than {_group(r)}"
    ),
    lambda r: f"every {r.choice(w.NOUNS)} has its {r.choice(w.NOUNS)}, and every {r.choice(w.ADJECTIVES)} day its end",
    lambda r: f"a letter about {_group(r)} arrived in {r.choice(w.MONTHS)} and was read {r.choice(w.ADVERBS)}",
    lambda r: f"later the {r.choice(w.NOUNS)} was repaired, though {_group(r)} stayed as it was",
    lambda r: f"they walked from the {r.choice(w.PLACES)} to the {r.choice(w.PLACES)} and spoke of {_group(r)}",
    lambda r: (
        f"the price of {r.choice(w.FOODS)} rose by {r.randint(2, 40)} percent that {r.choice(['spring', 'winter', 'year'])}"
    ),
)


def filler_sentence(rng: Rng) -> str:
    """A harmless sentence that answers no question of this module."""
    return _first_upper(rng.choice(_FILLER)(rng)) + "."


class Prose:
    """Real text to hide facts in, read from any number of books."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = [" ".join(text.split()) for text in texts if text.strip()]
        self._ends: list[int] = []
        for text in self._texts:
            self._ends.append((self._ends[-1] if self._ends else 0) + len(text))

    def passage(self, rng: Rng, characters: int) -> list[str]:
        """About `characters` characters of one book, as a list of sentences."""
        at = rng.randrange(self._ends[-1])
        book = bisect_right(self._ends, at)
        offset = at - (self._ends[book] - len(self._texts[book]))
        passage = self._texts[book][offset : offset + characters + 120]
        start = passage.find(". ", 0, 200)
        return _sentences(passage[start + 2 if start >= 0 else 0 :])


def _sentences(text: str) -> list[str]:
    parts = text.split(". ")
    return [f"{part}." for part in parts[:-1]] + [parts[-1]]


def filler(rng: Rng, characters: int, prose: Prose | None = None) -> list[str]:
    """Sentences of real prose where it is given, of generated filler otherwise."""
    if prose is not None:
        return prose.passage(rng, characters)
    sentences: list[str] = []
    while characters > 0:
        sentences.append(filler_sentence(rng))
        characters -= len(sentences[-1]) + 1
    return sentences


# ---------------------------------------------------------------------------------------------- documents
def unambiguous(rng: Rng, facts: Sequence[Fact], extra: int, near: float = 0.7) -> list[Fact]:
    """`facts` and `extra` more, a share `near` of them look-alikes, no two with one identity; shuffled."""
    kept = {(fact.family, fact.identity): fact for fact in facts}
    while extra > 0:
        fact = rng.choice(list(kept.values())).like(rng) if kept and rng.random() < near else any_fact(rng)
        if (fact.family, fact.identity) not in kept:
            kept[fact.family, fact.identity] = fact
            extra -= 1
    shuffled = list(kept.values())
    rng.shuffle(shuffled)
    return shuffled


def weave(
    rng: Rng, sentences: Sequence[str], facts: Sequence[Fact], paragraph: float = 0.15
) -> tuple[str, list[Planted]]:
    """Put each fact between two sentences chosen at random, and note where it landed."""
    slots = sorted(rng.randrange(len(sentences) + 1) for _ in facts)
    pieces: list[str] = []
    planted: list[Planted] = []
    length, used = 0, 0

    def put(text: str, line: bool) -> int:
        nonlocal length
        gap = (
            ""
            if not pieces
            else "\n"
            if line or pieces[-1].endswith("\n")
            else " "
            if rng.random() > paragraph
            else "\n\n"
        )
        gap = "" if pieces and pieces[-1].endswith("\n") else gap
        pieces.append(gap + text + ("\n" if line else ""))
        length += len(pieces[-1])
        return length - len(text) - line

    for at in range(len(sentences) + 1):
        while used < len(slots) and slots[used] == at:
            planted.append(Planted(facts[used], put(facts[used].statement, facts[used].line)))
            used += 1
        if at < len(sentences):
            put(sentences[at], line=False)
    return "".join(pieces), planted


def stream_document(
    rng: Rng, needles: Sequence[tuple[float, Fact]], characters: int, prose: Prose | None = None
) -> Iterator[str]:
    """A document in pieces: each needle at its depth (0 to 1) among filler and look-alike facts.

    A needle's identity stands nowhere else in the document, so its question has one answer.

    Args:
        rng: Source of everything random.
        needles: (depth, fact), in any order.
        characters: About how long the document becomes, in characters.
        prose: Real text to use as filler; None generates it.
    """
    taken = {(fact.family, fact.identity) for _, fact in needles}
    waiting = sorted(needles, key=lambda needle: needle[0], reverse=True)
    written = 0
    while written < characters or waiting:
        facts: list[Fact] = []
        while waiting and written >= waiting[-1][0] * characters:
            facts.append(waiting.pop()[1])
        source = rng.choice(needles)[1] if needles else any_fact(rng)
        decoy = source.like(rng) if rng.random() < 0.7 else any_fact(rng)
        if (decoy.family, decoy.identity) not in taken:
            facts.append(decoy)
        piece, _ = weave(rng, filler(rng, 320, prose), facts)
        yield piece + "\n"
        written += len(piece) + 1


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
