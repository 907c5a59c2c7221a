"""An LLM that takes a prompt of any length."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models.llms import BaseLLM
from langchain_core.messages import AIMessage
from langchain_core.outputs import Generation, GenerationChunk, LLMResult
from pydantic import Field

from xl3m_integrations.adapting import STRICT, EngineFields
from xl3m_integrations.concurrency import Cancellation, in_thread
from xl3m_integrations.fitting import FittedPrompt, fit_prompt
from xl3m_integrations.langchain.fields import ReaderFields
from xl3m_integrations.langchain.readers import Reader


class XL3MLLM(ReaderFields, EngineFields, BaseLLM):
    r"""A LangChain LLM whose prompts may be far longer than its model's window.

    A prompt that fits the window reaches the model as it is. A longer one is taken apart into instructions, context and
    question; instructions and question reach the model verbatim, of the context only the segments after which the
    scoring model is most certain. By default the question is the prompt's last tokens, taken back to the start of their
    paragraph (the paper's rule); `question=` or `delimiter=` at call time say it exactly.

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
            Keep as many as fit so many tokens of the scoring model. With neither, the best up to where
            the scores drop most, as many as fit the window and eight at most.
        measure: str | None
            Name of the certainty measure. None takes the engine's.
        hops: int
            2 for questions that need two passages: the question is asked again, led by what was found first.
        prefilter: callable | None
            Chooses the segments that the model reads, such as `BM25(n=256)`. None lets it read all.

    Key init args - reader:
        llm: BaseLanguageModel | None
            Any LangChain LLM or chat model that answers instead. A loaded `HuggingFacePipeline` is taken apart: its
            model scores and answers, and is not loaded twice. The work of any other is part of this model's run, so
            that callbacks hear every token once.
        reader_window: int | None
            Tokens that `llm` reads and writes. None asks the model.
        max_tokens: int | None
            Tokens of the answer at most (alias `max_new_tokens`). None takes a tenth of the window, 16 to 256.
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

    Key init args - prompt:
        question_tokens: int | None
            How many of the last tokens are the question, before they are taken back. None takes an eighth of the
            window, 64 at most.
        delimiter: str | None
            A string that stands in prompts between context and question, or twice, around the context.

    Instantiate:
        .. code-block:: python

            from xl3m_integrations.langchain import XL3MLLM

            llm = XL3MLLM()

    Invoke:
        .. code-block:: python

            llm.invoke(long_text + "\n\nQuestion: What is the access code?\nAnswer:")
            llm.invoke(long_prompt, question="What is the access code?")

    Stream:
        .. code-block:: python

            for piece in llm.stream(long_prompt):
                print(piece, end="")

    Async:
        .. code-block:: python

            await llm.ainvoke(long_prompt)

    Generation info:
        `prompt_tokens` and `completion_tokens`; where something was cut also `xl3m_spans` (characters of the prompt
        that were kept), `xl3m_scores`, `xl3m_certainty` and `xl3m_found`.
    """

    model_config = STRICT

    question_tokens: int | None = Field(default=None, ge=1)
    delimiter: str | None = None

    @property
    def _llm_type(self) -> str:
        return "xl3m"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return self.identity() | {"question_tokens": self.question_tokens, "delimiter": self.delimiter}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> Any:
        return super()._get_ls_params(stop=stop, **kwargs) | self.tracing(stop, kwargs)

    # ------------------------------------------------------------------------------------------ ways to call
    def _generate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        reader = self.reader(stop, kwargs)
        fitted = self._all_fitted(prompts, reader, kwargs, Cancellation())
        return self._result(fitted, reader.answers([one.prompt for one in fitted]), reader)

    async def _agenerate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        reader = self.reader(stop, kwargs)
        fitted = await in_thread(lambda cancellation: self._all_fitted(prompts, reader, kwargs, cancellation))
        return self._result(fitted, await reader.aanswers([one.prompt for one in fitted]), reader)

    def _stream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[GenerationChunk]:
        reader = self.reader(stop, kwargs)
        (fitted,) = self._all_fitted([prompt], reader, kwargs, Cancellation())
        written = ""
        for piece in reader.stream(fitted.prompt):
            chunk = GenerationChunk(text=str(piece.text))
            written += chunk.text
            if run_manager is not None:
                run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk
        yield GenerationChunk(text="", generation_info=_info(fitted, written, reader))

    async def _astream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[GenerationChunk]:
        reader = self.reader(stop, kwargs)
        (fitted,) = await in_thread(lambda cancellation: self._all_fitted([prompt], reader, kwargs, cancellation))
        written = ""
        async for piece in reader.astream(fitted.prompt):
            chunk = GenerationChunk(text=str(piece.text))
            written += chunk.text
            if run_manager is not None:
                await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk
        yield GenerationChunk(text="", generation_info=_info(fitted, written, reader))

    # ------------------------------------------------------------------------------------------ what they share
    def _all_fitted(
        self, prompts: Sequence[str], reader: Reader, kwargs: dict[str, Any], cancellation: Cancellation
    ) -> list[FittedPrompt]:
        how = self.choice_of(kwargs, cancellation)
        return [
            fit_prompt(
                self.engine,
                prompt,
                reader.window,
                question=kwargs.get("question"),
                delimiter=kwargs.get("delimiter", self.delimiter),
                question_tokens=self.question_tokens,
                **how,
            )
            for prompt in prompts
        ]

    def _result(self, fitted: Sequence[FittedPrompt], answers: Sequence[AIMessage], reader: Reader) -> LLMResult:
        generations = [
            [Generation(text=(text := str(answer.text)), generation_info=_info(one, text, reader))]
            for one, answer in zip(fitted, answers, strict=True)
        ]
        return LLMResult(generations=generations, llm_output={"model_name": self.reader_name})


def _info(fitted: FittedPrompt, text: str, reader: Reader) -> dict[str, Any]:
    return fitted.info() | {"completion_tokens": reader.window.count(text)}
