"""Questions that need several statements, one leading to the next."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from string import ascii_uppercase
from typing import ClassVar

from xl3m_integrations.bundled import words as w
from xl3m_integrations.bundled.corpus import VALUES, Rng
from xl3m_integrations.evaluation.documents import Material, Needle, Pieces, among
from xl3m_integrations.evaluation.examples import Example
from xl3m_integrations.evaluation.tasks.base import depths_from, distinct, full_name, made


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
        names = distinct(lambda rng: "".join(rng.choices(ascii_uppercase, k=5)), rng, self.num_hops + 1)
        value = str(rng.randrange(10_000, 100_000))
        told = [value, *(f"VAR {name}" for name in names)]
        lines = [Needle.of(f"VAR {name} = {{V}}", right, line=True) for name, right in zip(names, told, strict=False)]
        depths = sorted(depths_from(rng, depth, len(lines)))
        background = material.background("noise")
        planted = material.document(background, rng, list(zip(depths, lines, strict=True)), tokens)
        question = f"Find all variables that are assigned the value {value} in the text above."
        return made(question, names, planted, needs_all=True)


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
        who, thing, value = full_name(rng), _thing(rng), VALUES[kind](rng)

        def statements(who: str, thing: str, value: str) -> tuple[Needle, Needle]:
            owns = has.format(P=who, T=thing)
            return Needle(owns, len(owns)), Needle.of(known.replace("{P}", who), value)

        def decoys(rng: Rng) -> Iterator[Needle]:
            while True:
                other, another = full_name(rng), _thing(rng)
                if other != who and another != thing:
                    yield from statements(other, another, VALUES[kind](rng))

        def background(rng: Rng) -> Pieces:
            return among(material.background("essay")(rng), decoys(rng))

        needles = list(zip(depths_from(rng, depth, 2), statements(who, thing, value), strict=True))
        return made(question.format(T=thing), [value], material.document(background, rng, needles, tokens))


def _thing(rng: Rng) -> str:
    return f"{rng.choice(w.ADJECTIVES)} {rng.choice(w.THINGS)}"
