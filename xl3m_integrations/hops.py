"""Questions that need several passages: the text is read again, led by the sentence that leads to the next of them."""

from __future__ import annotations

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
        for _ in range(hops - 1):
            row, sentence = _bridge(latest, scored.lead, question, measure, scorer)
            passed.append(row)
            scored.lead += sentence + " "
            latest = score(documents, scored.lead + question, measure, segmenter, scorer, progress, prefilter)
            scored.join(latest)
        passed.append(_bridge(latest, scored.lead, question, measure, scorer)[0])
        scored.prefer(passed)
    return first


def _bridge(scored: Scored, lead: str, question: str, measure: Measure, scorer: Scorer) -> tuple[int, str]:
    """Row of a segment, and the sentence of it, that explain what few others do of the question.

    A question about "the keeper of the green lamp" needs the sentence that names the keeper. The model is not sure of
    anything after it, so certainty does not find it; but few sentences make "the green lamp" as likely. Where the
    measure does not see the question, it is the most certain sentence of the best segment.
    """
    by_question = measure.needs.question
    found: dict[str, int] = {}
    for row in scored.explaining(_EXPLAINING if by_question else 1):
        for sentence in scored.sentences(row):
            found.setdefault(sentence, row)
    fresh = [sentence for sentence in found if sentence not in lead] or list(found)
    segments = [Segment(n, 0, len(text), text, scorer.tokenizer.ids(text)) for n, text in enumerate(fresh)]
    room = scorer.window - scorer.overhead(lead + question)
    segments = [segment for segment in segments if len(segment.ids) <= room] or segments
    look = SentenceLook() if by_question else measure
    evidence = [seen for _, seen in scorer.evidence(segments, lead + question, look)]
    table = torch.tensor(evidence, dtype=torch.float64)
    values = look.margin(table) if isinstance(look, SentenceLook) else look.score(table)
    best = segments[int(values.argmax())].text
    return found[best], best
