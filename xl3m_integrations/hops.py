"""Questions that need several passages: the text is read again, led by the sentence that leads to the next of them."""

from __future__ import annotations

import math
import re
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from xl3m_integrations.backends.base import Scorer
from xl3m_integrations.certainty import Measure, SentenceLook, margin
from xl3m_integrations.documents import Document
from xl3m_integrations.prefilter import Prefilter
from xl3m_integrations.scoring import ProgressCallback, Scored, score, score_many
from xl3m_integrations.segmentation import Segmenter
from xl3m_integrations.types import Segment

_EXPLAINING = 32  # segments among whose sentences the next bridge is looked for; as many that share its words
_WORD = re.compile(r"\w+")


def score_hops(
    documents: Sequence[Document],
    questions: Sequence[str],
    measure: Measure,
    hops: int,
    segmenter: Segmenter,
    scorer: Scorer,
    progress: ProgressCallback | None = None,
    prefilter: Prefilter | None = None,
) -> list[Scored]:
    """`score_many`; then each question once per further hop, led by the sentences that the hops before have found.

    What would lead on from the last hop is kept too: the end of a chain need not be what the model is surest of.
    """
    first = score_many(documents, questions, measure, segmenter, scorer, progress, prefilter)
    if hops == 1 or not documents:
        return first
    for question, scored in zip(questions, first, strict=True):
        latest, passed, lead = scored, list[int](), list[str]()
        free = scorer.window - scorer.overhead(question) - measure.needs.answer_tokens
        room = (free - segmenter.segment_tokens) // 2  # as much is left for what scorer and reader are to read
        for hop in range(1, hops + 1):
            bridge = _bridge(latest, lead, question, measure, scorer, room)
            if bridge is None:
                warnings.warn(
                    f"No sentence that could lead to hop {hop} of {hops} is short enough to stand before the question "
                    f"(with what earlier hops found, {room} tokens at most), so no further hop was made.",
                    stacklevel=6,
                )
                break
            row, sentence = bridge
            passed.append(row)
            if hop < hops:
                lead.append(sentence)
                scored.lead = _led(lead)
                latest = score(documents, scored.lead + question, measure, segmenter, scorer, progress, prefilter)
                scored.join(latest)
        scored.prefer(passed)
    return first


def _bridge(
    scored: Scored, lead: Sequence[str], question: str, measure: Measure, scorer: Scorer, room: int
) -> tuple[int, str] | None:
    """Row of a segment, and the sentence of it, that lead on.

    A question about "the keeper of the green lamp" needs the sentence that names the keeper. The model is not sure of
    anything after it, so certainty does not find it; but few sentences make "the green lamp" as likely. From there on
    it is what the last sentence told beyond the question, the keeper's name, that few others share.

    Both count in nats: how far a sentence is ahead of others in explaining the question, and how rare the words are
    that it shares with the last sentence. Where the measure does not see the question, its score stands for the first.

    Returns:
        None where no sentence and `lead` together are at most `room` tokens.
    """
    by_question = measure.needs.question
    thread = _Thread.of(scored, lead, question)
    rows = [*scored.explaining(_EXPLAINING if by_question else 1), *thread.rows[:_EXPLAINING]]
    found: dict[str, int] = {}
    for row in rows:
        for sentence in scored.sentences(row):
            found.setdefault(sentence, row)
    fresh = [sentence for sentence in found if sentence not in lead] or list(found)
    asked = _led(lead) + question
    segments = [Segment(n, 0, len(text), text, scorer.tokenizer.ids(text)) for n, text in enumerate(fresh)]
    told = scorer.overhead(asked) - scorer.overhead(question)  # tokens that stand before the question's own
    segments = [segment for segment in segments if len(segment.ids) <= room - told]
    if not segments:
        return None
    look = SentenceLook() if by_question else measure
    table = torch.tensor([seen for _, seen in scorer.evidence(segments, asked, look)], dtype=torch.float64)
    shared = torch.tensor([thread.shared(segment.text) for segment in segments], dtype=torch.float64)
    if by_question:
        # What explains the last sentence's own words may only be worded like it; where rare words are shared, they tell
        # more. Where none are, as in scripts without spaces, its words are all there is to go by.
        values = margin(table[:, 1 + (told if shared.any() else 0) :], SentenceLook().cap)
    else:
        values = look.score(table)
    values = values + shared
    best = segments[int(values.argmax())].text
    return found[best], best


@dataclass(frozen=True, slots=True)
class _Thread:
    """What a sentence tells beyond the question and the sentences before it: the words by which the text goes on.

    Attributes:
        nats: Of each of these words -ln of the share of segments that have it.
        rows: Segments with any of them, those with most nats first.
    """

    nats: dict[str, float]
    rows: list[int]

    @classmethod
    def of(cls, scored: Scored, lead: Sequence[str], question: str) -> _Thread:
        """Of the last sentence of `lead`; nothing where there is none."""
        new = _words(lead[-1]) - _words(" ".join([question, *lead[:-1]])) if lead else set()
        having = {row: own for row, text in scored.texts() if (own := _words(text) & new)} if new else {}
        count = Counter(word for own in having.values() for word in own)
        nats = {word: math.log(len(scored) / n) for word, n in count.items()}
        return cls(nats, sorted(having, key=lambda row: -sum(nats[word] for word in having[row])))

    def shared(self, text: str) -> float:
        """Nats of the words that a text shares."""
        return sum(self.nats.get(word, 0.0) for word in _words(text))


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text))


def _led(lead: Sequence[str]) -> str:
    return "".join(f"{sentence} " for sentence in lead)
