"""A chat model that takes messages of any length."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any, TypeVar

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, message_chunk_to_message
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableLambda, RunnableParallel, RunnableSequence
from pydantic import Field, SecretStr

from xl3m_integrations.adapting import STRICT, EngineFields
from xl3m_integrations.concurrency import Cancellation, in_thread
from xl3m_integrations.conversation import fit_conversation
from xl3m_integrations.errors import SettingError
from xl3m_integrations.langchain.fields import ReaderFields
from xl3m_integrations.langchain.messages import must_stay, require_text, turn_of, with_text
from xl3m_integrations.langchain.readers import Reader

M = TypeVar("M", bound=BaseMessage)


class ChatXL3M(ReaderFields, EngineFields, BaseChatModel):
    r"""A LangChain chat model whose messages may be far longer than its model's window.

    Messages that fit the window reach the model as they are. Otherwise the last human message's question stays
    verbatim, and so do system messages as far as half of the window goes (of longer ones the beginning and the end);
    short earlier messages stay whole in half of the room that is left, the latest first; and long contents (pasted
    documents, tool outputs, old turns) are cut in place to the segments after which the scoring model is most certain
    of the answer. Roles and order stay.

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
            Any LangChain chat model that answers instead; its `bind_tools` and structured output pass through. Its
            work is part of this model's run, so that callbacks hear every token once.
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
        reader_options: dict
            More arguments of the model that answers, such as `{"repetition_penalty": 1.1}`.
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

    # ------------------------------------------------------------------------------------------ ways to call
    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        reader = self.reader(stop, kwargs)
        read, told = self._fitted(messages, reader, kwargs, Cancellation())
        return _result(reader.answers([read]), told)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        reader = self.reader(stop, kwargs)
        read, told = await in_thread(lambda cancellation: self._fitted(messages, reader, kwargs, cancellation))
        return _result(await reader.aanswers([read]), told)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        reader = self.reader(stop, kwargs)
        read, told = self._fitted(messages, reader, kwargs, Cancellation())
        for piece in reader.stream(read):
            chunk = ChatGenerationChunk(message=_telling(piece, told))
            told = {}  # the first piece has told it
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
        reader = self.reader(stop, kwargs)
        read, told = await in_thread(lambda cancellation: self._fitted(messages, reader, kwargs, cancellation))
        async for piece in reader.astream(read):
            chunk = ChatGenerationChunk(message=_telling(piece, told))
            told = {}
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
        target = bound(self.llm)

        def ready(said: Any, cancellation: Cancellation, stop: Any = None, **kwargs: Any) -> Runnable[Any, Any]:
            reader = self.reader(stop, kwargs)
            read, _ = self._fitted(self._convert_input(said).to_messages(), reader, kwargs, cancellation)
            return RunnableLambda(lambda _: read) | _with_settings(target, reader.settings)

        def fit(said: Any, **kwargs: Any) -> Runnable[Any, Any]:
            return ready(said, Cancellation(), **kwargs)

        async def afit(said: Any, **kwargs: Any) -> Runnable[Any, Any]:
            return await in_thread(lambda cancellation: ready(said, cancellation, **kwargs))

        return RunnableLambda(fit, afunc=afit, name="XL3M")

    # ------------------------------------------------------------------------------------------ what they share
    def _fitted(
        self, messages: Sequence[BaseMessage], reader: Reader, kwargs: dict[str, Any], cancellation: Cancellation
    ) -> tuple[list[BaseMessage], dict[str, Any]]:
        """Messages that fit, and what is told of them."""
        if kwargs.get("delimiter") is not None:
            raise SettingError(
                f"delimiter is {kwargs['delimiter']!r}, but it is for plain prompts (XL3MLLM); a chat's parts are its "
                "messages, so leave it out and put the context into a message of its own."
            )
        whole = [message_chunk_to_message(message) for message in messages]
        if self.llm is None:
            for message in whole:
                require_text(message)
        turns = [turn_of(message) for message in whole]

        def count(texts: Sequence[str | None]) -> int:
            pairs = zip(turns, texts, strict=True)
            return reader.length([(turn.role, text) for turn, text in pairs if text is not None])

        fitted = fit_conversation(
            self.engine,
            turns,
            reader.window,
            count,
            question=kwargs.get("question"),
            **self.choice_of(kwargs, cancellation),
        )
        pairs = zip(whole, fitted.texts, strict=True)
        read = [with_text(message, text) for message, text in pairs if text is not None or must_stay(message)]
        return read, {name: value for name, value in fitted.info().items() if name != "prompt_tokens"}


def _with_settings(target: Runnable[Any, Any], settings: dict[str, Any]) -> Runnable[Any, Any]:
    """The model's settings bound to it, also where `include_raw=True` has put it into a map, which drops them."""
    if isinstance(target, RunnableSequence):
        return RunnableSequence(_with_settings(target.first, settings), *target.middle, target.last)
    if isinstance(target, RunnableParallel):
        return RunnableParallel({name: _with_settings(step, settings) for name, step in target.steps__.items()})
    return target.bind(**settings)


def _result(answers: list[AIMessage], told: dict[str, Any]) -> ChatResult:
    return ChatResult(generations=[ChatGeneration(message=_telling(answer, told)) for answer in answers])


def _telling(message: M, told: dict[str, Any]) -> M:
    return message.model_copy(update={"response_metadata": message.response_metadata | told})
