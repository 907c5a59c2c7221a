"""The demonstration behind `xl3m demo`: facts at random depths of a long generated text, asked back in one pass."""

from __future__ import annotations

import random
import resource
import sys
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from xl3m_integrations.bundled import corpus
from xl3m_integrations.bundled.corpus import Fact, Prose
from xl3m_integrations.engine import XL3M
from xl3m_integrations.errors import SettingError
from xl3m_integrations.scoring import ProgressCallback
from xl3m_integrations.types import Answer

CHARACTERS_A_TOKEN = 16  # more than any tokenizer makes of English
SAMPLE_CHARACTERS = 100_000  # on which characters per token are measured


@dataclass(frozen=True, slots=True)
class Haystack:
    """A generated text and the facts hidden in it.

    Attributes:
        text: The text.
        needles: (offset of the fact's statement in the text, the fact), in the order in which they are asked.
    """

    text: str
    needles: tuple[tuple[int, Fact], ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """One question of the demonstration.

    Attributes:
        question: The question.
        expected: The value that stands in the text.
        answer: What came back.
        correct: Whether that is the value; case, spaces and punctuation around it do not count.
        needle_found: Whether the statement, up to its value, is in the key context.
        truncated_answer: What the same model answers from the end of the text alone.
        truncated_correct: Whether that is the value.
        depth: Where in the text the fact stands, from 0 to 1.
        full: The whole answer, with spans and scores.
    """

    question: str
    expected: str
    answer: str
    correct: bool
    needle_found: bool
    truncated_answer: str
    truncated_correct: bool
    depth: float
    full: Answer


def make_haystack(xl3m: XL3M, tokens: int, questions: int, seed: int) -> Haystack:
    """A text of at least `tokens` tokens of the engine's scorer, with `questions` facts at random depths.

    Raises:
        SettingError: `tokens` or `questions` is too small.
    """
    if tokens < 1_000 or questions < 1:
        raise SettingError(
            f"tokens is {tokens} and questions {questions}; at least 1,000 tokens and 1 question are needed."
        )
    rng = random.Random(seed)
    facts: dict[tuple[str, str], Fact] = {}
    while len(facts) < questions:
        fact = corpus.DEMO_FAMILIES[len(facts) % len(corpus.DEMO_FAMILIES)](rng)
        facts[fact.family, fact.identity] = fact
    text = long_text(xl3m, rng, [(rng.random(), fact) for fact in facts.values()], tokens)
    return Haystack(text, tuple((text.index(fact.statement), fact) for fact in facts.values()))


def long_text(
    xl3m: XL3M, rng: random.Random, needles: Sequence[tuple[float, Fact]], tokens: int, prose: Prose | None = None
) -> str:
    """A text of about `tokens` tokens of the engine's scorer, and seldom less, around (depth, fact) needles.

    Args:
        xl3m: The engine.
        rng: Source of everything random.
        needles: Depths, from 0 to 1, and the facts that stand there.
        tokens: Length of the text.
        prose: Real text to use as filler; None generates it.
    """
    sample = "".join(corpus.stream_document(rng, needles, SAMPLE_CHARACTERS, prose))
    per_token = len(sample) / xl3m.scorer.tokenizer.count(sample)
    return "".join(corpus.stream_document(rng, needles, int(1.02 * tokens * per_token), prose))


def same_answer(answer: str, expected: str) -> bool:
    """Whether two answers agree but for case and the spaces and punctuation around them."""
    return answer.strip(" \n.,;:\"'<>").casefold() == expected.strip(" \n.,;:\"'<>").casefold()


def ask(xl3m: XL3M, haystack: Haystack, progress: ProgressCallback | None = None) -> list[Asked]:
    """Put the haystack's questions, through XL3M in one pass, and from the end of the text alone."""
    questions = [fact.question for _, fact in haystack.needles]
    answers = xl3m.answer_many(haystack.text, questions, progress=progress)
    return [_judged(xl3m, haystack, number, answer) for number, answer in enumerate(answers)]


def _judged(xl3m: XL3M, haystack: Haystack, number: int, answer: Answer) -> Asked:
    at, fact = haystack.needles[number]
    end = at + fact.value_at + len(fact.value)
    truncated = xl3m.answer(_end_of(xl3m, haystack.text, fact.question), fact.question).text
    return Asked(
        question=fact.question,
        expected=fact.value,
        answer=answer.text,
        correct=same_answer(answer.text, fact.value),
        needle_found=any(start <= at and end <= stop for start, stop in answer.key_context.spans),
        truncated_answer=truncated,
        truncated_correct=same_answer(truncated, fact.value),
        depth=at / len(haystack.text),
        full=answer,
    )


def _end_of(xl3m: XL3M, text: str, question: str) -> str:
    """The longest end of `text` that the reader can read with the question."""
    assert xl3m.reader is not None
    room = xl3m.reader.window - xl3m.max_new_tokens - xl3m.reader.overhead(question)
    return longest_end(text, room, xl3m.reader.count)


def longest_end(text: str, room: int, count: Callable[[str], int]) -> str:
    """The longest end of `text` that starts after a space and has at most `room` tokens by `count`."""
    low = max(0, len(text) - CHARACTERS_A_TOKEN * room)
    starts = [at for at in range(low, len(text)) if at == 0 or text[at - 1] == " "]
    first = bisect_left(starts, True, key=lambda start: count(text[start:]) <= room)
    return text[starts[first] :] if first < len(starts) else ""


def peak_rss_mb() -> float:
    """The process's peak resident memory in megabytes (10^6 bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e6
