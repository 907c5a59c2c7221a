"""Needles in a haystack, and lines of which one is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from xl3m_integrations.bundled.corpus import VALUES, Rng
from xl3m_integrations.evaluation.documents import Background, Material, Needle, Pieces, Planted
from xl3m_integrations.evaluation.examples import Example
from xl3m_integrations.evaluation.tasks.base import Draw, adjective_noun, depths_from, distinct, made, seven_digits

_KINDS: dict[str, Draw] = {"words": adjective_noun, "numbers": seven_digits, "uuids": VALUES["uuid"]}


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
        keys = distinct(_KINDS[self.type_needle_k], rng, max(self.num_needle_k, self.num_needle_q))
        values = distinct(_KINDS[self.type_needle_v], rng, len(keys) * self.num_needle_v)
        asked = self.num_needle_q * self.num_needle_v  # the first needles are those asked for
        needles = [self._needle(keys[number // self.num_needle_v], value) for number, value in enumerate(values)]
        background = self._background(material, frozenset(keys))
        planted = material.document(
            background, rng, list(zip(depths_from(rng, depth, len(needles)), needles, strict=True)), tokens
        )
        kind, query = self.type_needle_v, _listed(keys[: self.num_needle_q])
        question = f"What are all the special magic {kind} for {query} mentioned in the provided text?"
        if asked == 1:
            question = f"What is the special magic {kind[:-1]} for {query} mentioned in the provided text?"
        told = Planted(planted.text, planted.facts[:asked], planted.gold[:asked])
        return made(question, values[:asked], told, needs_all=asked > 1)

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
        return made("What is the pass key?", [value], planted)


def _listed(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])}, and {items[-1]}"


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
        return made(self.question.replace("{K}", key), [value], planted)

    def _line(self, key: str, value: str) -> Needle:
        return Needle.of(self.form.replace("{K}", key), value, line=True)
