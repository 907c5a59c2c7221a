"""What a task is, and what tasks draw."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

from xl3m_integrations.bundled import words as w
from xl3m_integrations.bundled.corpus import Rng
from xl3m_integrations.errors import SettingError
from xl3m_integrations.evaluation.documents import Material, Planted
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


@runtime_checkable
class SharedTask(Task, Protocol):
    """A task that asks several questions of each document, so that long ones are made, and embedded, only once.

    Attributes:
        questions: How many of its examples, one after the other, are of one document.
    """

    questions: int

    def make_all(self, material: Material, rng: Rng, tokens: int) -> list[Example]:
        """All examples of one document; see `Task.make`."""


def example_of(task: Task, material: Material, tokens: int, number: int, seed: int) -> Example:
    """Example `number` of a task at a length: the same whatever else is run, at depths that cover the document evenly.

    Raises:
        SettingError: The length is below two segments of the engine.
    """
    least = 2 * material.xl3m.segmenter.segment_tokens
    if tokens < least:
        raise SettingError(f"A length is {tokens} tokens; it must be at least {least}, two of the engine's segments.")
    if isinstance(task, SharedTask):
        document, own = divmod(number, task.questions)
        rng = random.Random(f"{seed} {task.name} {tokens} {document}")
        return replace(task.make_all(material, rng, tokens)[own], task=task.name, length=tokens, number=number)
    rng = random.Random(f"{seed} {task.name} {tokens} {number}")
    shift = random.Random(f"{seed} {task.name} {tokens}").random()
    example = task.make(material, rng, tokens, (shift + number * 0.6180339887) % 1)  # golden-ratio steps leave no gaps
    return replace(example, task=task.name, length=tokens, number=number)


def made(question: str, answers: Sequence[str], planted: Planted, *, needs_all: bool = False) -> Example:
    """An example of a document in which everything planted is gold; whose task it is, `example_of` says."""
    return Example("", planted.text, question, tuple(answers), planted.gold, planted.facts, needs_all=needs_all)


def distinct(draw: Draw, rng: Rng, count: int) -> list[str]:
    """`count` different draws."""
    drawn: dict[str, None] = {}
    while len(drawn) < count:
        drawn[draw(rng)] = None
    return list(drawn)


def depths_from(rng: Rng, first: float, count: int) -> list[float]:
    """`first`, and as many more at random as make `count`."""
    return [first, *(rng.random() for _ in range(count - 1))]


def adjective_noun(rng: Rng) -> str:
    """A key of two words."""
    return f"{rng.choice(w.ADJECTIVES)}-{rng.choice(w.NOUNS)}"


def seven_digits(rng: Rng) -> str:
    """A number as RULER draws it."""
    return str(rng.randrange(1_000_000, 10_000_000))


def full_name(rng: Rng) -> str:
    """A first and a last name."""
    return f"{rng.choice(w.FIRST_NAMES)} {rng.choice(w.LAST_NAMES)}"
