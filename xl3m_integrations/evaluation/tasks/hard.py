"""Hard on purpose: a needle cut in two, a question in other words, facts that look alike."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import ClassVar

from xl3m_integrations.bundled import corpus
from xl3m_integrations.bundled.corpus import VALUES, Fact, Rng
from xl3m_integrations.demo import long_text
from xl3m_integrations.errors import SettingError
from xl3m_integrations.evaluation.documents import Material, Needle, Pieces, Planted, among, placed
from xl3m_integrations.evaluation.examples import Example
from xl3m_integrations.evaluation.tasks.base import adjective_noun, full_name, made, seven_digits


@dataclass(frozen=True, slots=True)
class Straddle:
    """A needle that the end of a segment cuts in two: only the overlap with the next segment holds it whole."""

    name: ClassVar[str] = "straddle"

    def make(self, material: Material, rng: Rng, tokens: int, depth: float) -> Example:
        """See `Task`."""
        key, value = adjective_noun(rng), seven_digits(rng)
        needle = Needle.of(f"One of the special magic numbers for {key} is: {{V}}.", value)
        background = material.background("essay")
        pieces, length, source = [], 0, background(rng)
        characters = material.characters(tokens, background)
        while length < characters:
            pieces.append(next(source))
            length += len(pieces[-1])
        planted = _cut_in_two(material, pieces, needle, depth)
        return made(f"What is the special magic number for {key} mentioned in the provided text?", [value], planted)


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
        who, value = full_name(rng), VALUES[kind](rng)

        def decoys(rng: Rng) -> Iterator[Needle]:
            while True:
                same_words = rng.random() < 0.5
                said, _, of = asked if same_words else rng.choice(_PARAPHRASES)
                other = full_name(rng) if same_words or rng.random() < 0.5 else who
                if (said, other) != (form, who):
                    yield Needle.of(said.replace("{K}", other), VALUES[of](rng))

        def background(rng: Rng) -> Pieces:
            return among(material.background("essay")(rng), decoys(rng))

        needle = Needle.of(form.replace("{K}", who), value)
        planted = material.document(background, rng, [(depth, needle)], tokens)
        return made(question.replace("{K}", who), [value], planted)


@dataclass(frozen=True, slots=True)
class LookAlike:
    """Facts of many kinds, and every 320 characters another that differs in a word of its key or in what is said."""

    name: ClassVar[str] = "lookalike"

    def make(self, material: Material, rng: Rng, tokens: int, depth: float) -> Example:
        """See `Task`."""
        return _asked(material, rng, [(depth, rng.choice(corpus.DEMO_FAMILIES)(rng))], tokens)[0]


@dataclass(frozen=True, slots=True)
class LookAlikes:
    """The same with a question about each of several facts of a document, which share its look-alikes.

    Attributes:
        name: The task's name.
        questions: Facts of a document.
    """

    name: str
    questions: int

    def make(self, material: Material, rng: Rng, tokens: int, depth: float) -> Example:
        """One of them."""
        return self.make_all(material, rng, tokens)[0]

    def make_all(self, material: Material, rng: Rng, tokens: int) -> list[Example]:
        """See `SharedTask`."""
        facts: dict[tuple[str, str], Fact] = {}
        while len(facts) < self.questions:
            fact = corpus.DEMO_FAMILIES[len(facts) % len(corpus.DEMO_FAMILIES)](rng)
            facts.setdefault((fact.family, fact.identity), fact)
        drawn = rng.sample(list(facts.values()), self.questions)
        return _asked(material, rng, [((k + rng.random()) / len(drawn), fact) for k, fact in enumerate(drawn)], tokens)


def _asked(material: Material, rng: Rng, needles: Sequence[tuple[float, Fact]], tokens: int) -> list[Example]:
    """A question about each of the facts in a document with look-alikes of all of them."""
    text = long_text(material.xl3m, rng, needles, tokens, material.prose)
    return [
        made(fact.question, [fact.value], placed(text, [text.index(fact.statement)], [Needle.of_fact(fact)]))
        for _, fact in needles
    ]
