"""A chat model that takes messages of any length."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableLambda
from pydantic import Field, SecretStr

from xl3m_integrations.adapting import STRICT, EngineFields
from xl3m_integrations.concurrency import Cancellation, in_thread, stream_in_thread
from xl3m_integrations.conversation import FittedConversation, Role, Turn, fit_conversation
from xl3m_integrations.errors import InputError
from xl3m_integrations.fitting import Window
from xl3m_integrations.langchain.readers import OwnReader, Reader, ReaderFields, WrappedReader

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "human": "user",
    "user": "user",
    "ai": "assistant",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}


class ChatXL3M(ReaderFields, EngineFields, BaseChatModel):
    r"""A LangChain chat model whose messages may be far longer than its model's window.

    Messages that fit the window reach the model as they are. Otherwise the system message and the last human message's
    question stay verbatim, short earlier messages stay whole as far as half of the window goes, and long contents
    (pasted documents, tool outputs, old turns) are cut in place to the segments after which the scoring model is most
    certain of the answer. Roles and order stay.

    Setup:
        .. code-block:: bash

            pip install "xl3m-integrations[langchain]"

    Key init args - engine:
        xl3m: XL3M | None
            An engine to share with others. Instead of `model`.
        model: str | None
            Hub id or folder of a causal language model, which scores, and answers unless `llm` is given. None takes the
            bundled model.
        model_options: dict
            Arguments of `XL3M.from_pretrained`, such as `device` or `segment_tokens`.
        top_k: int | None
            Keep so many segments.
        token_budget: int | None
            Keep as many as fit so many tokens of the scoring model.
        measure: str | None
            Name of the certainty measure. None takes the engine's.
        hops: int
            2 for questions that need two passages: the question is asked again, led by what was found first.
        prefilter: callable | None
            Chooses the segments that the model reads, such as `BM25(n=256)`. None lets it read all.

    Key init args - completion params:
        llm: BaseChatModel | None
            Any LangChain chat model that answers instead; its `bind_tools` and structured output pass through.
        reader_window: int | None
            Tokens that `llm` reads and writes. None asks the model.
        max_tokens: int | None
            Tokens of the answer at most. None takes a tenth of the window, 16 to 256.
        temperature: float | None
            None or 0 is greedy.
        top_p: float | None
            Nucleus sampling, with a temperature.
        stop: list[str] | None
            Strings that end the answer and are left out of it.
        timeout: float | None
            Seconds after which an answer of the own model is given up with an error.
        max_retries, api_key:
            Taken for the sake of other chat models' signature; a local model has no use for them.

    Instantiate:
        .. code-block:: python

            from xl3m_integrations.langchain import ChatXL3M

            chat = ChatXL3M()

    Invoke:
        .. code-block:: python

            chat.invoke([("system", "Answer from the text."), ("human", long_text + "\n\nWhat is the access code?")])

    Stream:
        .. code-block:: python

            for chunk in chat.stream(messages):
                print(chunk.text, end="")

    Async:
        .. code-block:: python

            await chat.ainvoke(messages)

    Tool calling and structured output:
        Those of the wrapped model.

        .. code-block:: python

            ChatXL3M(llm=other_chat_model).bind_tools([tool])

    Response metadata:
        `model_name`; where something was cut also `xl3m_spans` (per message, characters that were kept) and
        `xl3m_scores`, `xl3m_certainty` and `xl3m_found`. Token counts are in `usage_metadata`.
    """

    model_config = STRICT

    max_retries: int | None = None
    api_key: SecretStr | None = Field(default=None, exclude=True, repr=False)
    streaming: bool = False

    @property
    def _llm_type(self) -> str:
        return "xl3m-chat"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return self.identity()

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> Any:
        return super()._get_ls_params(stop=stop, **kwargs) | self.tracing(stop, kwargs)

    def get_token_ids(self, text: str) -> list[int]:
        """Token ids of `text`, by the reader's own tokenizer."""
        return self.llm.get_token_ids(text) if self.llm is not None else self.engine.scorer.tokenizer.ids(text)

    # ------------------------------------------------------------------------------------------ ways to call
    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return self._answer(messages, stop, kwargs, Cancellation())

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return await in_thread(lambda cancellation: self._answer(messages, stop, kwargs, cancellation))

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for chunk in self._chunks(messages, stop, kwargs, Cancellation()):
            if run_manager is not None:
                run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        async for chunk in stream_in_thread(lambda cancellation: self._chunks(messages, stop, kwargs, cancellation)):
            if run_manager is not None:
                await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    # ------------------------------------------------------------------------------------------ tools
    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Runnable[Any, AIMessage]:
        """The wrapped model's tools; messages are still cut to its window.

        Raises:
            NotImplementedError: There is no wrapped model: a bare local model calls no tools.
        """
        return self._wrapping(lambda llm: llm.bind_tools(tools, **kwargs), "bind_tools")

    def with_structured_output(self, schema: Any, **kwargs: Any) -> Runnable[Any, Any]:
        """The wrapped model's structured output; messages are still cut to its window.

        Raises:
            NotImplementedError: There is no wrapped model.
        """
        return self._wrapping(lambda llm: llm.with_structured_output(schema, **kwargs), "with_structured_output")

    def _wrapping(self, bound: Callable[[Any], Runnable[Any, Any]], what: str) -> Runnable[Any, Any]:
        if self.llm is None:
            raise NotImplementedError(
                f"{what} needs a chat model that supports it; wrap one: ChatXL3M(llm=…).{what}(…). The own local model "
                "only writes text."
            )

        def fit(messages: Any) -> list[BaseMessage]:
            read = self._convert_input(messages).to_messages()
            return self._fitted(read, self.reader(None, {}), {}, Cancellation())[0]

        async def afit(messages: Any) -> list[BaseMessage]:
            return await in_thread(lambda _: fit(messages))

        return RunnableLambda(fit, afunc=afit, name="XL3M") | bound(self.llm)

    # ------------------------------------------------------------------------------------------ what they share
    def _fitted(
        self, messages: Sequence[BaseMessage], reader: Reader, kwargs: dict[str, Any], cancellation: Cancellation
    ) -> tuple[list[BaseMessage], FittedConversation]:
        turns = [_turn(message, text_only=self.llm is None) for message in messages]

        def count(texts: Sequence[str | None]) -> int:
            kept = [(turn.role, text) for turn, text in zip(turns, texts, strict=True) if text is not None]
            return _length(reader, kept)

        fitted = fit_conversation(
            self.engine,
            turns,
            reader.window,
            count,
            question=kwargs.get("question"),
            **self.choice_of(kwargs, cancellation),
        )
        pairs = zip(messages, turns, fitted.texts, strict=True)
        return [_with_text(m, turn, text) for m, turn, text in pairs if text is not None or _must_stay(m)], fitted

    def _answer(
        self, messages: list[BaseMessage], stop: list[str] | None, kwargs: dict[str, Any], cancellation: Cancellation
    ) -> ChatResult:
        reader = self.reader(stop, kwargs)
        read, fitted = self._fitted(messages, reader, kwargs, cancellation)
        if isinstance(reader, WrappedReader):
            message = reader.llm.invoke(read, **reader.settings)
        else:
            text = "".join(reader.complete(_prompt(reader, read), cancellation)).strip()
            message = AIMessage(content=text, usage_metadata=_usage(reader.window, fitted, text))
        told = message.response_metadata | self._told(fitted)
        message = message.model_copy(update={"response_metadata": told})
        return ChatResult(generations=[ChatGeneration(message=message)], llm_output={"model_name": self.reader_name})

    def _chunks(
        self, messages: list[BaseMessage], stop: list[str] | None, kwargs: dict[str, Any], cancellation: Cancellation
    ) -> Iterator[ChatGenerationChunk]:
        reader = self.reader(stop, kwargs)
        read, fitted = self._fitted(messages, reader, kwargs, cancellation)
        if isinstance(reader, WrappedReader):
            told = {name: value for name, value in self._told(fitted).items() if name != "model_name"}
            yield ChatGenerationChunk(message=AIMessageChunk(content="", response_metadata=told))
            for piece in reader.llm.stream(read, **reader.settings):
                if cancellation.cancelled:
                    return
                yield ChatGenerationChunk(message=piece)
            return
        written = ""
        for text in reader.complete(_prompt(reader, read), cancellation):
            shown = text if written else text.lstrip()
            if shown:
                written += shown
                yield ChatGenerationChunk(message=AIMessageChunk(content=shown))
        usage = _usage(reader.window, fitted, written)
        last = AIMessageChunk(
            content="", usage_metadata=usage, response_metadata=self._told(fitted), chunk_position="last"
        )
        yield ChatGenerationChunk(message=last)

    def _told(self, fitted: FittedConversation) -> dict[str, Any]:
        info = {name: value for name, value in fitted.info().items() if name != "prompt_tokens"}
        return {"model_name": self.reader_name, "model_provider": "xl3m", **info}


def _turn(message: BaseMessage, *, text_only: bool) -> Turn:
    role = _ROLES.get(message.type) or _ROLES.get(str(getattr(message, "role", "")), "user")
    if text_only and not isinstance(message.content, str):
        other = {str(block.get("type")) for block in message.content if isinstance(block, dict)} - {"text"}
        other -= {"tool_use", "tool_call", "reasoning", "thinking"}
        if other:
            raise InputError(
                f"A {message.type} message holds content of type {', '.join(sorted(other))}; the local model reads "
                "text only. Take it out, or wrap a model that reads it with llm=."
            )
    return Turn(role, str(message.text))


def _must_stay(message: BaseMessage) -> bool:
    """A tool call and its result belong together, whatever is left of their text."""
    return isinstance(message, ToolMessage) or bool(getattr(message, "tool_calls", None))


def _with_text(message: BaseMessage, turn: Turn, text: str | None) -> BaseMessage:
    if text == turn.text:
        return message
    if isinstance(message.content, str):
        return message.model_copy(update={"content": text or ""})
    others = [b for b in message.content if isinstance(b, dict) and b.get("type") != "text"]
    content: list[Any] = [{"type": "text", "text": text or ""}, *others]
    return message.model_copy(update={"content": content})


def _length(reader: Reader, turns: Sequence[tuple[str, str]]) -> int:
    if isinstance(reader, OwnReader):
        return reader.window.count(reader.generator.render(turns))
    # A wrapped model renders by itself; a few tokens a message are what chat formats take.
    return sum(reader.window.count(text) + 8 for _, text in turns)


def _prompt(reader: Reader, messages: Sequence[BaseMessage]) -> str:
    assert isinstance(reader, OwnReader)
    turns = [_turn(message, text_only=True) for message in messages]
    return reader.generator.render([(turn.role, turn.text) for turn in turns])


def _usage(window: Window, fitted: FittedConversation, text: str) -> UsageMetadata:
    written = window.count(text) if text else 0
    return UsageMetadata(input_tokens=fitted.tokens, output_tokens=written, total_tokens=fitted.tokens + written)
