"""Any server with an OpenAI-compatible completions route (vLLM, llama.cpp, …) as scorer and reader.

Scoring asks for one generated token per sub-context with the log-probabilities of the most probable ones, so the
entropy is truncated (`TruncatedEntropy`). The segment stands first in every sub-context: a server with a prefix cache
computes it once for all questions. Prompts are sent as token ids, exactly as they were cut, where the server takes ids;
else as text, which the server cuts into tokens again: then a token or two may differ where template and segment meet.

The client retries on 408, 409, 429, 5xx, timeouts and broken connections, with growing pauses, and obeys Retry-After.
An answer that cannot be read is asked for again as often. Every request is answered once, or the run fails.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import cached_property
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

import torch

from xl3m_integrations.backends.base import Evidence
from xl3m_integrations.backends.prompting import Prompting, until
from xl3m_integrations.certainty import Entropy, Measure, Observation, TruncatedEntropy
from xl3m_integrations.concurrency import LoopThread
from xl3m_integrations.errors import InputError, MissingExtraError, ModelLoadError, ScoringError, SettingError
from xl3m_integrations.prompts import LITERAL, QuestionPrompt
from xl3m_integrations.types import Segment

KEY_VARIABLE = "OPENAI_API_KEY"
_TEXT_LITERAL = "\u200b"  # a zero-width space: within text that spells a special token, so that a server reads letters
_TRIAL = "One, two, three"
_SHOWN = 300  # characters of a server's complaint: some repeat the whole prompt
_ACCEPTED_SURPLUS = 1.01  # probabilities may sum to this much: servers round


class OpenAIBackend(Prompting):
    """Scorer and generator on a server. The API key, if one is needed, is read from `OPENAI_API_KEY` at each call.

    Args:
        model: The model's name on the server.
        tokenizer: The model's tokenizer, with a fast backend: it cuts documents into segments.
        base_url: The server's address, such as `http://localhost:8000/v1`; None takes `OPENAI_BASE_URL`, or OpenAI's.
        template: See `Prompting`.
        window: Tokens that the server reads and writes at most; None takes the tokenizer's `model_max_length`.
        top_logprobs: Log-probabilities to ask for; what servers allow (vLLM: `--max-logprobs`) is 20 by default.
        concurrency: Requests in flight at most.
        retries: Attempts after the first.
        timeout: Seconds that a request may take.
        prompts: `ids` or `text`; None tries ids first.
        request_options: More fields of every request, such as vLLM's `{"return_tokens_as_token_ids": True}`.

    Raises:
        MissingExtraError: The extra `openai` is not installed.
        ModelLoadError: The window is unknown, or the tokenizer has no fast backend.
        SettingError: A number is out of its range, or `base_url` holds a password.
    """

    default_measure = "entropy"

    def __init__(
        self,
        model: str,
        tokenizer: Any,
        *,
        base_url: str | None = None,
        template: str | None = None,
        window: int | None = None,
        top_logprobs: int = 20,
        concurrency: int = 16,
        retries: int = 5,
        timeout: float = 120.0,
        prompts: str | None = None,
        request_options: dict[str, Any] | None = None,
    ) -> None:
        _require_client()
        super().__init__(tokenizer, template)
        _require_no_password(base_url or os.environ.get("OPENAI_BASE_URL"))
        self.model, self.base_url = model, base_url
        self.window = tokenizer.model_max_length if window is None else window
        self.top_logprobs, self.concurrency, self.retries, self.timeout = top_logprobs, concurrency, retries, timeout
        self._options = dict(request_options or {})
        if prompts not in (None, "ids", "text"):
            raise SettingError(f"prompts is {prompts!r}; choose 'ids' or 'text', or None to try ids first.")
        self._prompts = prompts
        self._as_text: bool | None = None if prompts is None else prompts == "text"
        if self.window > 10**9:
            raise ModelLoadError("The tokenizer does not say how many tokens the server's model reads; pass window=.")
        if min(self.window, top_logprobs, concurrency) < 1 or retries < 0 or timeout <= 0:
            raise SettingError(
                f"window is {self.window}, top_logprobs {top_logprobs}, concurrency {concurrency}, retries {retries} "
                f"and timeout {timeout}; retries may be 0, the others must be above it."
            )

    @cached_property
    def fingerprint(self) -> str:
        """See `Fingerprinted`: of address, model name, tokenizer, template and options. Weights cannot be seen."""
        address = self.base_url or os.environ.get("OPENAI_BASE_URL")
        parts = [address, self.model, self.top_logprobs, self._prompts, repr(self._options), repr(self.template)]
        parts.append(self.hf_tokenizer.backend_tokenizer.to_str())
        return "openai-" + hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()

    def supported(self, measure: Measure) -> Measure:
        """`measure` as a server's top log-probabilities can tell it.

        Raises:
            SettingError: They cannot.
        """
        if isinstance(measure, (Entropy, TruncatedEntropy)):
            return TruncatedEntropy()
        raise SettingError(
            f"The measure {measure.name!r} needs log-probabilities that a server does not tell; with backend='openai' "
            "use measure='entropy', or score with a local model."
        )

    # ------------------------------------------------------------------------------------------ scoring
    def evidence(
        self, segments: Iterable[Segment], question: str, measure: Measure
    ) -> Iterator[tuple[Segment, Evidence]]:
        """See `Scorer.evidence`: requests overlap, evidence comes in order."""
        measure = self.supported(measure)
        prompt = self.prompt(measure.asks(question))
        source = iter(segments)
        self._sends_text()
        waiting: deque[tuple[Segment, Future[Sequence[float]]]] = deque()
        with LoopThread() as loop:
            client = loop.run(self._connected())
            try:
                while True:
                    for segment in islice(source, self.concurrency - len(waiting)):
                        waiting.append((segment, loop.submit(self._ask(client, segment, prompt, question))))
                    if not waiting:
                        return
                    segment, future = waiting.popleft()
                    seen = Observation(next=torch.tensor([future.result()], dtype=torch.float64))
                    yield segment, tuple(measure.evidence(seen)[0].tolist())
            finally:
                for _, future in waiting:
                    future.cancel()
                loop.run(client.close())

    async def _connected(self) -> Any:
        from openai import AsyncOpenAI

        return AsyncOpenAI(**self._connection())

    async def _ask(self, client: Any, segment: Segment, prompt: QuestionPrompt, question: str) -> Sequence[float]:
        """Log-probabilities of the most probable tokens after segment and question."""
        ids = [*prompt.before, *segment.ids, *prompt.after]
        what = f"segment {segment.index} (characters {segment.start} to {segment.end}, {len(ids)} tokens with question)"
        if len(ids) + 1 > self.window:
            raise InputError(
                f"The question takes {prompt.overhead} tokens with its template and a segment {len(segment.ids)}, but "
                f"the server's window is {self.window}; shorten the question, or lower segment_tokens."
            )
        extra: dict[str, Any] = {}
        sent: str | list[int] = self._text(segment, question) if self._as_text else ids
        length = len(self.tokenizer.prompt_ids(sent) if isinstance(sent, str) else sent)
        for attempt in range(self.retries + 1):
            answer = await self._completed(client, sent, what, extra)
            try:
                return _log_probs(answer, length)
            except _EndOfText:
                # The answer would end at once, and this server then tells nothing: forbid it to end.
                if self.tokenizer.eos_id is None or extra:
                    raise ScoringError(f"The server wrote nothing after {what}.") from None
                extra = {"logit_bias": {str(self.tokenizer.eos_id): -100}}
            except _Unreadable as error:
                if attempt == self.retries:
                    raise ScoringError(
                        f"The server's answer for {what} cannot be used, {attempt + 1} times: {error}"
                    ) from None
        raise ScoringError(f"The server's answers for {what} cannot be used.")

    async def _completed(
        self, client: Any, prompt: str | list[int], what: str, extra: dict[str, Any], attempt: int = 0
    ) -> Any:
        from openai import APIError

        try:
            return await client.completions.create(
                model=self.model,
                prompt=prompt,
                max_tokens=1,
                temperature=0,
                logprobs=self.top_logprobs,
                extra_body=self._options or None,
                **extra,
            )
        except APIError as error:
            raise self._explained(error, what) from None
        except ValueError as error:  # JSON that is cut short; the client does not ask again by itself
            if attempt == self.retries:
                raise ScoringError(f"The server's answer for {what} is no JSON, {attempt + 1} times: {error}") from None
            return await self._completed(client, prompt, what, extra, attempt + 1)

    def _text(self, segment: Segment, question: str) -> str:
        """The same as text, in which neither document nor question spells a special token."""
        body = self.tokenizer.mark_specials(self.tokenizer.decode(segment.ids), _TEXT_LITERAL)
        asked = self.tokenizer.mark_specials(question, _TEXT_LITERAL)
        return f"{self._opening()}{body}{self.template.between}{asked}{self.template.after}"

    def _opening(self) -> str:
        """The template's text before the segment, without the mark of a text's beginning, which servers put first."""
        return self.template.before.removeprefix(self.hf_tokenizer.bos_token or "")

    # ------------------------------------------------------------------------------------------ reading
    def stream(
        self, context: str, question: str, *, max_new_tokens: int, stop: tuple[str, ...] = (), **options: Any
    ) -> Iterator[str]:
        """See `Generator.stream`. `options` are fields of the request, such as `temperature`."""
        prompt = self.prompt(question)
        segment = Segment(0, 0, len(context), context, self.tokenizer.ids(context))
        ids = [*prompt.before, *segment.ids, *prompt.after]
        return self._written(ids, self._text(segment, question), max_new_tokens, stop, options)

    def complete(
        self, prompt: str, *, max_new_tokens: int, stop: tuple[str, ...] = (), **options: Any
    ) -> Iterator[str]:
        """See `Generator.complete`."""
        text = prompt.removeprefix(self.hf_tokenizer.bos_token or "").replace(LITERAL, _TEXT_LITERAL)
        return self._written(self.tokenizer.prompt_ids(prompt), text, max_new_tokens, stop, options)

    def complete_many(
        self, prompts: Sequence[str], *, max_new_tokens: int, stop: tuple[str, ...] = (), **options: Any
    ) -> list[str]:
        """See `Generator.complete_many`: several requests at a time."""

        def write(prompt: str) -> str:
            return "".join(self.complete(prompt, max_new_tokens=max_new_tokens, stop=stop, **options))

        with ThreadPoolExecutor(self.concurrency) as pool:
            return list(pool.map(write, prompts))

    def _written(
        self, ids: list[int], text: str, max_new_tokens: int, stop: tuple[str, ...], options: dict[str, Any]
    ) -> Iterator[str]:
        if len(ids) + max_new_tokens > self.window:
            raise InputError(
                f"The prompt has {len(ids)} tokens and max_new_tokens is {max_new_tokens}, but the server's window is "
                f"{self.window} tokens; shorten the context or the question, or lower max_new_tokens."
            )
        return until(self._pieces(ids, text, {"max_tokens": max_new_tokens, "temperature": 0, **options}), stop)

    def _pieces(self, ids: list[int], text: str, options: dict[str, Any]) -> Iterator[str]:
        from openai import APIError, OpenAI

        fields = {"model": self.model, "stream": True, "extra_body": self._options or None, **options}
        prompt = text if self._sends_text() else ids
        try:
            with (
                closing(OpenAI(**self._connection())) as client,
                closing(client.completions.create(prompt=prompt, **fields)) as answer,
            ):
                for chunk in answer:
                    if chunk.choices:
                        yield chunk.choices[0].text
        except (APIError, ValueError) as error:
            raise self._explained(error, "the key context") from None

    # ------------------------------------------------------------------------------------------ the connection
    def _sends_text(self) -> bool:
        """Whether prompts go out as text; where that is not said, the server is asked once with a short prompt.

        Some servers answer 500 to ids, which may also be a passing fault: so ids are tried once more.
        """
        if self._as_text is None:
            as_ids = self.tokenizer.prompt_ids(_TRIAL)
            if self._takes(as_ids):
                self._as_text = False
            elif self._takes(_TRIAL):
                self._as_text = not self._takes(as_ids)
        return bool(self._as_text)

    def _takes(self, prompt: str | list[int]) -> bool:
        from openai import APIError, BadRequestError, InternalServerError, OpenAI, UnprocessableEntityError

        with closing(OpenAI(**self._connection() | {"max_retries": 1})) as client:
            try:
                client.completions.create(model=self.model, prompt=prompt, max_tokens=1)
            except (BadRequestError, UnprocessableEntityError, InternalServerError, ValueError):
                return False
            except APIError as error:
                raise self._explained(error, "a first short prompt") from None
        return True

    def _connection(self) -> dict[str, Any]:
        return {
            "base_url": self.base_url,
            "api_key": os.environ.get(KEY_VARIABLE) or "none",  # servers of one's own need none, the client does
            "max_retries": self.retries,
            "timeout": self.timeout,
        }

    def _explained(self, error: Exception, what: str) -> ScoringError:
        """What to tell the user; never the key, nor what the server says of it."""
        status = getattr(error, "status_code", None)
        place = self.base_url or "the server"
        if status in (401, 403):
            return ScoringError(f"{place} refused the API key (status {status}); set {KEY_VARIABLE} to a valid one.")
        said = str(error)
        if key := os.environ.get(KEY_VARIABLE):
            said = said.replace(key, "***")
        tries = f" after {self.retries + 1} attempts" if status is None or status == 429 or status >= 500 else ""
        said = said if len(said) <= _SHOWN else said[:_SHOWN] + "…"
        hint = " Check the model's name and base_url (it ends in /v1)." if status == 404 else ""
        return ScoringError(f"{place} failed to read {what}{tries}: {type(error).__name__}: {said}{hint}")


class _Unreadable(Exception):
    """The answer is not what was asked for."""


class _EndOfText(Exception):
    """The model wrote nothing, and the server tells no log-probabilities of nothing."""


def _log_probs(answer: Any, sent: int) -> list[float]:
    """The log-probabilities of a one-token answer.

    Args:
        answer: The server's.
        sent: Tokens of the prompt.
    """
    if not getattr(answer, "choices", None):
        raise _Unreadable("it holds no choices.")
    usage = getattr(answer, "usage", None)
    read = getattr(usage, "prompt_tokens", None)
    if read is not None and abs(read - sent) > 1 + sent // 50:  # a mark of the beginning, a word cut otherwise
        raise _Unreadable(
            f"it read {read} tokens of a prompt of {sent}. Check that tokenizer= is the model's own, and that window= "
            "is no larger than the server's context."
        )
    choice = answer.choices[0]
    told = getattr(choice, "logprobs", None)
    if told is None:
        raise ScoringError(
            "The server tells no log-probabilities, which scoring needs. vLLM: start it with --max-logprobs 20; "
            "llama-cpp-python: start it with --logits_all true; others: turn on `logprobs` of the completions route."
        )
    if not told.top_logprobs:
        if choice.finish_reason == "stop" and not choice.text:
            raise _EndOfText
        raise _Unreadable("its log-probabilities are empty.")
    values = [value for value in (told.top_logprobs[0] or {}).values() if value is not None]
    if not values or any(math.isnan(value) or value > 1e-3 for value in values):
        raise _Unreadable("its log-probabilities are not numbers below zero.")
    if math.fsum(map(math.exp, values)) > _ACCEPTED_SURPLUS:
        raise _Unreadable("its probabilities sum to more than one.")
    return [min(0.0, value) for value in values]


def _require_no_password(url: str | None) -> None:
    """Refuse what would be seen wherever the address is shown or logged."""
    if url is not None and "@" in urlsplit(url).netloc:
        raise SettingError(f"base_url holds a name or password before an @; leave it out and set {KEY_VARIABLE}.")


def _require_client() -> None:
    try:
        import openai  # noqa: F401
    except ImportError as error:
        raise MissingExtraError.of("backend='openai'", "openai") from error
