"""An LLM that takes prompts and conversations of any length: what does not fit is selected from, then answered."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from llama_index.core.base.llms.generic_utils import messages_to_prompt as plain_messages
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    LLMMetadata,
)
from llama_index.core.llms import CustomLLM
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.llm import LLM, default_completion_to_prompt
from llama_index.core.output_parsers import PydanticOutputParser
from llama_index.core.prompts import BasePromptTemplate, ChatPromptTemplate, PromptTemplate, SelectorPromptTemplate
from llama_index.core.types import Model, TokenAsyncGen, TokenGen
from pydantic import BaseModel, Field

from xl3m_integrations.adapting import EngineFields
from xl3m_integrations.choice import Choice, selector_of
from xl3m_integrations.concurrency import Cancellation, in_thread
from xl3m_integrations.conversation import FittedConversation, Turn, fit_conversation
from xl3m_integrations.errors import InputError, SettingError, XL3MError
from xl3m_integrations.fitting import SEAM_TOKENS, FittedPrompt, Window, fit_prompt, with_question
from xl3m_integrations.llama_index.readers import (
    FittingChat,
    FittingPrompt,
    OwnReader,
    WrappedReader,
    turns_of,
    with_texts,
)
from xl3m_integrations.prompts import stop_strings

UNBOUNDED = 10**9  # tokens: the window that a synthesizer is told of
_CONTEXTS = ("context_str", "context_msg")  # what LlamaIndex's templates call the retrieved text
_FITTING = ("question", "delimiter", "question_tokens")
_INHERITED = ("messages_to_prompt", "completion_to_prompt", "system_prompt", "query_wrapper_prompt", "output_parser")


@dataclass(frozen=True, slots=True)
class _Call:
    """What one call asks for.

    Attributes:
        window: The reader's window, and what of it is left for the answer.
        choice: How much to keep.
        fitting: How to take the prompt apart.
        options: Arguments of the reader.
    """

    window: Window
    choice: Choice
    fitting: dict[str, Any]
    options: dict[str, Any]


class XL3MLLM(EngineFields, CustomLLM):
    r"""An LLM without a limit on its input: of what exceeds the reader's window, the passages that matter are read.

    A prompt or conversation that fits the reader's window is passed as it is. Of a longer one, instructions and
    question reach the reader verbatim, and so do the passages of the rest after which the scoring model is most
    certain. Inside a query engine the retrieved text and the query are known apart, so nothing has to be guessed.

    Setup:
        Install the extra.

        .. code-block:: bash

            pip install "xl3m-integrations[llama-index]"

    Key init args — the model:
        xl3m: XL3M | None
            An engine to share with others. Instead of `model`.
        model: str | None
            Hub id or folder of a causal language model, which selects and answers. None takes the bundled model.
        model_options: dict
            Arguments of `XL3M.from_pretrained`, such as `device` or `segment_tokens`.
        llm: LLM | None
            Any LlamaIndex LLM that answers instead; XL3M then only selects.
        reader_window: int | None
            Tokens that `llm` reads and writes. None takes its `metadata.context_window`.
        reader_tokenizer: callable | None
            Text to tokens of `llm`, for counting. None takes LlamaIndex's global tokenizer (`Settings.tokenizer`).

    Key init args — selection:
        top_k: int | None
            Keep so many segments of what does not fit.
        token_budget: int | None
            Keep as many as fit so many tokens of the scoring model. With neither, the best up to where
            the scores drop most, eight at most.
        measure: str | None
            Name of the certainty measure. None takes the engine's.
        hops: int
            2 for questions that need two passages: the question is asked again, led by what was found first.
        prefilter: callable | None
            Chooses the segments that the model reads, such as `BM25(n=256)`. None lets it read all.
        question_tokens: int | None
            How many of a bare prompt's last tokens are its question; None takes an eighth of the window, 64 at most.
        delimiter: str | None
            A string that stands in bare prompts between context and question, or around the context.

    Key init args — the answer:
        max_new_tokens: int | None
            Length of the answer at most. None takes the engine's, with `llm=` its `metadata.num_output`. With `llm=`
            only room is reserved; the limit itself is set on `llm`, or passed at call time under the name it knows.
        temperature: float | None
            Above 0, the own model samples. Not with `llm=`, which has its own.
        reader_options: dict
            More arguments for the reader: of `generate` of transformers, or of the calls of `llm`.
        context_window: int
            What `metadata.context_window` reports; see below.

    Instantiate:
        .. code-block:: python

            from xl3m_integrations.llama_index import XL3MLLM

            llm = XL3MLLM()
            llm = XL3MLLM(llm=other_llm)  # another reader

    Complete:
        .. code-block:: python

            llm.complete(long_prompt, max_new_tokens=32).text
            llm.complete(long_text, question="What is the access code?")

    Chat:
        .. code-block:: python

            llm.chat([ChatMessage(role="user", content=f"{long_text}\n\nWhat is the access code?")])

    Stream:
        .. code-block:: python

            for piece in llm.stream_complete(long_prompt):
                print(piece.delta, end="")

    Async:
        .. code-block:: python

            await llm.acomplete(long_prompt)  # also achat, astream_complete, astream_chat

    In a query engine:
        .. code-block:: python

            index.as_query_engine(llm=llm, similarity_top_k=200, response_mode="compact")

    Call arguments:
        `max_new_tokens` (or `max_tokens`), `stop`, `temperature`, `question`, `delimiter`, `question_tokens`, `top_k`,
        `token_budget`, `measure`, `hops` and `prefilter` overrule the fields for one call. All others go to the reader.
        The reader's own `top_k` is set in `reader_options`.

    Response:
        `additional_kwargs` holds `prompt_tokens` and, where something was left out, `xl3m_spans` and `xl3m_scores`.
        With the own model `raw` holds the same.

    Context window, and chat memory:
        A synthesizer packs as much retrieved text into one call as `metadata.context_window` says, and makes one call
        for each pack. Reported is therefore a window so large that one call gets everything. Chat memories derive their
        limit from the same number, and so never drop an old turn; old turns are then selected from, like any other long
        content, at the cost of reading them all in every turn. To have them dropped, give the memory a limit:

        .. code-block:: python

            ChatMemoryBuffer.from_defaults(token_limit=3000)
            Memory.from_defaults(token_limit=3000)

    Raises:
        SettingError: The reader's window is unknown, or a field is out of its range.
    """

    llm: LLM | None = Field(default=None, exclude=True)
    reader_window: int | None = None
    reader_tokenizer: Callable[[str], Sequence[Any]] | None = Field(default=None, exclude=True)
    question_tokens: int | None = None
    delimiter: str | None = None
    max_new_tokens: int | None = None
    temperature: float | None = None
    reader_options: dict[str, Any] = Field(default_factory=dict)
    context_window: int = UNBOUNDED

    def __init__(self, **fields: Any) -> None:
        wrapped = fields.get("llm")
        if isinstance(wrapped, LLM):  # its prompts are formatted here, so by its own functions
            fields = {name: getattr(wrapped, name) for name in _INHERITED} | fields
        super().__init__(**fields)
        self._check()

    @classmethod
    def class_name(cls) -> str:
        """Name of the class in serialized form."""
        return "XL3MLLM"

    @property
    def metadata(self) -> LLMMetadata:
        """What LlamaIndex asks before it packs prompts; see "Context window" above."""
        if self.llm is not None:
            told = self.llm.metadata.model_copy(update={"context_window": self.context_window})
            return told.model_copy(update={"num_output": self._answer_tokens({}), "is_function_calling_model": False})
        return LLMMetadata(
            context_window=self.context_window,
            num_output=self._answer_tokens({}),
            is_chat_model=self._reader.is_chat,
            model_name=self.engine_name,
        )

    # ------------------------------------------------------------------------------------------ prompts
    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Answer a prompt of any length; see "Call arguments" above.

        Raises:
            InputError: Instructions and question alone exceed the reader's window.
        """
        return self._reader.complete(self._fitting_prompt(prompt, formatted, kwargs, Cancellation()))

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """`complete`, piece by piece. Closing the generator stops the work."""
        return self._reader.stream_complete(self._fitting_prompt(prompt, formatted, kwargs, Cancellation()))

    @llm_completion_callback()
    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """`complete` while the event loop goes on. Cancelling stops the work."""
        fitting = await in_thread(lambda c: self._fitting_prompt(prompt, formatted, kwargs, c))
        return await self._reader.acomplete(fitting)

    @llm_completion_callback()
    async def astream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseAsyncGen:
        """`stream_complete` while the event loop goes on. Cancelling, or leaving the loop, stops the work."""
        fitting = await in_thread(lambda c: self._fitting_prompt(prompt, formatted, kwargs, c))
        return await self._reader.astream_complete(fitting)

    # ------------------------------------------------------------------------------------------ conversations
    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer a conversation of any length. Of what does not fit, the last user message's question stays verbatim.

        So do system messages as far as half of the window goes, and of longer ones the beginning and the end.

        Raises:
            InputError: There is no user message, a message holds an image or the like, or what stays verbatim exceeds
                the reader's window.
            SettingError: No segment fits beside it, or a setting is out of its range.
        """
        return self._reader.chat(self._fitting_chat(messages, kwargs, Cancellation()))

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """`chat`, piece by piece. Closing the generator stops the work."""
        return self._reader.stream_chat(self._fitting_chat(messages, kwargs, Cancellation()))

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """`chat` while the event loop goes on. Cancelling stops the work."""
        fitting = await in_thread(lambda c: self._fitting_chat(messages, kwargs, c))
        return await self._reader.achat(fitting)

    @llm_chat_callback()
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        """`stream_chat` while the event loop goes on. Cancelling, or leaving the loop, stops the work."""
        fitting = await in_thread(lambda c: self._fitting_chat(messages, kwargs, c))
        return await self._reader.astream_chat(fitting)

    # ------------------------------------------------------------------------------------------ templates
    def predict(self, prompt: BasePromptTemplate, **prompt_args: Any) -> str:
        """Answer a template. Where it has retrieved text and a query, the text is cut to what the query needs.

        Of a chat template whose other messages fill the window, all are cut, as `chat` does.

        Raises:
            XL3MError: The template exceeds the reader's window even without the retrieved text. No ValueError, which
                LlamaIndex's synthesizers would take for an empty response.
        """
        with _unswallowed():
            fitted, args = self._with_room(prompt, prompt_args, Cancellation())
            return super().predict(fitted, **args)

    def stream(self, prompt: BasePromptTemplate, **prompt_args: Any) -> TokenGen:
        """`predict`, piece by piece."""
        with _unswallowed():
            fitted, args = self._with_room(prompt, prompt_args, Cancellation())
            return super().stream(fitted, **args)

    async def apredict(self, prompt: BasePromptTemplate, **prompt_args: Any) -> str:
        """`predict` while the event loop goes on. Cancelling stops the work."""
        with _unswallowed():
            fitted, args = await in_thread(lambda c: self._with_room(prompt, prompt_args, c))
            return await super().apredict(fitted, **args)

    async def astream(self, prompt: BasePromptTemplate, **prompt_args: Any) -> TokenAsyncGen:
        """`stream` while the event loop goes on."""
        with _unswallowed():
            fitted, args = await in_thread(lambda c: self._with_room(prompt, prompt_args, c))
            return await super().astream(fitted, **args)

    def structured_predict(
        self, output_cls: type[Model], prompt: PromptTemplate, llm_kwargs: dict[str, Any] | None = None, **args: Any
    ) -> Model:
        """Answer a template by an object. The template is cut as `predict` and `chat` do, the schema is not.

        Raises:
            XL3MError: Template and schema exceed the reader's window even without what is cut.
        """
        with _unswallowed():
            fitted, args = self._beside_schema(output_cls, prompt, llm_kwargs, args, Cancellation())
            answer: Model = super().structured_predict(output_cls, fitted, llm_kwargs, **args)
            return answer

    def stream_structured_predict(
        self, output_cls: type[Model], prompt: PromptTemplate, llm_kwargs: dict[str, Any] | None = None, **args: Any
    ) -> Generator[Any, None, None]:
        """`structured_predict`, as the object grows."""
        with _unswallowed():
            fitted, args = self._beside_schema(output_cls, prompt, llm_kwargs, args, Cancellation())
            return super().stream_structured_predict(output_cls, fitted, llm_kwargs, **args)

    async def astructured_predict(
        self, output_cls: type[Model], prompt: PromptTemplate, llm_kwargs: dict[str, Any] | None = None, **args: Any
    ) -> Model:
        """`structured_predict` while the event loop goes on. Cancelling stops the work."""
        with _unswallowed():
            fitted, args = await in_thread(lambda c: self._beside_schema(output_cls, prompt, llm_kwargs, args, c))
            answer: Model = await super().astructured_predict(output_cls, fitted, llm_kwargs, **args)
            return answer

    async def astream_structured_predict(
        self, output_cls: type[Model], prompt: PromptTemplate, llm_kwargs: dict[str, Any] | None = None, **args: Any
    ) -> AsyncGenerator[Any, None]:
        """`stream_structured_predict` while the event loop goes on."""
        with _unswallowed():
            fitted, args = await in_thread(lambda c: self._beside_schema(output_cls, prompt, llm_kwargs, args, c))
            return await super().astream_structured_predict(output_cls, fitted, llm_kwargs, **args)

    def _with_room(
        self, prompt: BasePromptTemplate, arguments: dict[str, Any], cancellation: Cancellation
    ) -> tuple[BasePromptTemplate, dict[str, Any]]:
        """Template and arguments, cut as far as the template's parts are known; else the prompt is fitted later."""
        chosen, call = self._selected(prompt), self._call({}, cancellation)
        arguments = self._cut(chosen, arguments, call)
        if isinstance(chosen, ChatPromptTemplate):
            return self._cut_messages(chosen, arguments, call)
        return chosen, arguments

    def _beside_schema(
        self,
        output_cls: type[BaseModel],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None,
        arguments: dict[str, Any],
        cancellation: Cancellation,
    ) -> tuple[Any, dict[str, Any]]:
        """Template and arguments that fit the window together with the schema, which LlamaIndex appends to them."""
        schema = PydanticOutputParser(output_cls=output_cls).format("")
        call = self._call(llm_kwargs or {}, cancellation, reserved=self._reader.count(schema) + SEAM_TOKENS)
        # In a copy, since LlamaIndex leaves the schema in the template that it is given.
        chosen = self._selected(prompt).model_copy(update={"output_parser": None})
        return self._cut_messages(chosen, self._cut(chosen, arguments, call), call)

    def _selected(self, prompt: BasePromptTemplate) -> BasePromptTemplate:
        return prompt.select(llm=self) if isinstance(prompt, SelectorPromptTemplate) else prompt

    def _cut(self, prompt: BasePromptTemplate, arguments: dict[str, Any], call: _Call) -> dict[str, Any]:
        """The template's arguments, its retrieved text cut to the room that the rest leaves."""
        known = {**prompt.kwargs, **arguments}
        name = next((name for name in _CONTEXTS if isinstance(known.get(name), str)), None)
        query = _query(known)
        if name is None or query is None or self._template_tokens(prompt, arguments) <= call.window.prompt:
            return arguments
        around = self._template_tokens(prompt, {**arguments, name: ""})
        room = call.window.prompt - around - SEAM_TOKENS
        if isinstance(prompt, ChatPromptTemplate) and room < self.engine.segmenter.segment_tokens:
            return arguments  # the other messages are too long as well, and are cut with it
        if room < 1:
            raise InputError(
                f"The prompt takes {around} tokens without its retrieved text and the answer up to "
                f"{call.window.answer}, but the reader's window is {call.window.tokens} tokens. Shorten query or "
                "template, or lower max_new_tokens."
            )
        context, _ = self.engine.key_context(known[name], query, room, self._reader.count, **call.choice)
        return {**arguments, name: context.text}

    def _cut_messages(
        self, prompt: BasePromptTemplate, arguments: dict[str, Any], call: _Call
    ) -> tuple[BasePromptTemplate, dict[str, Any]]:
        """Template and arguments; where they exceed the window, a template of messages that are cut as in a chat."""
        if self._template_tokens(prompt, arguments) <= call.window.prompt:
            return prompt, arguments
        query = _query({**prompt.kwargs, **arguments})
        if query is not None and self._reader.count(query) <= call.window.prompt // 4:  # else the question is in it
            call = replace(call, fitting={**call.fitting, "question": call.fitting["question"] or query})
        messages = prompt.format_messages(**arguments)
        extended = self._extend_messages(messages)
        fitted = self._fit_turns(turns_of(extended), call)
        # LlamaIndex puts the system prompt before them once more.
        return ChatPromptTemplate(with_texts(extended, fitted.texts)[len(extended) - len(messages) :]), {}

    def _template_tokens(self, prompt: BasePromptTemplate, arguments: dict[str, Any]) -> int:
        if not self.metadata.is_chat_model:
            return self._reader.count_prompt(self._get_prompt(prompt, **arguments))
        turns = turns_of(self._get_messages(prompt, **arguments))
        return self._reader.count_turns(turns, [turn.text for turn in turns])

    # ------------------------------------------------------------------------------------------ making it fit
    def _fitting_prompt(
        self, prompt: str, formatted: bool, kwargs: Mapping[str, Any], cancellation: Cancellation
    ) -> FittingPrompt:
        call = self._call(kwargs, cancellation)
        wrap = (lambda text: text) if formatted else self._wrap
        fitted, tokens = self._fit(prompt, wrap, formatted, call)
        info = {**fitted.info(), "prompt_tokens": tokens}
        return FittingPrompt(call.window.answer, call.options, info, fitted.prompt, wrap(fitted.prompt), formatted)

    def _fit(self, prompt: str, wrap: Callable[[str], str], formatted: bool, call: _Call) -> tuple[FittedPrompt, int]:
        """The prompt that fits once it is wrapped, and its tokens when it is."""
        if call.fitting["delimiter"] is None:
            prompt = with_question(prompt, call.fitting["question"])
        tokens = self._reader.count_prompt(wrap(prompt))
        if tokens <= call.window.prompt:
            return FittedPrompt(prompt, tokens), tokens
        around = self._reader.count_prompt(wrap(""))
        count = self._reader.count_prompt if formatted else self._reader.count
        window = replace(call.window, tokens=call.window.tokens - around, count=count)
        fitted = fit_prompt(self.engine, prompt, window, **call.fitting, **call.choice)
        return fitted, self._reader.count_prompt(wrap(fitted.prompt))

    def _fitting_chat(
        self, messages: Sequence[ChatMessage], kwargs: Mapping[str, Any], cancellation: Cancellation
    ) -> FittingChat:
        call = self._call(kwargs, cancellation)
        fitted = self._fit_turns(turns_of(messages), call)
        return FittingChat(call.window.answer, call.options, fitted.info(), messages, fitted.texts)

    def _fit_turns(self, turns: Sequence[Turn], call: _Call) -> FittedConversation:
        count = partial(self._reader.count_turns, turns)
        question = call.fitting["question"]
        return fit_conversation(self.engine, turns, call.window, count, question=question, **call.choice)

    # ------------------------------------------------------------------------------------------ the reader
    @property
    def _reader(self) -> OwnReader | WrappedReader:
        if self.llm is not None:
            return WrappedReader(self.llm, self.reader_window, self.reader_tokenizer)
        own = self.messages_to_prompt not in (None, plain_messages)
        return OwnReader.of(self.engine, self.messages_to_prompt if own else None)

    def _wrap(self, prompt: str) -> str:
        """A prompt in the user's own format, or as one user message where the model expects messages."""
        if self.completion_to_prompt not in (None, default_completion_to_prompt):
            return self.completion_to_prompt(prompt)
        return self._reader.as_message(prompt)

    # ------------------------------------------------------------------------------------------ settings of a call
    def _call(self, kwargs: Mapping[str, Any], cancellation: Cancellation | None = None, reserved: int = 0) -> _Call:
        """What is asked for; `reserved` tokens of the window are left free."""
        given = {name: value for name, value in kwargs.items() if value is not None}
        window = Window(self._reader.window - reserved, self._answer_tokens(given), self._reader.count)
        choice = _chosen(self.choice, given)
        selector_of(**choice)
        choice["progress"] = cancellation
        fitting = {name: given.pop(name, getattr(self, name, None)) for name in _FITTING}
        if (last := fitting["question_tokens"]) is not None and (not isinstance(last, int) or last < 1):
            raise SettingError(f"question_tokens is {last!r}; it must be a whole number, at least 1.")
        if self.llm is not None:
            return _Call(window, choice, fitting, {**self.reader_options, **given})
        given = {name: value for name, value in given.items() if name not in ("max_new_tokens", "max_tokens")}
        stop = stop_strings(given.pop("stop", self.reader_options.get("stop", ())))
        sampling = _sampling(given.pop("temperature", self.temperature))
        return _Call(window, choice, fitting, {**self.reader_options, **sampling, **given, "stop": stop})

    def _answer_tokens(self, kwargs: Mapping[str, Any]) -> int:
        asked = kwargs.get("max_new_tokens", kwargs.get("max_tokens", self.max_new_tokens))
        if asked is None:
            asked = self.engine.max_new_tokens if self.llm is None else max(1, self.llm.metadata.num_output)
        if not isinstance(asked, int) or asked < 1:
            raise SettingError(f"max_new_tokens is {asked!r}; it must be a whole number, at least 1.")
        return asked

    def _check(self) -> None:
        window = self._call({}).window
        if self.llm is not None and self.temperature is not None:
            raise SettingError("temperature is for the own model; with llm=, set it on llm, or in reader_options.")
        if self.llm is None and self.reader_window is not None:
            raise SettingError("reader_window is for llm=; an own model's is set by model_options={'window': …}.")
        if window.prompt < 1:
            raise SettingError(
                f"The answer may take {window.answer} tokens, but the reader's window is {window.tokens} tokens and "
                "must hold the prompt too; lower max_new_tokens."
            )


@contextmanager
def _unswallowed() -> Iterator[None]:
    # LlamaIndex's synthesizers take a ValueError for an answer that cannot be parsed, and go on without it.
    try:
        yield
    except (InputError, SettingError) as error:
        raise XL3MError(str(error)) from error


def _query(arguments: Mapping[str, Any]) -> str | None:
    query = arguments.get("query_str")
    return query if isinstance(query, str) and query.strip() else None


def _chosen(fields: Choice, given: dict[str, Any]) -> Choice:
    """The fields, overruled by what is taken out of `given`; `top_k` and `token_budget` overrule each other."""
    names = ("top_k", "token_budget", "measure", "hops", "prefilter")
    asked: Any = {name: given.pop(name) for name in names if name in given}
    if "top_k" in asked or "token_budget" in asked:
        asked = {"top_k": None, "token_budget": None} | asked
    chosen: Choice = {**fields, **asked}
    return chosen


def _sampling(temperature: float | None) -> dict[str, Any]:
    if temperature is None:
        return {}
    if temperature < 0:
        raise SettingError(f"temperature is {temperature}; it must not be negative.")
    return {"temperature": temperature}
