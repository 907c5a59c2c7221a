"""Facts woven into filler: documents of any length whose questions each have one answer."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from xl3m_integrations.bundled import words as w
from xl3m_integrations.bundled.corpus.facts import Fact
from xl3m_integrations.bundled.corpus.families import any_fact
from xl3m_integrations.bundled.corpus.values import Rng, first_upper


@dataclass(frozen=True, slots=True)
class Planted:
    """A fact and the character offsets in its document at which its statements begin."""

    fact: Fact
    starts: tuple[int, ...]

    @property
    def start(self) -> int:
        """Offset of the statement that holds the value."""
        return self.starts[self.fact.statements.index(self.fact.statement)]

    @property
    def end(self) -> int:
        """Offset of the first character after the statement."""
        return self.start + len(self.fact.statement)


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
    return first_upper(rng.choice(_FILLER)(rng)) + "."


class Prose:
    """Real text to hide facts in, read from any number of books."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = [" ".join(text.split()) for text in texts if text.strip()]
        self._ends: list[int] = []
        for text in self._texts:
            self._ends.append((self._ends[-1] if self._ends else 0) + len(text))

    def passage(self, rng: Rng, characters: int) -> list[str]:
        """About `characters` characters of one book, as a list of sentences."""
        passage = self._from(rng, characters + 120)
        start = passage.find(". ", 0, 200)
        return _sentences(passage[start + 2 if start >= 0 else 0 :])

    def words(self, rng: Rng, most: int = 1, letters: int = 2) -> list[str]:
        """One to `most` words that stand near each other, of `letters` letters at least."""
        while True:
            # The first and the last may be cut.
            found = [word for word in self._from(rng, 30 * (most + 2)).split()[1:-1] if _WORD.fullmatch(word)]
            found = [word for word in found if len(word) >= letters][: rng.randint(1, most)]
            if found:
                return found

    def _from(self, rng: Rng, characters: int) -> str:
        at = rng.randrange(self._ends[-1])
        book = bisect_right(self._ends, at)
        offset = at - (self._ends[book] - len(self._texts[book]))
        return self._texts[book][offset : offset + characters]


_WORD = re.compile(r"[A-Za-z]+")


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


def unambiguous(
    rng: Rng, facts: Sequence[Fact], extra: int, near: float = 0.7, draw: Callable[[Rng], Fact] = any_fact
) -> list[Fact]:
    """`facts` and `extra` more, a share `near` of them look-alikes, no two with one identity; shuffled."""
    kept = {(fact.family, fact.identity): fact for fact in facts}
    while extra > 0:
        fact = rng.choice(list(kept.values())).like(rng) if kept and rng.random() < near else draw(rng)
        if (fact.family, fact.identity) not in kept:
            kept[fact.family, fact.identity] = fact
            extra -= 1
    shuffled = list(kept.values())
    rng.shuffle(shuffled)
    return shuffled


class _Woven:
    """A text that grows by sentences, and by lines that stand alone."""

    def __init__(self, rng: Rng, paragraph: float) -> None:
        self.text = ""
        self._rng, self._paragraph = rng, paragraph

    def put(self, text: str, line: bool) -> int:
        """Add a sentence, or a line; gives the offset at which it begins."""
        self.text += self._gap(line)
        start = len(self.text)
        self.text += text + "\n" * line
        return start

    def _gap(self, line: bool) -> str:
        if not self.text or self.text.endswith("\n"):
            return ""
        if line:
            return "\n"
        return " " if self._rng.random() > self._paragraph else "\n\n"


def weave(
    rng: Rng, sentences: Sequence[str], facts: Sequence[Fact], paragraph: float = 0.15
) -> tuple[str, list[Planted]]:
    """Put each statement between two sentences chosen at random, those of one fact in order; note where they landed."""
    waiting = [fact for fact in facts for _ in fact.statements]
    if len(waiting) > len(facts):
        rng.shuffle(waiting)
    slots = sorted(rng.randrange(len(sentences) + 1) for _ in waiting)
    woven = _Woven(rng, paragraph)
    starts: dict[int, list[int]] = {id(fact): [] for fact in facts}
    used = 0
    for at in range(len(sentences) + 1):
        while used < len(slots) and slots[used] == at:
            fact = waiting[used]
            found = starts[id(fact)]
            found.append(woven.put(fact.statements[len(found)], fact.line))
            used += 1
        if at < len(sentences):
            woven.put(sentences[at], line=False)
    return woven.text, [Planted(fact, tuple(starts[id(fact)])) for fact in facts]


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
