"""Any Hugging Face causal language model as scorer and reader.

Work of a scoring pass: (segment + question + template tokens) x parameters x 2 FLOP, the head at the needed positions
only. Rows of a batch have (nearly) one length and are padded on the right, where a causal model cannot see it, so no
attention mask is made and the fused causal kernel runs.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from xl3m_integrations.backends.base import Evidence
from xl3m_integrations.backends.batching import looked_ahead, packed
from xl3m_integrations.certainty import Measure, Needs, Observation
from xl3m_integrations.errors import InputError, ModelLoadError, ScoringError, SettingError, XL3MError
from xl3m_integrations.prompts import QuestionPrompt, Template, render_chat, require_question
from xl3m_integrations.tokens import TextTokenizer
from xl3m_integrations.types import Segment

LOGIT_BYTES = 256 << 20  # float32 logits of one batch, at most
BATCH_TOKENS = {"cpu": 5_000, "cuda": 32_768, "mps": 8_192}  # on a CPU more falls out of the cache and is slower
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "failed to allocate")


class TransformersBackend:
    """Scorer and generator on one loaded model.

    Args:
        model: A causal language model, already loaded. It is put into evaluation mode and otherwise left alone.
        tokenizer: Its tokenizer, with a fast backend.
        template: Text around segment and question, with `{segment}` and `{question}`; None takes the tokenizer's chat
            template, or a plain one where it has none.
        window: Tokens that the model reads at most; None takes it from the model's configuration.
        batch_tokens: Tokens of one forward pass; None takes a value that suits the device.

    Raises:
        ModelLoadError: The tokenizer has no fast backend, or the window is unknown.
        SettingError: The template lacks a placeholder, or a number is below 1.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        template: str | None = None,
        window: int | None = None,
        batch_tokens: int | None = None,
    ) -> None:
        self.model = model.eval()
        self.hf_tokenizer = tokenizer
        self.tokenizer = TextTokenizer(tokenizer)
        self.template = Template.of_tokenizer(tokenizer) if template is None else Template.parse(template)
        self.window = _window_of(model, tokenizer) if window is None else window
        self.device = next(model.parameters()).device
        self.batch_tokens = BATCH_TOKENS.get(self.device.type, 8_192) if batch_tokens is None else batch_tokens
        if self.window < 1 or self.batch_tokens < 1:
            raise SettingError(
                f"window is {self.window} and batch_tokens {self.batch_tokens}; both must be at least 1."
            )
        self._vocabulary = model.get_output_embeddings().weight.shape[0]
        self._keeps_logits = "logits_to_keep" in inspect.signature(model.forward).parameters

    def prompt(self, question: str) -> QuestionPrompt:
        """The ids of template and question."""
        return self.tokenizer.wrap(self.template, require_question(question))

    def overhead(self, question: str) -> int:
        """Tokens of template and question."""
        return self.prompt(question).overhead

    def count(self, context: str) -> int:
        """Length of `context` in tokens."""
        return self.tokenizer.count(context)

    # ------------------------------------------------------------------------------------------ scoring
    def evidence(
        self, segments: Iterable[Segment], question: str, measure: Measure
    ) -> Iterator[tuple[Segment, Evidence]]:
        """See `Scorer.evidence`."""
        prompt = self.prompt(measure.asks(question))
        scoring = _ScoringPass(self, prompt, measure)
        for group in looked_ahead(segments, self.batch_tokens):
            yield from zip(group, scoring.evidence(group), strict=True)

    @torch.inference_mode()
    def logits(self, ids: Tensor, keep: Tensor | int, **cache: Any) -> Any:
        """The model's output with logits at the kept positions: an int keeps the last ones, a tensor names them."""
        if self._keeps_logits:
            return self.model(input_ids=ids, logits_to_keep=keep, **cache)
        output = self.model(input_ids=ids, **cache)
        output.logits = output.logits[:, -keep:] if isinstance(keep, int) else output.logits[:, keep]
        return output

    # ------------------------------------------------------------------------------------------ reading
    def count_prompt(self, prompt: str) -> int:
        """Length of a whole prompt in tokens."""
        return len(self.tokenizer.prompt_ids(prompt))

    def render(self, turns: Sequence[tuple[str, str]]) -> str:
        """See `Generator.render`."""
        return render_chat(self.hf_tokenizer, turns)

    def stream(
        self, context: str, question: str, *, max_new_tokens: int, stop: tuple[str, ...] = (), **options: Any
    ) -> Iterator[str]:
        """See `Generator.stream`. `options` are passed to `generate` of transformers; greedy unless they sample."""
        prompt = self.prompt(question)
        ids = [*prompt.before, *self.tokenizer.ids(context), *prompt.after]
        return self._stream_ids(ids, max_new_tokens, stop, options)

    def complete(
        self, prompt: str, *, max_new_tokens: int, stop: tuple[str, ...] = (), **options: Any
    ) -> Iterator[str]:
        """See `Generator.complete`."""
        return self._stream_ids(self.tokenizer.prompt_ids(prompt), max_new_tokens, stop, options)

    def complete_many(
        self, prompts: Sequence[str], *, max_new_tokens: int, stop: tuple[str, ...] = (), **options: Any
    ) -> list[str]:
        """The texts that `complete` would write, from one batch."""
        if not prompts:
            return []
        rows = [self.tokenizer.prompt_ids(prompt) for prompt in prompts]
        longest = max(map(len, rows))
        self._require_room(longest, max_new_tokens)
        arguments = self._generate_arguments(max_new_tokens, options)
        pad = arguments["pad_token_id"]
        ids = torch.tensor([[pad] * (longest - len(row)) + row for row in rows], device=self.device)
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=self.device)
        try:
            with torch.inference_mode():
                written = self.model.generate(ids, attention_mask=mask, **arguments)[:, longest:]
        except Exception as error:
            raise ScoringError(f"The model failed while writing its answers: {error}") from error
        return ["".join(_until([self.tokenizer.decode(row)], stop)) for row in written.tolist()]

    def _require_room(self, tokens: int, max_new_tokens: int) -> None:
        if tokens + max_new_tokens > self.window:
            raise InputError(
                f"The prompt has {tokens} tokens and max_new_tokens is {max_new_tokens}, but the model's window is "
                f"{self.window} tokens; shorten the context or the question, or lower max_new_tokens."
            )

    def _stream_ids(
        self, ids: list[int], max_new_tokens: int, stop: tuple[str, ...], options: dict[str, Any]
    ) -> Iterator[str]:
        from transformers import StoppingCriteriaList, TextIteratorStreamer

        self._require_room(len(ids), max_new_tokens)
        streamer = TextIteratorStreamer(self.hf_tokenizer, skip_prompt=True, skip_special_tokens=True)
        cancelled = threading.Event()
        failures: list[BaseException] = []
        criteria = StoppingCriteriaList([lambda ids, scores, **_: torch.full((len(ids),), cancelled.is_set())])
        prompt = torch.tensor([ids], device=self.device)
        arguments = self._generate_arguments(max_new_tokens, options)

        def work() -> None:
            try:
                with torch.inference_mode():
                    self.model.generate(
                        prompt,
                        attention_mask=torch.ones_like(prompt),
                        streamer=streamer,
                        stopping_criteria=criteria,
                        **arguments,
                    )
            except BaseException as error:  # handed to the consumer's thread below
                failures.append(error)
                streamer.end()

        thread = threading.Thread(target=work, name="xl3m-generate", daemon=True)
        thread.start()
        try:
            yield from _until(streamer, stop)
        finally:
            cancelled.set()
            thread.join()
        if failures:
            raise ScoringError(f"The model failed while writing its answer: {failures[0]}") from failures[0]

    def _generate_arguments(self, max_new_tokens: int, options: dict[str, Any]) -> dict[str, Any]:
        config = self.model.generation_config
        pad = next(
            (i for i in (config.pad_token_id, self.hf_tokenizer.pad_token_id, self.tokenizer.eos_id) if i is not None),
            0,
        )
        arguments: dict[str, Any] = {"max_new_tokens": max_new_tokens, "pad_token_id": pad, **options}
        if not options.get("do_sample"):
            arguments |= {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        return arguments


class _ScoringPass:
    """One question put to many segments."""

    def __init__(self, backend: TransformersBackend, prompt: QuestionPrompt, measure: Measure) -> None:
        self._backend = backend
        self._prompt = prompt
        self._measure = measure
        self._needs: Needs = measure.needs
        self._batch_tokens = backend.batch_tokens
        # Logits are needed from the position before the question's first token to the last position.
        self._back = len(prompt.after) - prompt.question.start if self._needs.question else 0
        self._max_rows = max(1, LOGIT_BYTES // (4 * backend._vocabulary * (1 + self._back)))
        self._baseline: Tensor | None = None  # computed once it is known that the question fits the window

    def evidence(self, segments: Sequence[Segment]) -> list[Evidence]:
        """Evidence of each segment, in order."""
        lengths = [len(segment.ids) + self._prompt.overhead for segment in segments]
        self._require_fit(max(lengths))
        if self._needs.baseline and self._baseline is None:
            self._baseline = self._question_without_segment()
        found: list[Evidence] = [()] * len(segments)
        exact = self._needs.answer_tokens > 0
        for rows in packed(lengths, self._batch_tokens, max_rows=self._max_rows, exact=exact):
            for row, evidence in zip(rows, self._batch([segments[row] for row in rows]), strict=True):
                found[row] = evidence
        return found

    def _require_fit(self, longest: int) -> None:
        room = self._backend.window - self._needs.answer_tokens
        if longest > room:
            raise InputError(
                f"The question takes {self._prompt.overhead} tokens with its template, and a segment up to "
                f"{longest - self._prompt.overhead}: {longest} together, but the model's window is "
                f"{self._backend.window} tokens. Shorten the question, or lower segment_tokens."
            )

    def _batch(self, segments: list[Segment]) -> list[Evidence]:
        try:
            return self._observed(segments)
        except XL3MError:
            raise
        except Exception as error:
            failed = error
        if len(segments) == 1:
            raise _scoring_error(failed, f"{_name(segments[0])} with the question") from failed
        if _is_out_of_memory(failed):
            self._batch_tokens = max(1, self._batch_tokens // 2)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        # Halved whatever it was: less memory is needed, or the segment at which the model fails is found.
        half = len(segments) // 2
        return self._batch(segments[:half]) + self._batch(segments[half:])

    def _observed(self, segments: list[Segment]) -> list[Evidence]:
        seen = self._observe([segment.ids for segment in segments])
        broken = seen.next.isnan().any(1)
        if broken.any():
            segment = segments[int(broken.nonzero()[0, 0])]
            raise ScoringError(
                f"The model's logits are not numbers (NaN) after {_name(segment)}; load the model with "
                "dtype='float32' (float16 overflows in some models), or check its weights."
            )
        evidence = self._measure.evidence(seen)
        return [tuple(row) for row in evidence.tolist()]

    def _observe(self, rows: Sequence[Sequence[int]]) -> Observation:
        needs, device = self._needs, self._backend.device
        before, after = self._prompt.before, self._prompt.after
        lengths = torch.tensor([len(row) + self._prompt.overhead for row in rows])
        longest, shortest = int(lengths.max()), int(lengths.min())
        ids = torch.tensor(
            [[*before, *row, *after] + [0] * (longest - len(row) - self._prompt.overhead) for row in rows]
        )
        first = shortest - 1 - self._back
        keep: Tensor | int = 1 + self._back
        if longest != shortest:
            keep = torch.arange(max(first, 0), longest, device=device)
        cache = {"use_cache": needs.answer_tokens > 0}
        output = self._backend.logits(ids.to(device), keep, **cache)
        logits = output.logits
        # [B, back + 1]: for each row, where its needed positions lie among the kept ones.
        places = (lengths - shortest)[:, None] + torch.arange(logits.shape[1] - (longest - shortest))
        if longest != shortest:
            logits = logits.gather(1, places.to(device)[..., None].expand(-1, -1, logits.shape[2]))
        answer, answered = self._answer(output, logits[:, -1]) if needs.answer_tokens else (None, None)
        return Observation(
            next=logits[:, -1].float().log_softmax(-1),
            question=self._question(logits) if needs.question else None,
            baseline=self._baseline,
            answer=answer,
            answered=answered,
        )

    def _question(self, logits: Tensor) -> Tensor:
        """[B, Q] log-probabilities of the question's tokens from logits at the last `back + 1` positions."""
        asked = torch.tensor(self._prompt.after[self._prompt.question], device=logits.device)
        at = logits[:, : len(asked)].float()
        targets = asked.expand(len(at), -1)[..., None]
        return at.gather(2, targets)[..., 0] - at.logsumexp(-1)

    def _question_without_segment(self) -> Tensor:
        """[Q] log-probabilities of the question's tokens where no segment stands before them."""
        # Where nothing at all stands before the question, its first token needs something to be predicted from.
        nothing = () if self._prompt.before or self._prompt.question.start else (self._backend.tokenizer.eos_id or 0,)
        try:
            seen = self._observe([nothing]).question
        except Exception as error:
            raise _scoring_error(error, "the question alone") from error
        assert seen is not None
        return seen[0]

    def _answer(self, output: Any, logits: Tensor) -> tuple[Tensor, Tensor]:
        """[B, n, V] log-probabilities along the greedy answer, and [B, n] whether the answer still goes on."""
        steps, going = (
            [logits.float().log_softmax(-1)],
            [torch.ones(len(logits), dtype=torch.bool, device=logits.device)],
        )
        eos = self._backend.tokenizer.eos_id
        for _ in range(self._needs.answer_tokens - 1):
            chosen = steps[-1].argmax(-1)
            going.append(going[-1] if eos is None else going[-1] & (chosen != eos))
            output = self._backend.logits(chosen[:, None], 1, use_cache=True, past_key_values=output.past_key_values)
            steps.append(output.logits[:, -1].float().log_softmax(-1))
        return torch.stack(steps, 1), torch.stack(going, 1)


def _name(segment: Segment) -> str:
    where = f" of document {segment.document}" if segment.document else ""
    return f"segment {segment.index}{where} (characters {segment.start} to {segment.end}, {len(segment.ids)} tokens)"


def _scoring_error(error: Exception, what: str) -> ScoringError:
    if _is_out_of_memory(error):
        return ScoringError(
            f"Memory does not suffice to read {what}; lower segment_tokens, or use a smaller model or dtype."
        )
    return ScoringError(
        f"The model failed to read {what}: {type(error).__name__}: {error}. Check that model and tokenizer belong "
        "together."
    )


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return any(words in str(error).lower() for words in _OUT_OF_MEMORY)


def _window_of(model: Any, tokenizer: Any) -> int:
    window = getattr(model.config.get_text_config(), "max_position_embeddings", None) or tokenizer.model_max_length
    if not window or window > 10**9:
        raise ModelLoadError(
            f"{type(model).__name__} does not say how many tokens it reads (max_position_embeddings); pass window=."
        )
    return int(window)


def _until(pieces: Iterable[str], stop: tuple[str, ...]) -> Iterator[str]:
    """The pieces up to the first stop string, which is left out; text that may begin one is held back."""
    held = ""
    longest = max((len(word) for word in stop), default=1)
    for piece in pieces:
        held += piece
        ends = [at for word in stop if (at := held.find(word)) >= 0]
        if ends:
            yield held[: min(ends)]
            return
        ready = len(held) - (longest - 1)
        if ready > 0:
            yield held[:ready]
            held = held[ready:]
    if held:
        yield held
