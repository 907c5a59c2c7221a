"""Tasks: each makes documents of any length, fresh from a seed, whose question only the planted statements answer.

Names and parameters of the `niah` and `vt` tasks are RULER's (arXiv 2404.06654, appendix B). To add a task: write a
frozen dataclass with `name` and `make`, and add it to `TASKS`.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from string import ascii_uppercase
from typing import ClassVar, Protocol

from xl3m_integrations.bundled import corpus
from xl3m_integrations.bundled import words as w
from xl3m_integrations.bundled.corpus import VALUES, Rng
from xl3m_integrations.demo import long_text
from xl3m_integrations.errors import SettingError
from xl3m_integrations.evaluation.documents import Background, Material, Needle, Pieces, Planted, among, placed
from xl3m_integrations.evaluation.examples import Example

Draw = Callable[[Rng], str]


class Task(Protocol):
    """A kind of question."""

    @property
    def name(self) -> str:
        """The name it is asked for by."""

    def make(self, material: Material, rng: Rng, tokens: int, depth: float) -> Example:
        """One example.

        Args:
            material: The engine and the background.
            rng: Source of everything random.
            tokens: Length of the document, about.
            depth: Where the statement that tells the answer stands, from 0 to 1; of several, the first.
        """


def example_of(task: Task, material: Material, tokens: int, number: int, seed: int) -> Example:
    """Example `number` of a task at a length: the same whatever else is run, at depths that cover the document evenly.

    Raises:
        SettingError: The length is below two segments of the engine.
    """
    least = 2 * material.xl3m.segmenter.segment_tokens
    if tokens < least:
        raise SettingError(f"A length is {tokens} tokens; it must be at least {least}, two of the engine's segments.")
    rng = random.Random(f"{seed} {task.name} {tokens} {number}")
    shift = random.Random(f"{seed} {task.name} {tokens}").random()
    made = task.make(material, rng, tokens, (shift + number * 0.6180339887) % 1)  # golden-ratio steps leave no gaps
    return Example(
        task.name, made.text, made.question, made.answers, made.gold, made.facts, tokens, number, made.needs_all
    )


def _made(question: str, answers: Sequence[str], planted: Planted, *, needs_all: bool = False) -> Example:
    return Example("", planted.text, question, tuple(answers), planted.gold, planted.facts, needs_all=needs_all)


def _distinct(draw: Draw, rng: Rng, count: int) -> list[str]:
    drawn: dict[str, None] = {}
    while len(drawn) < count:
        drawn[draw(rng)] = None
    return list(drawn)


def _depths(rng: Rng, first: float, count: int) -> list[float]:
    return [first, *(rng.random() for _ in range(count - 1))]


def _adjective_noun(rng: Rng) -> str:
    return f"{rng.choice(w.ADJECTIVES)}-{rng.choice(w.NOUNS)}"


def _number(rng: Rng) -> str:
    return str(rng.randrange(1_000_000, 10_000_000))


def _listed(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])}, and {items[-1]}"


_KINDS: dict[str, Draw] = {"words": _adjective_noun, "numbers": _number, "uuids": VALUES["uuid"]}


# ---------------------------------------------------------------------------------------------- needles in a haystack
@dataclass(frozen=True, slots=True)
class Niah:
    """RULER's needles in a haystack. The attributes are its parameters.

    Attributes:
        name: The task's name.
        type_haystack: `noise` (a few sentences over and over), `essay` (text) or `needle` (other needles).
        type_needle_k: Kind of the keys: `words` or `uuids`.
        type_needle_v: Kind of the values: `numbers` or `uuids`.
        num_needle_k: How many keys stand in the document.
        num_needle_v: How many values each key has.
        num_needle_q: How many keys are asked for.
    """

    name: str
    type_haystack: str = "essay"
    type_needle_k: str = "words"
    type_needle_v: str = "numbers"
    num_needle_k: int = 1
    num_needle_v: int = 1
    num_needle_q: int = 1

    def make(self, material: Material, rng: Rng, tokens: int, depth: float) -> Example:
        """See `Task`."""
        keys = _distinct(_KINDS[self.type_needle_k], rng, max(self.num_needle_k, self.num_needle_q))
        values = _distinct(_KINDS[self.type_needle_v], rng, len(keys) * self.num_needle_v)
        asked = self.num_needle_q * self.num_needle_v  # the first needles are those asked for
        needles = [self._needle(keys[number // self.num_needle_v], value) for number, value in enumerate(values)]
        background = self._background(material, frozenset(keys))
        planted = material.document(
            background, rng, list(zip(_depths(rng, depth, len(needles)), needles, strict=True)), tokens
        )
        kind, query = self.type_needle_v, _listed(keys[: self.num_needle_q])
        question = f"What are all the special magic {kind} for {query} mentioned in the provided text?"
        if asked == 1:
            question = f"What is the special magic {kind[:-1]} for {query} mentioned in the provided text?"
        told = Planted(planted.text, planted.facts[:asked], planted.gold[:asked])
        return _made(question, values[:asked], told, needs_all=asked > 1)

    def _needle(self, key: str, value: str) -> Needle:
        return Needle.of(f"One of the special magic {self.type_needle_v} for {key} is: {{V}}.", value)

    def _background(self, material: Material, taken: frozenset[str]) -> Background:
        if self.type_haystack != "needle":
            return material.background(self.type_haystack)

        def others(rng: Rng) -> Pieces:
            while True:
                key = _KINDS[self.type_needle_k](rng)
                if key not in taken:
                    yield self._needle(key, _KINDS[self.type_needle_v](rng)).piece

        return others


@dataclass(frozen=True, slots=True)
class PassKey:
    """The pass key of Mohtashami and Jaggi (arXiv 2305.16300), in RULER's noise or in the texts."""

    name: ClassVar[str] = "passkey"

    def make(self, material: Material, rng: Rng, tokens: int, depth: float) -> Example:
        """See `Task`."""
        value = str(rng.randrange(10_000, 100_000))
        needle = Needle.of(f"The pass key is {{V}}. Remember it. {value} is the pass key.", value)
        planted = material.document(material.background("noise"), rng, [(depth, needle)], tokens)
        return _made("What is the pass key?", [value], planted)


@dataclass(frozen=True, slots=True)
class Straddle:
    """A needle that the end of a segment cuts in two: only the overlap with the next segment holds it whole."""

    name: ClassVar[str] = "straddle"

    def make(self, material: Material, rng: Rng, tokens: int, depth: float) -> Example:
        """See `Task`."""
        key, value = _adjective_noun(rng), _number(rng)
        needle = Needle.of(f"One of the special magic numbers for {key} is: {{V}}.", value)
        background = material.background("essay")
        pieces, length, source = [], 0, background(rng)
        while length < material.characters(tokens, background):
            pieces.append(next(source))
            length += len(pieces[-1])
        planted = _cut_in_two(material, pieces, needle, depth)
        return _made(f"What is the special magic number for {key} mentioned in the provided text?", [value], planted)


def _cut_in_two(material: Material, pieces: Sequence[str], needle: Needle, depth: float) -> Planted:
    """`pieces` with the needle between two of them, as near to `depth` as can be, where a segment ends inside of it.

    Raises:
        SettingError: There is no such place.
    """
    segmenter = material.xl3m.segmenter
    starts = [0, *accumulate(map(len, pieces))]
    text = "".join(pieces)
    ends = [segment.end for segment in segmenter.segments([text])][:-1]
    for end in sorted(ends, key=lambda end: abs(end - depth * len(text))):
        at = starts[bisect_right(starts, end) - 1]
        near = text[:at] + needle.piece + text[at : at + len(needle.piece)]  # what follows moves no earlier cut
        if any(at < segment.end < at + needle.value_end for segment in segmenter.segments([near])):
            return placed(text[:at] + needle.piece + text[at:], [at], [needle])
    raise SettingError("No segment of the document ends where a needle could stand; use a longer document.")


# ---------------------------------------------------------------------------------------------- lines
@dataclass(frozen=True, slots=True)
class Lines:
    """A document of nothing but lines that pair a key with a value, of which one is asked for.

    Attributes:
        name: The task's name.
        form: A line, with `{K}` for its key and `{V}` for its value.
        question: The question, with `{K}`.
        key: Draws keys.
        value: Draws values.
    """

    name: str
    form: str
    question: str
    key: Draw
    value: Draw

    def make(self, material: Material, rng: Rng, tokens: int, depth: float) -> Example:
        """See `Task`."""
        key, value = self.key(rng), self.value(rng)

        def others(rng: Rng) -> Pieces:
            while True:
                other = self.key(rng)
                if other != key:
                    yield self._line(other, self.value(rng)).piece

        planted = material.document(others, rng, [(depth, self._line(key, value))], tokens)
        return _made(self.question.replace("{K}", key), [value], planted)

    def _line(self, key: str, value: str) -> Needle:
        return Needle.of(self.form.replace("{K}", key), value, line=True)


# ---------------------------------------------------------------------------------------------- chains
@dataclass(frozen=True, slots=True)
class VariableTracking:
    """RULER's variable tracking with one chain: all variables that have a value, directly or through others.

    Attributes:
        name: The task's name.
        num_hops: How many assignments of one variable to another follow the first.
    """

    name: str
    num_hops: int

    def make(self, material: Material, rng: Rng, tokens: int, depth: float) -> Example:
        """See `Task`."""
        names = _distinct(lambda rng: "".join(rng.choices(ascii_uppercase, k=5)), rng, self.num_hops + 1)
        value = str(rng.randrange(10_000, 100_000))
        told = [value, *(f"VAR {name}" for name in names)]
        lines = [Needle.of(f"VAR {name} = {{V}}", right, line=True) for name, right in zip(names, told, strict=False)]
        depths = sorted(_depths(rng, depth, len(lines)))
        background = material.background("noise")
        planted = material.document(background, rng, list(zip(depths, lines, strict=True)), tokens)
        question = f"Find all variables that are assigned the value {value} in the text above."
        return _made(question, names, planted, needs_all=True)


# (who has what, what is known of them, question, kind of value); {P} is the person, {T} the thing.
_TWO_HOPS = (
    ("{P} keeps the {T}.", "{P} lives in {V}.", "In which city does the keeper of the {T} live?", "city"),
    ("{P} steers the {T}.", "{P} was born in {V}.", "In which city was the one born who steers the {T}?", "city"),
    ("{P} built the {T}.", "{P} is married to {V}.", "Who is the builder of the {T} married to?", "person"),
    ("{P} owns the {T}.", "{P} works for {V}.", "Who does the owner of the {T} work for?", "person"),
)


@dataclass(frozen=True, slots=True)
class TwoHop:
    """A question that needs two statements: who has a thing, and what is said of that person. Both have look-alikes."""

    name: ClassVar[str] = "two_hop"

    def make(self, material: Material, rng: Rng, tokens: int, depth: float) -> Example:
        """See `Task`."""
        has, known, question, kind = rng.choice(_TWO_HOPS)
        who, thing, value = _full_name(rng), _thing(rng), VALUES[kind](rng)

        def statements(who: str, thing: str, value: str) -> tuple[Needle, Needle]:
            owns = has.format(P=who, T=thing)
            return Needle(owns, len(owns)), Needle.of(known.replace("{P}", who), value)

        def decoys(rng: Rng) -> Iterator[Needle]:
            while True:
                other, another = _full_name(rng), _thing(rng)
                if other != who and another != thing:
                    yield from statements(other, another, VALUES[kind](rng))

        def background(rng: Rng) -> Pieces:
            return among(material.background("essay")(rng), decoys(rng))

        needles = list(zip(_depths(rng, depth, 2), statements(who, thing, value), strict=True))
        return _made(question.format(T=thing), [value], material.document(background, rng, needles, tokens))


def _full_name(rng: Rng) -> str:
    return f"{rng.choice(w.FIRST_NAMES)} {rng.choice(w.LAST_NAMES)}"


def _thing(rng: Rng) -> str:
    return f"{rng.choice(w.ADJECTIVES)} {rng.choice(w.THINGS)}"


# ---------------------------------------------------------------------------------------------- hard for word overlap
# (statement, question, kind of value): they share the name and no other word that carries meaning, as in NoLiMa.
_PARAPHRASES = (
    ("{K} resides in {V}.", "In which city does {K} have a home?", "city"),
    ("{K} came into the world in {V}.", "What is the year of birth of {K}?", "year"),
    ("{K} is wed to {V}.", "Who is the spouse of {K}?", "person"),
    ("Nothing pleases the palate of {K} more than {V}.", "What is the favourite food of {K}?", "food"),
    ("{K} handed over {V} at the till.", "How much did {K} pay?", "price"),
    ("{K} stepped off the train at {V}.", "At what time did {K} arrive?", "time"),
    ("{K} takes orders from {V}.", "Who is the boss of {K}?", "person"),
    ("{K} slipped {V} into a coat pocket.", "Which object does {K} carry?", "thing"),
    ("{K} tips the scales at {V}.", "How heavy is {K}?", "measure"),
    ("Ring {V} to speak with {K}.", "What is the phone number of {K}?", "phone"),
)


@dataclass(frozen=True, slots=True)
class Paraphrase:
    """A question in other words than the statement; other people in the same words, the same person in others."""

    name: ClassVar[str] = "paraphrase"

    def make(self, material: Material, rng: Rng, tokens: int, depth: float) -> Example:
        """See `Task`."""
        form, question, kind = asked = rng.choice(_PARAPHRASES)
        who, value = _full_name(rng), VALUES[kind](rng)

        def decoys(rng: Rng) -> Iterator[Needle]:
            while True:
                same_words = rng.random() < 0.5
                said, _, of = asked if same_words else rng.choice(_PARAPHRASES)
                other = _full_name(rng) if same_words or rng.random() < 0.5 else who
                if (said, other) != (form, who):
                    yield Needle.of(said.replace("{K}", other), VALUES[of](rng))

        def background(rng: Rng) -> Pieces:
            return among(material.background("essay")(rng), decoys(rng))

        needle = Needle.of(form.replace("{K}", who), value)
        planted = material.document(background, rng, [(depth, needle)], tokens)
        return _made(question.replace("{K}", who), [value], planted)


@dataclass(frozen=True, slots=True)
class LookAlike:
    """Facts of many kinds, and every 320 characters another that differs in a word of its key or in what is said."""

    name: ClassVar[str] = "lookalike"

    def make(self, material: Material, rng: Rng, tokens: int, depth: float) -> Example:
        """See `Task`."""
        fact = rng.choice(corpus.DEMO_FAMILIES)(rng)
        text = long_text(material.xl3m, rng, [(depth, fact)], tokens, material.prose)
        planted = placed(text, [text.index(fact.statement)], [Needle.of_fact(fact)])
        return _made(fact.question, [fact.value], planted)


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Niah("niah_single_1", type_haystack="noise"),
        Niah("niah_single_2"),
        Niah("niah_single_3", type_needle_v="uuids"),
        Niah("niah_multikey_1", num_needle_k=4),
        Niah("niah_multikey_2", type_haystack="needle"),
        Niah("niah_multikey_3", type_haystack="needle", type_needle_k="uuids", type_needle_v="uuids"),
        Niah("niah_multivalue", num_needle_v=4),
        Niah("niah_multiquery", num_needle_q=4),
        PassKey(),
        Lines("kv", "{K}: {V}", "What is the value of {K}?", _adjective_noun, _number),
        Lines(
            "kv_uuid",
            '"{K}": "{V}",',
            'What is the value associated with the specified key? Key: "{K}"',
            VALUES["uuid"],
            VALUES["uuid"],
        ),
        Lines(
            "lines",
            "line {K}: REGISTER_CONTENT is <{V}>",
            "Tell me what is the <REGISTER_CONTENT> in line {K}? I need the number.",
            _adjective_noun,
            lambda rng: str(rng.randrange(1, 50_000)),
        ),
        VariableTracking("vt_2", 2),
        VariableTracking("vt_3", 3),
        VariableTracking("vt_4", 4),
        TwoHop(),
        Straddle(),
        Paraphrase(),
        LookAlike(),
    )
}


def get_tasks(names: Sequence[str]) -> list[Task]:
    """The tasks of these names, in order; `niah` or `vt` stands for all that begin so, `all` for all.

    Raises:
        SettingError: No task has, or begins with, one of the names.
    """
    found: dict[str, Task] = {}
    for name in names:
        own = [task for task in TASKS.values() if name in ("all", task.name)]
        own = own or [task for task in TASKS.values() if task.name.startswith(f"{name}_")]
        if not own:
            raise SettingError(f"Unknown task {name!r}; choose from {', '.join(TASKS)}, the beginning of some, or all.")
        found |= {task.name: task for task in own}
    return list(found.values())
