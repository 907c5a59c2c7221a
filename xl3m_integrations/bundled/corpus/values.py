"""Values that questions ask for, and the keys that they are asked by. Drawn from the `random.Random` handed in."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from xl3m_integrations.bundled import words as w

Rng = random.Random


_ONSETS = "b c d f g h j k l m n p r s t v w z br cl dr fl gr kr pl sh st th tr".split()
_VOWELS = "a e i o u ai ea io ou".split()
_CODAS = ["", "", "l", "m", "n", "r", "s", "x"]
_ENDINGS = "bury wick ford ley ton by stad mouth field wood haven worth dale burg nova ria ane ett ock ling".split()


def pseudo_word(rng: Rng) -> str:
    """A pronounceable word of two or three syllables that no dictionary need hold."""
    return "".join(_syllable(rng) for _ in range(rng.choice((2, 2, 3))))


def _syllable(rng: Rng) -> str:
    return rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS)


def coined(rng: Rng) -> str:
    """A word that looks like a name: made up, two words run together, or a stem with a common ending."""
    draw = rng.random()
    if draw < 0.3:
        return pseudo_word(rng)
    if draw < 0.55:
        return rng.choice(w.ADJECTIVES + w.NOUNS) + rng.choice(w.NOUNS)
    stem = _syllable(rng) if rng.random() < 0.5 else rng.choice(w.NOUNS + w.ADJECTIVES)
    return stem + rng.choice(_ENDINGS)


def first_upper(text: str) -> str:
    """`text` with a capital first letter."""
    return text[:1].upper() + text[1:]


def digits(rng: Rng, low: int = 3, high: int = 8) -> str:
    """A number of `low` to `high` digits as text, without a leading zero."""
    return str(rng.randint(1, 9)) + "".join(str(rng.randint(0, 9)) for _ in range(rng.randint(low, high) - 1))


def letters(rng: Rng, n: int, alphabet: str = "ABCDEFGHJKLMNPQRSTUVWXYZ") -> str:
    """`n` letters of `alphabet`."""
    return "".join(rng.choice(alphabet) for _ in range(n))


def alnum(rng: Rng) -> str:
    """An identifier such as `QX-482` or `k7f2p9`."""
    style = rng.randrange(4)
    if style == 0:
        return f"{letters(rng, rng.randint(1, 3))}-{digits(rng, 2, 5)}"
    if style == 1:
        return f"{letters(rng, rng.randint(1, 3))}{digits(rng, 2, 5)}"
    if style == 2:
        return f"{digits(rng, 2, 3)}-{letters(rng, 2)}-{digits(rng, 1, 3)}"
    return "".join(rng.choice("abcdefghjkmnpqrstuvwxyz23456789") for _ in range(rng.randint(5, 8)))


def adjective(rng: Rng) -> str:
    """A plain adjective or, one time in ten, a made-up word."""
    pool = rng.choices((w.ADJECTIVES, w.MORE_ADJECTIVES, None), (50, 40, 10))[0]
    return rng.choice(pool) if pool else coined(rng)


def noun(rng: Rng) -> str:
    """A plain noun or, one time in ten, a made-up word."""
    pool = rng.choices((w.NOUNS, w.EVERYDAY_NOUNS, w.MORE_NOUNS, None), (42, 33, 15, 10))[0]
    return rng.choice(pool) if pool else coined(rng)


def _name(rng: Rng, known: list[str], made_up: float) -> str:
    """A name of a list or, with probability `made_up`, a coined one, so that names are copied and not recalled."""
    return coined(rng).title() if rng.random() < made_up else rng.choice(known)


def person(rng: Rng) -> str:
    """First and last name."""
    return f"{_name(rng, w.FIRST_NAMES, 0.15)} {_name(rng, w.LAST_NAMES, 0.2)}"


def any_word(rng: Rng) -> str:
    """A plain word or, one time in three, a made-up one."""
    if rng.random() < 0.3:
        return coined(rng)
    return rng.choice((adjective, noun, lambda rng: rng.choice(w.THINGS + w.COLOURS)))(rng)


def phrase(rng: Rng) -> str:
    """Two to five words that belong together loosely."""
    words = [adjective(rng), noun(rng)]
    if rng.random() < 0.6:
        words += [rng.choice(["of", "and", "under", "by", "near"]), rng.choice(["the", "a", "every"])]
        words += [adjective(rng)] * (rng.random() < 0.3) + [noun(rng)]
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
    "place": lambda rng: f"the {rng.choice(w.PLACES) if rng.random() < 0.75 else noun(rng)}",
    "city": lambda rng: _name(rng, w.CITIES, 0.25),
    "food": lambda rng: rng.choice(w.FOODS),
    "thing": lambda rng: f"a {adjective(rng)} {rng.choice(w.THINGS) if rng.random() < 0.5 else noun(rng)}",
    "time": lambda rng: f"{rng.randint(0, 23)}:{rng.randint(0, 59):02d}",
    "date": lambda rng: (
        f"{rng.randint(1, 28)} {rng.choice(w.MONTHS)}" + rng.choice(["", f" {rng.randint(1800, 2060)}"])
    ),
    "day": lambda rng: rng.choice(w.DAYS),
    "uuid": new_uuid,
}


AGAIN = 0.5  # how often a look-alike takes a word that another look-alike has in that place


@dataclass(frozen=True, slots=True)
class Key:
    """What a fact is about: words that can be varied one at a time, and how they are written.

    Look-alikes share words crosswise, as in `amber falcon`, `amber heron`, `quiet falcon` and `quiet heron`, so that no
    single word of a key tells it apart from the others.
    """

    words: tuple[tuple[str, str], ...]  # (pool name, word)
    form: str  # format string over the words
    kin: dict[int, list[str]] = field(default_factory=dict, compare=False)  # words that look-alikes have, by place

    def __str__(self) -> str:
        return self.form.format(*(word for _, word in self.words))

    def vary(self, rng: Rng, draw: Callable[[Rng], str] | None = None) -> Key:
        """The same key with one of its words replaced, by one of its look-alikes' or by one that `draw` gives.

        Args:
            rng: Source of everything random.
            draw: Gives new words; None draws from the word's pool.
        """
        at = rng.randrange(len(self.words))
        pool, old = self.words[at]
        known = self.kin.setdefault(at, [old])
        others = [word for word in known if word != old]
        if others and rng.random() < AGAIN:
            new = rng.choice(others)
        else:
            new = next(word for word in iter(lambda: (draw or _POOLS[pool])(rng), None) if word != old)
            known.append(new)
        return replace(self, words=(*self.words[:at], (pool, new), *self.words[at + 1 :]))


_POOLS: dict[str, Callable[[Rng], str]] = {
    "adjective": adjective,
    "noun": noun,
    "Adjective": lambda rng: adjective(rng).title(),
    "Noun": lambda rng: noun(rng).title(),
    "first": lambda rng: _name(rng, w.FIRST_NAMES, 0.25),
    "last": lambda rng: _name(rng, w.LAST_NAMES, 0.25),
    "city": lambda rng: _name(rng, w.CITIES, 0.2),
    "pseudo": coined,
    "Pseudo": lambda rng: coined(rng).title(),
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
    "letters": lambda rng: letters(rng, rng.randint(3, 6)),
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
    (2, "Pseudo Pseudo", "{} {}"),
    (3, "pseudo pseudo", "{}-{}"),
    (3, "pseudo noun", "{}-{}"),
    (1, "noun", "the {}"),
    (1, "Adjective Noun", "{} {}"),
    (1, "adjective thing", "the {} {}"),
    (2, "last noun", "the {} {}"),
    (1, "city noun", "the {} {}"),
    (8, "Pseudo noun", "the {} {}"),
    (2, "Pseudo thing", "the {} {}"),
    (2, "adjective noun Pseudo", "the {} {} of {}"),
    (1, "Noun noun", "the {} {}"),
)


def make_key(rng: Rng, pools: str, form: str) -> Key:
    """A key with one word from each of `pools`, written as `form` says."""
    return Key(tuple((pool, _POOLS[pool](rng)) for pool in pools.split()), form)


def entity(rng: Rng) -> Key:
    """A person, project, place, object or made-up name."""
    _, pools, form = rng.choices(_ENTITY_FORMS, [weight for weight, _, _ in _ENTITY_FORMS])[0]
    return make_key(rng, pools, form)
