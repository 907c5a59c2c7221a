"""Measures of certainty: pure functions from log-probabilities to scores. All figures are in nats.

A measure works in two steps. `evidence` looks at one batch of sub-contexts and keeps a few numbers per segment, next to
the model, so that nothing of the size of the vocabulary is kept or sent. `score` turns the numbers of all segments into
one score each; higher is more certain.

To add a measure: write a class like those below and add it to `MEASURES`. One that has an attribute `second`, itself a
`SecondLook`, has its best segments read once more; one that has a number `lexical` has so much of BM25's score added.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from xl3m_integrations.errors import SettingError
from xl3m_integrations.types import Certainty

# LongLLMLingua, arXiv 2310.06839, section 4.1: appended to the question, it ties the question to the document.
RESTRICTIVE_SENTENCE = "We can get the answer to this question in the given documents."


@dataclass(frozen=True, slots=True)
class Needs:
    """What a backend must compute for a measure beside the next-token distribution.

    Attributes:
        question: Log-probabilities of the question's tokens after the segment.
        baseline: The same without any segment.
        answer_tokens: How many greedy answer tokens to take after the sub-context.
        all_layers: Read with the whole model, also where the backend leaves it early for other measures.
    """

    question: bool = False
    baseline: bool = False
    answer_tokens: int = 0
    all_layers: bool = False


@dataclass(frozen=True, slots=True)
class Observation:
    """What the model said about a batch of B sub-contexts, in float32 log-probabilities.

    Attributes:
        next: [B, V], the distribution of the token after the sub-context.
        question: [B, Q], of each question token given all before it; None where not needed.
        baseline: [Q], the same with no segment; None where not needed.
        answer: [B, n, V], the distributions along the greedy answer; None where not needed.
        answered: [B, n], false for steps after the answer's end; None where not needed.
    """

    next: Tensor
    question: Tensor | None = None
    baseline: Tensor | None = None
    answer: Tensor | None = None
    answered: Tensor | None = None


class Measure(Protocol):
    """A way to turn what the model said into one score per segment."""

    @property
    def name(self) -> str:
        """The name it is asked for by."""

    @property
    def needs(self) -> Needs:
        """What the backend must compute."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the evidence's columns; none where their number depends on the question."""

    def asks(self, question: str) -> str:
        """The question as the sub-context shows it."""

    def evidence(self, seen: Observation) -> Tensor:
        """[B, len(columns)] numbers in nats from one batch."""

    def score(self, evidence: Tensor) -> Tensor:
        """[N] scores from the [N, len(columns)] evidence of all segments; higher is more certain."""


# ---------------------------------------------------------------------------------------------- the mathematics
def entropy_of(log_probs: Tensor) -> Tensor:
    """Shannon entropy over the last axis, in nats; tokens of probability zero count nothing.

    `[..., V] -> [...]`. XL3M, arXiv 2405.17755, section 3: the certainty of a sub-context.
    """
    return -(log_probs.exp() * log_probs.clamp(min=torch.finfo(log_probs.dtype).min)).sum(-1)


def mean_nll(log_probs: Tensor) -> Tensor:
    """Mean negative log-likelihood over the last axis. `[..., Q] -> [...]`; 0 where Q is 0."""
    return -log_probs.sum(-1) / max(1, log_probs.shape[-1])


def clipped_gain(log_probs: Tensor, baseline: Tensor) -> Tensor:
    """What the segment adds to the question's likelihood: mean over its tokens of max(0, gain), in nats.

    Args:
        log_probs: [B, Q], with the segment.
        baseline: [Q], without it.

    Returns:
        [B]. Clipped token by token, since a segment that makes one word unlikelier says nothing about relevance.
    """
    return (log_probs - baseline).clamp(min=0).sum(-1) / max(1, log_probs.shape[-1])


def standardised(values: Tensor) -> Tensor:
    """Z over the first axis: mean 0, standard deviation 1; all zeros where the values differ by rounding at most."""
    mean = values.mean(0)
    centred = values - mean
    deviation = centred.square().mean(0).sqrt()
    rounding = (1e-6 * mean.abs()).clamp(min=1e-12)  # of evidence in float32
    return torch.where(deviation > rounding, centred / deviation.clamp(min=1e-12), torch.zeros_like(centred))


def regret(log_probs: Tensor, cap: float) -> Tensor:
    """What others explain better: mean shortfall from the best of them over the question's tokens, in nats.

    Args:
        log_probs: [B, Q], of the question's tokens after each of B segments or sentences.
        cap: Most that one token can count, in nats.

    Returns:
        [B]. A look-alike explains all of the question but the word that tells it from the right one, where it falls
        short of that; what explains every word as well as any other has none.
    """
    return (log_probs.amax(0) - log_probs).clamp(max=cap).sum(-1) / max(1, log_probs.shape[-1])


def margin(log_probs: Tensor, cap: float, few: int = 5) -> Tensor:
    """What few others explain as well: lead over the `few`-th best, summed over the question's tokens, in nats.

    Args:
        log_probs: [B, Q], of the question's tokens after each of B segments or sentences.
        cap: Most that one token can count, in nats.
        few: The best so many explain a token, the others do not; of fewer all but the last.

    Returns:
        [B]. Against `regret`, a token that nearly all of them explain, and that nearly none does, counts nothing.
    """
    others = log_probs.topk(min(few, len(log_probs)), dim=0).values[-1]
    return (log_probs - others).clamp(min=0, max=cap).sum(-1)


def _present(tensor: Tensor | None, what: str) -> Tensor:
    if tensor is None:
        raise SettingError(f"The measure needs {what}, which the backend did not compute; declare it in `needs`.")
    return tensor


def mean_answer_entropy(seen: Observation) -> Tensor:
    """[B] entropies of the greedy answer's distributions, averaged up to its end."""
    answered = _present(seen.answered, "the greedy answer").float()
    entropies = entropy_of(_present(seen.answer, "the greedy answer")) * answered
    return entropies.sum(1) / answered.sum(1).clamp(min=1)


# ---------------------------------------------------------------------------------------------- the measures
@dataclass(frozen=True, slots=True)
class _PlainQuestion:
    def asks(self, question: str) -> str:
        """The question as it is."""
        return question


@dataclass(frozen=True, slots=True)
class Entropy(_PlainQuestion):
    """The paper's measure: entropy of the next token after segment + question. The score is its negative."""

    name: ClassVar[str] = "entropy"
    needs: ClassVar[Needs] = Needs()
    columns: ClassVar[tuple[str, ...]] = ("entropy",)

    def evidence(self, seen: Observation) -> Tensor:
        """[B, 1] entropies."""
        return entropy_of(seen.next)[:, None]

    def score(self, evidence: Tensor) -> Tensor:
        """Minus the entropy."""
        return -evidence[:, 0]


@dataclass(frozen=True, slots=True)
class TruncatedEntropy(_PlainQuestion):
    """`Entropy` from the k most probable tokens alone, which is what a server tells.

    With p_1 ≥ … ≥ p_k and the uncovered mass r = 1 - (p_1 + … + p_k), the entropy is H = -Σ p_i ln p_i + T. No token of
    the tail is more probable than q = min(p_k, r), hence -r ln q ≤ T; it is greatest where all V - k tokens are equally
    probable, hence T ≤ r ln((V - k) / r). The evidence takes the lower bound, T = -r ln q: it needs no V, and where the
    model is certain, r vanishes and the bounds meet.
    """

    name: ClassVar[str] = "entropy"
    needs: ClassVar[Needs] = Needs()
    columns: ClassVar[tuple[str, ...]] = ("entropy", "covered_mass")
    exact: ClassVar[bool] = False

    def evidence(self, seen: Observation) -> Tensor:
        """[B, 2]: entropy, covered mass, of the [B, k] log-probabilities of the most probable tokens."""
        mass = seen.next.exp()
        covered = mass.sum(-1).clamp(max=1.0)
        rest = 1.0 - covered
        likeliest = torch.minimum(mass.amin(-1), rest).clamp(min=torch.finfo(mass.dtype).tiny)
        return torch.stack([entropy_of(seen.next) - rest * likeliest.log(), covered], dim=1)

    def score(self, evidence: Tensor) -> Tensor:
        """Minus the entropy."""
        return -evidence[:, 0]


@dataclass(frozen=True, slots=True)
class QuestionLikelihood:
    """LongLLMLingua's measure: mean log-likelihood of the question given the segment (arXiv 2310.06839, eq. 2).

    Attributes:
        restrictive: Sentence that follows the question and counts with it; None for the bare question.
    """

    restrictive: str | None = None
    name: ClassVar[str] = "question_likelihood"
    needs: ClassVar[Needs] = Needs(question=True)
    columns: ClassVar[tuple[str, ...]] = ("question_nll",)

    def asks(self, question: str) -> str:
        """The question, followed by the restrictive sentence where there is one."""
        return question if self.restrictive is None else f"{question} {self.restrictive}"

    def evidence(self, seen: Observation) -> Tensor:
        """[B, 1] mean negative log-likelihoods."""
        return mean_nll(_present(seen.question, "the question's log-probabilities"))[:, None]

    def score(self, evidence: Tensor) -> Tensor:
        """Minus the mean negative log-likelihood."""
        return -evidence[:, 0]


@dataclass(frozen=True, slots=True)
class AnswerEntropy(_PlainQuestion):
    """Mean entropy along the first greedy answer tokens, up to the answer's end.

    Attributes:
        answer_tokens: How many tokens to look at, at most.
    """

    answer_tokens: int = 4
    name: ClassVar[str] = "answer_entropy"
    columns: ClassVar[tuple[str, ...]] = ("answer_entropy",)

    def __post_init__(self) -> None:
        """Refuse a length below 1."""
        if self.answer_tokens < 1:
            raise SettingError(f"answer_tokens is {self.answer_tokens}; it must be at least 1.")

    @property
    def needs(self) -> Needs:
        """The greedy answer's distributions."""
        return Needs(answer_tokens=self.answer_tokens)

    def evidence(self, seen: Observation) -> Tensor:
        """[B, 1] mean entropies."""
        return mean_answer_entropy(seen)[:, None]

    def score(self, evidence: Tensor) -> Tensor:
        """Minus the mean entropy."""
        return -evidence[:, 0]


# Fitted by logistic regression on the bundled model's answers, half of them to questions that the text does not answer.
DOUBT_OF_REGRET = 0.5  # share of the regret that adds to the answer's entropy
EVEN_DOUBT = 0.69  # nats at which the probability is one half
DOUBT_SCALE = 0.19  # nats


@dataclass(frozen=True, slots=True)
class SentenceLook(_PlainQuestion):
    """What a sentence says by itself, with nothing around it that could be mistaken for a part of it.

    A segment that tells the `colour of the gate` and the `height of the tower` leaves little doubt about the height of
    the gate; neither of its sentences does.

    Attributes:
        cap: Most that one token of the question counts in the regret, in nats.
        entropy_share: Share of the entropy that adds to the regret.
    """

    cap: float = 8.0
    entropy_share: float = 0.25
    name: ClassVar[str] = "sentence_look"
    needs: ClassVar[Needs] = Needs(question=True, all_layers=True)
    columns: ClassVar[tuple[str, ...]] = ()  # entropy, then one per token of the question

    def evidence(self, seen: Observation) -> Tensor:
        """[B, 1 + Q]: entropy, then the question's log-probabilities."""
        return torch.cat(
            [entropy_of(seen.next)[:, None], _present(seen.question, "the question's log-probabilities")], 1
        )

    def score(self, evidence: Tensor) -> Tensor:
        """Minus the doubt."""
        return -self.doubt(evidence)

    def regret(self, evidence: Tensor) -> Tensor:
        """[B], in nats, beside the other sentences; see the function of this name."""
        return regret(evidence[:, 1:], self.cap)

    def doubt(self, evidence: Tensor) -> Tensor:
        """[B], in nats: the regret and a share of the entropy."""
        return self.regret(evidence) + self.entropy_share * evidence[:, 0].clamp(max=self.cap)


@dataclass(frozen=True, slots=True)
class SecondLook(_PlainQuestion):
    """Reads each sentence of the best segments by itself, and the best of these once more, up to the answer's end.

    Attributes:
        segments: Of how many of the best segments the sentences are read, at least.
        within: The same of all that are at most so many standard deviations of all segments' scores behind the best.
            Mostly the best is far ahead; where many are as certain, most of them are confidently wrong.
        most: The same, at most.
        sentences: How the sentences are looked at.
        most_sentences: Sentences of one segment, at most; where there are more, neighbours are read together.
        sentence_weight: Weight of the sentences in the score, where that of the first look and of the answer is 1.
        answers: How many of these segments are then read up to the answer's end: the best by now.
        answer_tokens: How many tokens of the greedy answer to look at, at most.
    """

    segments: int = 8
    within: float = 2.0
    most: int = 32
    sentences: SentenceLook = SentenceLook()
    most_sentences: int = 16
    sentence_weight: float = 2.0
    answers: int = 8
    answer_tokens: int = 12
    name: ClassVar[str] = "second_look"
    columns: ClassVar[tuple[str, ...]] = ("answer_entropy",)

    @property
    def needs(self) -> Needs:
        """The greedy answer, from the whole model: there are few segments to read."""
        return Needs(answer_tokens=self.answer_tokens, all_layers=True)

    def reads(self, scores: Tensor) -> int:
        """How many of the best segments are looked at again, by the [N] scores of all."""
        z = standardised(scores)
        near = int((z >= z.max() - self.within).sum()) if len(z) else 0
        return min(self.most, max(self.segments, near))

    def evidence(self, seen: Observation) -> Tensor:
        """[B, 1]: the answer's mean entropy."""
        return mean_answer_entropy(seen)[:, None]

    def score(self, evidence: Tensor) -> Tensor:
        """Minus the answer's mean entropy."""
        return -evidence[:, 0]

    def by_sentence(self, first: Tensor, doubt: Tensor) -> Tensor:
        """[N] scores by now: weighted mean of z(first look) and z(-doubt of each segment's best sentence)."""
        return (standardised(first) + self.sentence_weight * standardised(-doubt)) / (1 + self.sentence_weight)

    def combined(self, first: Tensor, doubt: Tensor, evidence: Tensor) -> Tensor:
        """[N] final scores: weighted mean of the same two and z(answer's certainty)."""
        by_sentence = (1 + self.sentence_weight) * self.by_sentence(first, doubt)
        return (by_sentence + standardised(self.score(evidence))) / (2 + self.sentence_weight)

    def certainty(self, answer_entropy: float, regret: float) -> Certainty:
        """How certain it is that a segment holds the answer, from its entropy and the best sentence's regret."""
        doubt = answer_entropy + DOUBT_OF_REGRET * regret
        return Certainty(nats=doubt, probability=1 / (1 + math.exp((doubt - EVEN_DOUBT) / DOUBT_SCALE)))


@dataclass(frozen=True, slots=True)
class Blend(_PlainQuestion):
    """The default: z(certainty) + z(clipped gain of the question's likelihood) from one pass, then a second look.

    Among thousands of segments some are confidently wrong: they hold a look-alike of what is asked. Those rarely make
    the question itself likelier, which is what the second term sees. z is taken over the document's segments.

    Attributes:
        gain_weight: Weight of the second term.
        second: How the best segments are looked at again; None leaves it at one look.
    """

    gain_weight: float = 1.0
    second: SecondLook | None = SecondLook()
    name: ClassVar[str] = "blend"
    needs: ClassVar[Needs] = Needs(question=True, baseline=True)
    columns: ClassVar[tuple[str, ...]] = ("entropy", "gain")

    def evidence(self, seen: Observation) -> Tensor:
        """[B, 2]: entropy, clipped gain."""
        question = _present(seen.question, "the question's log-probabilities")
        baseline = _present(seen.baseline, "the question's log-probabilities without a segment")
        return torch.stack([entropy_of(seen.next), clipped_gain(question, baseline)], dim=1)

    def score(self, evidence: Tensor) -> Tensor:
        """Sum of the two, standardised over the document."""
        z = standardised(evidence)
        return -z[:, 0] + self.gain_weight * z[:, 1]


@dataclass(frozen=True, slots=True)
class Hybrid(Blend):
    """`Blend` with BM25 beside it: z(first look) + weight x z(BM25), then the second look. Needs the extra `bm25`.

    The words that a question shares with a segment find what a small model does not understand, and lead astray where
    the passage says it in other words.

    Attributes:
        lexical: Weight of BM25's scores, standardised over the document's segments.
    """

    lexical: float = 0.5
    name: ClassVar[str] = "hybrid"


MEASURES: dict[str, Measure] = {
    measure.name: measure for measure in (Blend(), Hybrid(), Entropy(), QuestionLikelihood(), AnswerEntropy())
}
DEFAULT_MEASURE = "blend"


def get_measure(measure: str | Measure | None) -> Measure:
    """The measure of that name; a measure object is returned as it is, None gives the default.

    Raises:
        SettingError: No measure has that name.
    """
    if measure is None:
        return MEASURES[DEFAULT_MEASURE]
    if not isinstance(measure, str):
        missing = [
            name for name in ("name", "needs", "columns", "asks", "evidence", "score") if not hasattr(measure, name)
        ]
        if missing:
            raise SettingError(f"The measure {measure!r} has no {', '.join(missing)}; see the protocol Measure.")
        return measure
    if measure not in MEASURES:
        known: Sequence[str] = sorted(MEASURES)
        raise SettingError(f"Unknown measure {measure!r}; choose one of {', '.join(known)}, or pass a measure object.")
    return MEASURES[measure]
