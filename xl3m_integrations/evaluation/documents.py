"""Documents of a given length: background in pieces, and statements planted in it at known places."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle

from xl3m_integrations.bundled import corpus
from xl3m_integrations.bundled.corpus import Fact, Prose, Rng
from xl3m_integrations.engine import XL3M
from xl3m_integrations.errors import SettingError
from xl3m_integrations.types import Span

Pieces = Iterator[str]  # endless; each piece ends with the space or line end that separates it from the next
Background = Callable[[Rng], Pieces]

# RULER's
NOISE = ("The grass is green.", "The sky is blue.", "The sun is yellow.", "Here we go.", "There and back again.")
DECOY_EVERY = 320  # characters of background between two look-alikes
_SAMPLE_CHARACTERS = 20_000  # on which characters per token are measured


@dataclass(frozen=True, slots=True)
class Needle:
    """A statement to plant.

    Attributes:
        statement: The sentence or line.
        value_end: Characters of it, from its start, that must be read to know what it tells.
        line: Whether it stands on a line of its own.
    """

    statement: str
    value_end: int
    line: bool = False

    @classmethod
    def of(cls, form: str, value: str, *, line: bool = False) -> Needle:
        """From a form with `{V}` where the value stands."""
        before, _, after = form.partition("{V}")
        before = before if line else before[:1].upper() + before[1:]
        return cls(before + value + after, len(before + value), line)

    @classmethod
    def of_fact(cls, fact: Fact) -> Needle:
        """From a fact of the corpus."""
        return cls(fact.statement, fact.value_at + len(fact.value), fact.line)

    @property
    def piece(self) -> str:
        """The statement with what separates it from the next."""
        return self.statement + ("\n" if self.line else " ")


@dataclass(frozen=True, slots=True)
class Planted:
    """A text and where its needles stand.

    Attributes:
        text: The text.
        facts: (start, end) of each needle's statement, in the order in which the needles were given.
        gold: The same up to the end of each value.
    """

    text: str
    facts: tuple[Span, ...]
    gold: tuple[Span, ...]


def plant(pieces: Pieces, needles: Sequence[tuple[float, Needle]], characters: int) -> Planted:
    """Background of at least `characters` characters, each needle after the first piece that reaches its depth.

    Args:
        pieces: The background.
        needles: (depth from 0 to 1, needle), in any order.
        characters: Length of the text, needles included.
    """
    waiting = sorted(range(len(needles)), key=lambda number: needles[number][0], reverse=True)
    starts = [0] * len(needles)
    parts: list[str] = []
    at = 0
    while at < characters or waiting:
        while waiting and at >= needles[waiting[-1]][0] * characters:
            number = waiting.pop()
            needle = needles[number][1]
            if needle.line and parts and not parts[-1].endswith("\n"):
                parts.append("\n")
                at += 1
            starts[number] = at
            parts.append(needle.piece)
            at += len(needle.piece)
        if at < characters or waiting:
            parts.append(next(pieces))
            at += len(parts[-1])
    return placed("".join(parts), starts, [needle for _, needle in needles])


def placed(text: str, starts: Sequence[int], needles: Sequence[Needle]) -> Planted:
    """A text whose needles begin at `starts`."""
    both = list(zip(starts, needles, strict=True))
    facts = tuple((at, at + len(needle.statement)) for at, needle in both)
    return Planted(text, facts, tuple((at, at + needle.value_end) for at, needle in both))


# ---------------------------------------------------------------------------------------------- backgrounds
def noise(rng: Rng) -> Pieces:
    """RULER's repeated sentences."""
    return (f"{sentence} " for sentence in cycle(NOISE))


def filler(rng: Rng) -> Pieces:
    """Generated sentences."""
    while True:
        yield from (f"{sentence} " for sentence in corpus.filler(rng, DECOY_EVERY))


_SENTENCE_ENDS = (". ", ".\n", "\n\n", "\u3002", "\uff01", "\uff1f")


def running_text(texts: Sequence[str]) -> Background:
    """The texts as they stand, one after the other from a random place on, over and over."""
    whole = "\n\n".join(text.strip() for text in texts) + "\n\n"

    def pieces(rng: Rng) -> Pieces:
        at = rng.randrange(len(whole))
        while True:
            end = _sentence_end(whole, at)
            yield whole[at:end]
            at = end % len(whole)

    return pieces


def _sentence_end(text: str, at: int, longest: int = 1_000) -> int:
    """The offset after the next sentence or blank line; else after the last space of `longest` characters, or these."""
    near = text[at : at + longest]
    found = (near.find(mark) + len(mark) for mark in _SENTENCE_ENDS if mark in near)
    return at + min((end for end in found if end > 1), default=near.rfind(" ") + 1 or len(near))


def among(pieces: Pieces, decoys: Iterator[Needle]) -> Pieces:
    """Background with a decoy after about every `DECOY_EVERY` characters."""
    since = 0
    for piece in pieces:
        yield piece
        since += len(piece)
        if since >= DECOY_EVERY:
            decoy = next(decoys)
            yield ("\n" if decoy.line and not piece.endswith("\n") else "") + decoy.piece
            since = 0


# ---------------------------------------------------------------------------------------------- lengths
class Material:
    """What tasks make documents of: the engine, whose tokens count, and texts to hide statements in.

    Args:
        xl3m: The engine.
        texts: Real text to use as background; none for generated text.

    Raises:
        SettingError: There are texts, but nothing in them.
    """

    def __init__(self, xl3m: XL3M, texts: Sequence[str] = ()) -> None:
        self.xl3m = xl3m
        if texts and not any(text.strip() for text in texts):
            raise SettingError("The haystack is empty; give texts that hold something, or none for generated text.")
        texts = [text for text in texts if text.strip()]
        self.prose = Prose(texts) if texts else None
        self._running = running_text(texts) if texts else None

    def background(self, kind: str) -> Background:
        """`noise` or `essay` (RULER's names); the texts, where there are any, take the place of both."""
        return self._running or (noise if kind == "noise" else filler)

    def characters(self, tokens: int, background: Background) -> int:
        """How many characters of a background are about `tokens` tokens of the engine's scorer."""
        sample = plant(background(random.Random(tokens)), [], _SAMPLE_CHARACTERS).text
        return round(tokens * len(sample) / self.xl3m.scorer.tokenizer.count(sample))

    def document(
        self, background: Background, rng: Rng, needles: Sequence[tuple[float, Needle]], tokens: int
    ) -> Planted:
        """A document of about `tokens` tokens with the needles in it."""
        return plant(background(rng), needles, self.characters(tokens, background))
