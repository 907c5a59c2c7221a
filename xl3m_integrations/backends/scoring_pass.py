"""Questions put to segments: batches, logits where they are needed, and what to do when the model fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer

from xl3m_integrations.backends.base import Evidence
from xl3m_integrations.backends.batching import packed, tiled
from xl3m_integrations.certainty import Measure, Needs, Observation
from xl3m_integrations.errors import InputError, ScoringError, SettingError, XL3MError
from xl3m_integrations.prompts import QuestionPrompt
from xl3m_integrations.tokens import TextTokenizer
from xl3m_integrations.types import Segment

T = TypeVar("T")

LOGIT_BYTES = 256 << 20  # float32 logits of one batch, at most
CACHED_BYTES = 2 << 20  # float32 log-probabilities that a CPU turns to at a time
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "failed to allocate")


class LocalModel(Protocol):
    """What a pass needs of a model in this process.

    Attributes:
        window: Tokens that it reads at most.
        batch_tokens: Tokens of one forward pass, at most.
        tile: Rows are read fastest where they have a multiple of so many tokens.
        vocabulary: Numbers in the logits of a position.
        device: Where it is.
        tokenizer: Its tokenizer.
    """

    window: int
    batch_tokens: int
    tile: int
    vocabulary: int
    device: torch.device
    tokenizer: TextTokenizer

    def logits(self, ids: Tensor, keep: Tensor | int, **cache: Any) -> Any:
        """What the model gives for rows of ids [B, T], logits at the kept positions; see `TransformersBackend`."""


class ScoringPass:
    """Questions put to segments, each to its own.

    Args:
        backend: The model.
        prompts: The questions.
        measure: What to note of each sub-context.
    """

    def __init__(self, backend: LocalModel, prompts: Sequence[QuestionPrompt], measure: Measure) -> None:
        self._backend = backend
        self._prompts = prompts
        self._measure = measure
        self._needs: Needs = measure.needs
        self._batch_tokens = backend.batch_tokens
        self._sees_question = self._needs.question or self._needs.baseline
        # Logits are needed from the position before a question's first token to the last position.
        self.backs = [len(prompt.after) - prompt.question.start if self._sees_question else 0 for prompt in prompts]
        self._max_rows = max(1, LOGIT_BYTES // (4 * backend.vocabulary * (1 + max(self.backs))))
        self._baselines: dict[int, Tensor] = {}  # computed once it is known that the question fits the window

    def evidence(self, segments: Sequence[Segment], numbers: Sequence[int] | None = None) -> list[Evidence]:
        """Evidence of each segment, in order.

        Args:
            segments: The segments.
            numbers: Of each segment, the number of its question; None puts the first question to all.
        """
        numbers = [0] * len(segments) if numbers is None else numbers
        longest: dict[int, int] = {}
        for segment, number in zip(segments, numbers, strict=True):
            longest[number] = max(longest.get(number, 0), len(segment.ids))
        for number, tokens in longest.items():
            self.prepare(number, tokens)
        lengths = [
            len(segment.ids) + self._prompts[number].overhead for segment, number in zip(segments, numbers, strict=True)
        ]
        found: list[Evidence] = [()] * len(segments)
        exact = self._needs.answer_tokens > 0
        batch = partial(self._batch, segments, numbers)
        for rows in packed(lengths, self._batch_tokens, max_rows=self._max_rows, exact=exact):
            for row, evidence in zip(rows, in_halves(batch, rows, segments, self._relieve), strict=True):
                found[row] = evidence
        return found

    def prepare(self, number: int, longest: int) -> None:
        """Make a question ready for segments of up to `longest` tokens.

        Raises:
            InputError: Such a segment and the question do not fit the window together.
        """
        self._require_fit(self._prompts[number].overhead, longest)
        if self._needs.baseline and number not in self._baselines:
            self._baselines[number] = self._question_without_segment(number)

    def _relieve(self) -> None:
        self._batch_tokens = max(1, self._batch_tokens // 2)

    def _require_fit(self, overhead: int, longest: int) -> None:
        if overhead + longest > self._backend.window - self._needs.answer_tokens:
            raise InputError(
                f"The question takes {overhead} tokens with its template, and a segment up to {longest}: "
                f"{overhead + longest} together, but the model's window is {self._backend.window} tokens. Shorten the "
                "question, or lower segment_tokens."
            )

    def _batch(self, segments: Sequence[Segment], numbers: Sequence[int], rows: list[int]) -> list[Evidence]:
        """Evidence of some of the segments, read together."""
        output, logits = self._read([(segments[row].ids, numbers[row]) for row in rows])
        following = logits[:, -1].log_softmax(-1, dtype=torch.float32)
        answer = self.answer(output, following)
        found: dict[int, Evidence] = {}
        for number in dict.fromkeys(numbers[row] for row in rows):
            own = [place for place, row in enumerate(rows) if numbers[row] == number]
            some = slice(None) if len(own) == len(rows) else torch.tensor(own, device=logits.device)
            [asked] = self.asked(logits[some], [(number, range(logits.shape[1])[-1 - self.backs[number] :])])
            evidence = self.evidence_of(
                number,
                [segments[rows[place]] for place in own],
                following[some],
                asked,
                None if answer is None else (answer[0][some], answer[1][some]),
            )
            found |= zip(own, evidence, strict=True)
        return [found[place] for place in range(len(rows))]

    def evidence_of(
        self,
        number: int,
        segments: Sequence[Segment],
        following: Tensor,
        question: Tensor | None,
        answer: tuple[Tensor, Tensor] | None,
    ) -> list[Evidence]:
        """Evidence of each segment from what the model predicts.

        Args:
            number: Of the question.
            segments: B segments.
            following: [B, V] log-probabilities of the token after the sub-context.
            question: See `asked`.
            answer: See `answer`.

        Raises:
            ScoringError: They are not numbers.
        """
        broken = following.isnan().any(1)
        if broken.any():
            segment = segments[int(broken.nonzero()[0, 0])]
            raise ScoringError(
                f"The model's logits are not numbers (NaN) after {_name(segment)}; load the model with "
                "dtype='float32' (float16 overflows in some models), or check its weights."
            )
        seen = Observation(
            next=following,
            question=question,
            baseline=self._baselines.get(number),
            answer=None if answer is None else answer[0],
            answered=None if answer is None else answer[1],
        )
        evidence = self._measure.evidence(seen)
        columns = self._measure.columns
        if evidence.dim() != 2 or len(evidence) != len(segments) or (columns and evidence.shape[1] != len(columns)):
            raise SettingError(
                f"The measure {self._measure.name!r} gave evidence of shape {list(evidence.shape)} for {len(segments)} "
                f"segments; it must be [{len(segments)}, {len(columns) or 'any'}], a number for each of its columns."
            )
        return [tuple(row) for row in evidence.tolist()]

    def _read(self, rows: Sequence[tuple[Sequence[int], int]]) -> tuple[Any, Tensor]:
        """The model's output on B sub-contexts, each of a segment's ids and a question's number.

        With it the [B, N, V] logits at each row's last positions, as many as the question of most tokens needs.
        """
        device = self._backend.device
        asked = [(self._prompts[number], ids) for ids, number in rows]
        whole = [[*prompt.before, *ids, *prompt.after] for prompt, ids in asked]
        lengths = torch.tensor([len(row) for row in whole])
        longest, shortest = int(lengths.max()), int(lengths.min())
        back = max(self.backs[number] for _, number in rows)
        first = max(0, shortest - 1 - back)
        # What continues from here continues from the row's end.
        tile = 1 if self._needs.answer_tokens else self._backend.tile
        padded = tiled(longest, tile, self._backend.window)
        keep = 1 + back if padded == shortest else torch.arange(first, longest, device=device)
        ids = torch.tensor([row + [0] * (padded - len(row)) for row in whole])
        output = self._backend.logits(ids.to(device), keep, use_cache=self._needs.answer_tokens > 0)
        logits = output.logits
        if longest != shortest:
            # [B, back + 1]: where each row's last positions lie among the kept ones. A row with another question may be
            # too short for as many; what stands for them is not looked at.
            places = (lengths[:, None] - 1 - first + torch.arange(-back, 1)).clamp(min=0)
            # Whole rows of the flat logits: on a CPU ten times as fast as gathering number by number.
            flat = places + torch.arange(len(rows))[:, None] * logits.shape[1]
            logits = logits.flatten(0, 1).index_select(0, flat.flatten().to(device)).unflatten(0, flat.shape)
        return output, logits

    def asked(self, logits: Tensor, questions: Sequence[tuple[int, Sequence[int]]]) -> Sequence[Tensor | None]:
        """[B, Q] log-probabilities of the tokens of each of some questions; None where the measure asks for none.

        Args:
            logits: [B, N, V] logits.
            questions: The number of each, and which of the N positions are its last, from that before its first token.
        """
        if not self._sees_question:
            return [None] * len(questions)
        prompts = [self._prompts[number] for number, _ in questions]
        ids = [prompt.after[prompt.question] for prompt in prompts]
        where = [places[: len(own)] for own, (_, places) in zip(ids, questions, strict=True)]
        tokens, places = (torch.tensor(list(chain(*each)), device=logits.device) for each in (ids, where))
        logits = logits[:, : 1 + max(chain(*where), default=0)]
        found = logits.new_empty(len(logits), len(tokens), dtype=torch.float32)
        rows = len(logits)
        if logits.device.type == "cpu":  # as many at a time as stay in the cache
            rows = max(1, CACHED_BYTES // (4 * logits.shape[1] * logits.shape[2]))
        for first in range(0, len(logits), rows):
            some = slice(first, first + rows)
            # One fused kernel: five times as fast on a CPU as the logits less their logsumexp.
            found[some] = logits[some].log_softmax(-1, dtype=torch.float32)[:, places, tokens]
        return list(torch.split(found, [len(own) for own in ids], 1))

    def _question_without_segment(self, number: int) -> Tensor:
        """[Q] log-probabilities of a question's tokens where no segment stands before them."""
        prompt = self._prompts[number]
        # Where nothing at all stands before the question, its first token needs something to be predicted from.
        nothing = () if prompt.before or prompt.question.start else (self._backend.tokenizer.eos_id or 0,)
        try:
            logits = self._read([(nothing, number)])[1]
            [found] = self.asked(logits, [(number, range(logits.shape[1]))])
            assert found is not None
            return found[0]
        except Exception as error:
            raise scoring_error(error, "the question alone") from error

    def answer(self, output: Any, following: Tensor) -> tuple[Tensor, Tensor] | None:
        """[B, n, V] log-probabilities along the greedy answer, zero after its end; [B, n] whether it still goes on.

        n is the number of tokens that the measure asks for, or of the longest answer where all end earlier. None where
        the measure asks for none.

        Args:
            output: The model's output on B sub-contexts, from which it continues.
            following: [B, V] log-probabilities of the first token.
        """
        if not self._needs.answer_tokens:
            return None
        steps = [following]
        going = [torch.ones(len(following), dtype=torch.bool, device=following.device)]
        eos = self._backend.tokenizer.eos_id
        past, rows = output.past_key_values, torch.arange(len(following), device=following.device)
        for _ in range(self._needs.answer_tokens - 1):
            chosen = steps[-1].argmax(-1)
            still = going[-1] if eos is None else going[-1] & (chosen != eos)
            if not still.any():
                break
            if 2 * int(still.sum()) <= len(rows) and _is_plain(past):
                # What has ended is read on with the rest, until leaving it out saves more than copying the others.
                past.batch_select_indices(still[rows].nonzero()[:, 0])
                rows = still.nonzero()[:, 0]
            output = self._backend.logits(chosen[rows, None], 1, use_cache=True, past_key_values=past)
            past = output.past_key_values
            found = steps[-1].new_zeros(steps[-1].shape)
            found[rows] = output.logits[:, -1].log_softmax(-1, dtype=torch.float32)
            steps.append(found)
            going.append(still)
        return torch.stack(steps, 1), torch.stack(going, 1)


def _is_plain(past: Any) -> bool:
    """Whether the model's state is keys and values alone, of which rows can be taken."""
    layers = getattr(past, "layers", ())
    return bool(layers) and all(isinstance(layer, DynamicLayer) for layer in layers)


def in_halves(
    work: Callable[[list[int]], list[T]], rows: list[int], segments: Sequence[Segment], relieve: Callable[[], None]
) -> list[T]:
    """What `work` makes of some segments; where it fails, of either half of them.

    Halved whatever the failure was: less memory is needed, or the segment at which the model fails is found.

    Args:
        work: Reads segments of these numbers in one batch.
        rows: Numbers of the segments.
        segments: All of them.
        relieve: Called where memory did not suffice, to make later batches smaller.

    Raises:
        ScoringError: One segment alone fails.
    """
    try:
        return work(rows)
    except XL3MError:
        raise
    except Exception as error:
        failed = error
    if len(rows) == 1:
        raise scoring_error(failed, f"{_name(segments[rows[0]])} with the question") from failed
    if is_out_of_memory(failed):
        relieve()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    half = len(rows) // 2
    return in_halves(work, rows[:half], segments, relieve) + in_halves(work, rows[half:], segments, relieve)


def _name(segment: Segment) -> str:
    where = f" of document {segment.document}" if segment.document else ""
    return f"segment {segment.index}{where} (characters {segment.start} to {segment.end}, {len(segment.ids)} tokens)"


def scoring_error(error: Exception, what: str) -> ScoringError:
    """What to tell the user when the model failed to read `what`."""
    if is_out_of_memory(error):
        return ScoringError(
            f"Memory does not suffice to read {what}; lower segment_tokens, or use a smaller model or dtype."
        )
    return ScoringError(
        f"The model failed to read {what}: {type(error).__name__}: {error}. Check that model and tokenizer belong "
        "together."
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory did not suffice, whatever the device calls it."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return any(words in str(error).lower() for words in _OUT_OF_MEMORY)
