"""What the engine asks of a model. Concrete backends implement these; only the engine's constructor names one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from xl3m_integrations.certainty import Measure
from xl3m_integrations.tokens import TextTokenizer
from xl3m_integrations.types import Segment

if TYPE_CHECKING:
    from xl3m_integrations.backends.kv_blocks import KVStore

Evidence = tuple[float, ...]
GROUP = 2_048  # segments that are put to each question in turn, by a scorer that reads them anew each time


class Reused(Evidence):
    """Evidence that an earlier run has left, which the model was not asked for again."""

    __slots__ = ()


class Scorer(Protocol):
    """Reads every segment with the question and says what a measure wants to know."""

    @property
    def window(self) -> int:
        """Tokens that the model reads at most."""

    @property
    def tokenizer(self) -> TextTokenizer:
        """Cuts documents into the model's tokens."""

    def evidence(
        self, segments: Iterable[Segment], question: str, measure: Measure
    ) -> Iterator[tuple[Segment, Evidence]]:
        """Each segment, in the order given, with the measure's evidence.

        Raises:
            InputError: Segment and question do not fit the window together.
            ScoringError: The model failed on a segment, which the message names.
        """

    def overhead(self, question: str) -> int:
        """Tokens of a sub-context beside the segment: template and question."""


def supported(scorer: Scorer, measure: Measure) -> Measure:
    """`measure` in the form that a scorer can compute; most can compute any.

    Raises:
        SettingError: This one cannot.
    """
    adapt: Callable[[Measure], Measure] | None = getattr(scorer, "supported", None)
    return measure if adapt is None else adapt(measure)


@runtime_checkable
class Fingerprinted(Protocol):
    """A scorer whose evidence may be kept for later runs."""

    @property
    def fingerprint(self) -> str:
        """Changes with everything but the measure, question and segment that the evidence depends on."""


@runtime_checkable
class SharingScorer(Scorer, Fingerprinted, Protocol):
    """A scorer that reads a segment once for many questions, and may keep what it computed for the segment."""

    def evidence_many(
        self,
        segments: Iterable[Segment],
        questions: Sequence[str],
        measure: Measure,
        cache: KVStore | None = None,
    ) -> Iterator[tuple[Segment, tuple[Evidence, ...]]]:
        """Each segment, in the order given, with what `evidence` gives for each question.

        Args:
            segments: The segments.
            questions: The questions, one at least.
            measure: See `evidence`.
            cache: Holds keys and values of segments from one call to the next; None keeps none.
        """


def evidence_many(
    scorer: Scorer,
    segments: Iterable[Segment],
    questions: Sequence[str],
    measure: Measure,
    cache: KVStore | None = None,
) -> Iterator[tuple[Segment, tuple[Evidence, ...]]]:
    """`SharingScorer.evidence_many` of any scorer; one that does not share reads the segments for each question."""
    if len(questions) == 1 and cache is None:
        yield from ((segment, (found,)) for segment, found in scorer.evidence(segments, questions[0], measure))
    elif isinstance(scorer, SharingScorer):
        yield from scorer.evidence_many(segments, questions, measure, cache)
    else:
        yield from one_by_one(scorer, segments, questions, measure)


def one_by_one(
    scorer: Scorer, segments: Iterable[Segment], questions: Sequence[str], measure: Measure
) -> Iterator[tuple[Segment, tuple[Evidence, ...]]]:
    """Put the questions one after the other to some segments at a time, so that no document is held whole."""
    source = iter(segments)
    while group := list(islice(source, GROUP)):
        columns = [[found for _, found in scorer.evidence(group, question, measure)] for question in questions]
        yield from zip(group, zip(*columns, strict=True), strict=True)


def evidence_each(
    scorer: Scorer, asked: Sequence[tuple[str, Sequence[Segment]]], measure: Measure
) -> list[list[Evidence]]:
    """What `Scorer.evidence` gives for each of some questions, put to segments of its own.

    A scorer that has a method of this name (without `scorer`) reads them in common batches.
    """
    if (together := getattr(scorer, "evidence_each", None)) is not None:
        found: list[list[Evidence]] = together(asked, measure)
        return found
    return in_turn(scorer, asked, measure)


def in_turn(scorer: Scorer, asked: Sequence[tuple[str, Sequence[Segment]]], measure: Measure) -> list[list[Evidence]]:
    """`evidence_each`, one question after the other."""
    return [[found for _, found in scorer.evidence(segments, question, measure)] for question, segments in asked]


class Generator(Protocol):
    """Answers a question from a context."""

    @property
    def window(self) -> int:
        """Tokens that the model reads and writes at most."""

    def count(self, context: str) -> int:
        """Length of a context in the model's tokens."""

    def overhead(self, question: str) -> int:
        """Tokens of a prompt beside the context: template and question."""

    def count_prompt(self, prompt: str) -> int:
        """Length of a whole prompt in the model's tokens."""

    def render(self, turns: Sequence[tuple[str, str]]) -> str:
        """A conversation as one prompt, ready for `complete`.

        Args:
            turns: (role, text); roles are `system`, `user`, `assistant` and `tool`. Neighbours of one role are merged.
        """

    def complete(
        self, prompt: str, *, max_new_tokens: int, stop: tuple[str, ...] = (), **options: Any
    ) -> Iterator[str]:
        """What the model writes after a prompt as it stands, in pieces. Closing the iterator stops the work."""

    def complete_many(
        self, prompts: Sequence[str], *, max_new_tokens: int, stop: tuple[str, ...] = (), **options: Any
    ) -> list[str]:
        """What `complete` would write after each prompt, from one batch where the model can."""

    def stream(
        self, context: str, question: str, *, max_new_tokens: int, stop: tuple[str, ...] = (), **options: Any
    ) -> Iterator[str]:
        """The answer in pieces, as it is written. Closing the iterator stops the work."""
