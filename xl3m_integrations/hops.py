"""Questions that need several passages: the text is read again, led by the sentence that leads to the next of them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch

from xl3m_integrations.backends.base import Scorer
from xl3m_integrations.certainty import Measure, SentenceLook
from xl3m_integrations.documents import Document
from xl3m_integrations.prefilter import Prefilter
from xl3m_integrations.scoring import ProgressCallback, Scored, score, score_many
from xl3m_integrations.segmentation import Segmenter
from xl3m_integrations.types import Segment

_EXPLAINING = 32  # segments among whose sentences the next bridge is looked for


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
        latest, passed = scored, list[int]()
        free = scorer.window - scorer.overhead(question) - measure.needs.answer_tokens
        room = (free - segmenter.segment_tokens) // 2  # as much is left for what scorer and reader are to read
        for hop in range(1, hops + 1):
            bridge = _bridge(latest, scored.lead, question, measure, scorer, room)
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
                scored.lead += sentence + " "
                latest = score(documents, scored.lead + question, measure, segmenter, scorer, progress, prefilter)
                scored.join(latest)
        scored.prefer(passed)
    return first


def _bridge(
    scored: Scored, lead: str, question: str, measure: Measure, scorer: Scorer, room: int
) -> tuple[int, str] | None:
    """Row of a segment, and the sentence of it, that explain what few others do of the question.

    A question about "the keeper of the green lamp" needs the sentence that names the keeper. The model is not sure of
    anything after it, so certainty does not find it; but few sentences make "the green lamp" as likely. Where the
    measure does not see the question, it is the most certain sentence of the best segment.

    Returns:
        None where no sentence and `lead` together are at most `room` tokens.
    """
    by_question = measure.needs.question
    found: dict[str, int] = {}
    for row in scored.explaining(_EXPLAINING if by_question else 1):
        for sentence in scored.sentences(row):
            found.setdefault(sentence, row)
    fresh = [sentence for sentence in found if sentence not in lead] or list(found)
    segments = [Segment(n, 0, len(text), text, scorer.tokenizer.ids(text)) for n, text in enumerate(fresh)]
    left = room - (scorer.overhead(lead + question) - scorer.overhead(question))
    segments = [segment for segment in segments if len(segment.ids) <= left]
    if not segments:
        return None
    look = SentenceLook() if by_question else measure
    evidence = [seen for _, seen in scorer.evidence(segments, lead + question, look)]
    table = torch.tensor(evidence, dtype=torch.float64)
    values = look.margin(table) if isinstance(look, SentenceLook) else look.score(table)
    best = segments[int(values.argmax())].text
    return found[best], best
