"""Facts made of sentences from real text: a name and a value take the places of two of a sentence's noun phrases.

Templates repeat themselves; the sentences of a shelf of books do not. The question keeps some of the sentence's words,
leaves others out, puts strange ones in or turns them around, so that neither wording nor order can be relied on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from xl3m_integrations.bundled.corpus.documents import Prose
from xl3m_integrations.bundled.corpus.facts import Fact, make_fact
from xl3m_integrations.bundled.corpus.families import any_fact
from xl3m_integrations.bundled.corpus.loose import ASKS
from xl3m_integrations.bundled.corpus.values import VALUES, Key, Rng, entity

SHARE = 0.3  # of the facts of a training document
_PLACE = re.compile(
    r"\b(?:(?:the|an?|his|her|my|our|their|your|its|this|that|every|some|any|no) [a-z]{3,}"
    r"|he|she|it|they|him|them|who|[A-Z][a-z]{2,}(?: [A-Z][a-z]+)*)\b"
)
_MOST_WORDS = 22  # of a sentence
_SAME_NAME = 0.25  # how often look-alikes share the name, and only the sentence tells them apart
_WORDS = "words"  # values that are words of the text itself
_WORD_ASKS = ("what", "which words", "which word", "what exactly", "who or what")


@dataclass(frozen=True, slots=True)
class Frame:
    """A sentence with two places: what stands before, between and after the name and the value."""

    parts: tuple[str, str, str]
    name_first: bool

    def fill(self, name: str, value: str) -> str:
        """The sentence with both places filled."""
        first, second = (name, value) if self.name_first else (value, name)
        return f"{self.parts[0]}{first}{self.parts[1]}{second}{self.parts[2]}"


def _frame(rng: Rng, prose: Prose) -> Frame:
    while True:
        for sentence in prose.passage(rng, 900):
            words = sentence.replace("{", "").replace("}", "").strip(" _*\"'").split(" ")
            start = rng.randrange(max(1, len(words) - _MOST_WORDS))
            text = " ".join(words[start : start + _MOST_WORDS])
            places = [found.span() for found in _PLACE.finditer(text)]
            if len(places) >= 2:
                (a, b), (c, d) = sorted(rng.sample(places, 2))
                end = text[d:].rstrip(" .,;:") + rng.choice((".", ".", ".", ";", "!"))
                return Frame((text[:a], text[b:c], end), rng.random() < 0.6)


def _name(rng: Rng, prose: Prose) -> Key:
    """A name made up as elsewhere or of words of the text."""
    if rng.random() < 0.5:
        return entity(rng)
    words = [prose.words(rng, letters=4)[0] for _ in range(rng.choice((1, 2, 2, 2, 3)))]
    style = rng.choice(("the {}", "{}", "{}", "-"))
    if style == "{}":
        words = [word.title() for word in words]
    joined = ("-" if style == "-" else " ").join("{}" for _ in words)
    return Key(tuple(("word", word) for word in words), joined if style == "-" else style.format(joined))


def _varied(rng: Rng, name: Key, prose: Prose) -> Key:
    """The name with one of its words replaced."""
    if name.words[0][0] != "word":
        return name.vary(rng)
    titled = name.words[0][1].istitle()

    def word(rng: Rng) -> str:
        found = prose.words(rng, letters=4)[0]
        return found.title() if titled else found

    return name.vary(rng, word)


@dataclass(frozen=True, slots=True)
class SentenceFacts:
    """Draws facts whose statements are sentences of `prose`."""

    prose: Prose

    def __call__(self, rng: Rng) -> Fact:
        """A fact from a sentence drawn at random."""
        kind = rng.choice((_WORDS, _WORDS, _WORDS, *ASKS))
        return self._fact(rng, _frame(rng, self.prose), _name(rng, self.prose), kind, rng.random() < _SAME_NAME)

    def _fact(self, rng: Rng, frame: Frame, name: Key, kind: str, same_name: bool) -> Fact:
        def like(rng: Rng) -> Fact:
            other = kind if rng.random() < 0.7 else rng.choice((_WORDS, *ASKS))
            if same_name:
                return self._fact(rng, _frame(rng, self.prose), name, other, True)
            sentence = frame if rng.random() < 0.7 else _frame(rng, self.prose)
            return self._fact(rng, sentence, _varied(rng, name, self.prose), other, False)

        value = " ".join(self.prose.words(rng, 4)) if kind == _WORDS else VALUES[kind](rng)
        asks = _WORD_ASKS if kind == _WORDS else ASKS[kind]
        makers = _EXACT if same_name else _FREE
        questions = [rng.choice(makers)(rng, frame, str(name), rng.choice(asks), self.prose) for _ in range(3)]
        identity = f"{name} {frame.parts}" if same_name else str(name)
        template = frame.fill(str(name), "{V}")
        family = "same name" if same_name else "sentence"
        return make_fact(family, identity.lower(), template, questions, value, like)


# ------------------------------------------------------------------------------------------------- questions
def _in_place(rng: Rng, frame: Frame, name: str, ask: str, prose: Prose) -> str:
    """The sentence itself, or the part of it around both places, with the question where the value stands."""
    words = frame.fill(name.replace(" ", "\0"), ask.replace(" ", "\0")).rstrip(".;!").split(" ")
    keep = [at for at, word in enumerate(words) if "\0" in word or word.strip(",;:") in (name, ask)]
    room = rng.choice((2, 4, 8, 30))
    low, high = max(0, min(keep, default=0) - room), max(keep, default=len(words)) + room + 1
    return " ".join(words[low:high]).replace("\0", " ") + "?"


def _asked_first(rng: Rng, frame: Frame, name: str, ask: str, prose: Prose) -> str:
    """Question word first, then the sentence without the value."""
    return f"{ask} {' '.join(frame.fill(name, '').rstrip('.;!').split())}?"


def _completed(rng: Rng, frame: Frame, name: str, ask: str, prose: Prose) -> str:
    """The beginning of the sentence, to be gone on with; asked in place where the name comes later."""
    if not frame.name_first:
        return _in_place(rng, frame, name, ask, prose)
    beginning = f"{frame.parts[0]}{name}{frame.parts[1]}".strip()
    return f"{rng.choice(('Complete: ', 'Go on: ', 'Finish the sentence: ', ''))}{beginning}"


def _loosely(rng: Rng, frame: Frame, name: str, ask: str, prose: Prose) -> str:
    """Question word, name and some of the words around it, some left out, some strange, in this order or another."""
    mark = "\0"
    words = frame.fill(mark, "").rstrip(".;!").split()
    at = next(place for place, word in enumerate(words) if mark in word)
    before, after = (rng.choice((0, 1, 3, 6, 12)) for _ in range(2))
    left, strange = rng.choice((0.0, 0.2, 0.5)), rng.choice((0.0, 0.0, 0.2, 0.4))
    kept = []
    for place in range(max(0, at - before), min(len(words), at + after + 1)):
        if place != at and rng.random() < left:
            continue
        kept.append(prose.words(rng)[0].lower() if place != at and rng.random() < strange else words[place])
    if rng.random() < 0.2:
        rng.shuffle(kept)
    said = " ".join(kept).replace(mark, name)
    return rng.choice((f"{ask} {said}?", f"{ask} {said}?", f"{ask} is it that {said}?", f"{said}: {ask}?",
                       f"{ask} does {said}?", f"{ask} did {said}?", f"tell me {ask} {said}.", f"say {ask} {said}",
                       f"according to the text, {ask} {said}?"))  # fmt: skip


_Question = Callable[[Rng, Frame, str, str, Prose], str]
_EXACT: Sequence[_Question] = (_in_place, _asked_first, _completed)
_FREE: Sequence[_Question] = (_in_place, _asked_first, _completed, _loosely, _loosely, _loosely)


def with_sentences(prose: Prose | None) -> Callable[[Rng], Fact]:
    """`any_fact`, and where there is prose a share of facts from its sentences."""
    if prose is None:
        return any_fact
    sentences = SentenceFacts(prose)
    return lambda rng: sentences(rng) if rng.random() < SHARE else any_fact(rng)
