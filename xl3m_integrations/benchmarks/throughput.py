"""The benchmark behind `xl3m bench --shape`: a random model of a known shape, for figures of an accelerator.

Nothing is downloaded: the weights are drawn on the device and a text is read with the bundled tokenizer, whose ids all
shapes know. What is timed is `XL3M.select`, everything included. The work is counted where it is done, for each forward
pass over B rows of T tokens behind P tokens whose keys and values are kept, of which K positions go through the head:

    FLOP = 2 x weights of the layers' matrices x B T  +  2 x hidden size x vocabulary x B K
         + 4 x layers x heads x head size x B (P T + T (T + 1) / 2)

(a multiplication and an addition for each weight; the scores and the sum over the values of causal attention), and is
compared with the FLOP/s of a large matrix product on the same device and dtype in the same run.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor

from xl3m_integrations.backends.scoring_pass import is_out_of_memory
from xl3m_integrations.backends.transformers import TransformersBackend
from xl3m_integrations.certainty import Measure, get_measure
from xl3m_integrations.demo import make_haystack
from xl3m_integrations.engine import XL3M
from xl3m_integrations.errors import ScoringError, SettingError

LONG = 20_000_000  # tokens: the length of text that the paper reports
_LLAMA_2_7B = {
    "vocab_size": 32_000,
    "hidden_size": 4_096,
    "intermediate_size": 11_008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "max_position_embeddings": 4_096,
}
_QWEN_2_5_HALF_B = {
    "vocab_size": 151_936,
    "hidden_size": 896,
    "intermediate_size": 4_864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32_768,
    "tie_word_embeddings": True,
}
_TINY = {
    "vocab_size": 4_096,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {  # name -> (model type of transformers, configuration)
    "tiny": ("llama", _TINY),
    "0.5b": ("qwen2", _QWEN_2_5_HALF_B),
    "7b": ("llama", _LLAMA_2_7B),
}


@dataclass(frozen=True, slots=True)
class Throughput:
    """What the benchmark measured; rates are medians of the repeats.

    Attributes:
        shape: Name of the shape.
        parameters: Parameters of the model, embeddings included.
        device: Where it ran.
        device_name: What the device calls itself; the device's type where it does not.
        dtype: Of weights and matrix product.
        tokens: Tokens of the text.
        segment_tokens: Tokens of a segment.
        batch_tokens: Tokens of one forward pass, at most.
        read_tokens: Tokens that the model read for one selection: question, template, padding, overlaps and the second
            look included.
        flop: Floating-point operations of one selection; see the module.
        seconds: Of one selection, each repeat.
        read_tokens_per_second: Tokens that the model reads.
        document_tokens_per_second: Tokens of text that selection gets through.
        flops: Floating-point operations a second that this means.
        matmul_size: Rows and columns of the matrices that were multiplied.
        matmul_flops: Floating-point operations a second of their product, of the fastest of several.
        ratio: `flops` over `matmul_flops`, of each repeat the two measured one after the other; their median.
        long_seconds: Seconds that 20 million tokens of text would take at that rate, projected.
    """

    shape: str
    parameters: int
    device: str
    device_name: str
    dtype: str
    tokens: int
    segment_tokens: int
    batch_tokens: int
    read_tokens: int
    flop: float
    seconds: tuple[float, ...]
    read_tokens_per_second: float
    document_tokens_per_second: float
    flops: float
    matmul_size: int
    matmul_flops: float
    ratio: float
    long_seconds: float


def measure_throughput(
    shape: str,
    tokens: int,
    repeats: int,
    seed: int,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    measure: str | Measure | None = None,
    compile: bool | None = None,
) -> Throughput:
    """Time selection with a model of a shape and a matrix product in turn, `repeats` times each, after a warm-up.

    Args:
        shape: One of `SHAPES`.
        tokens: Length of the text.
        repeats: How often each is timed.
        seed: Of the weights and of the text.
        device: See `XL3M.from_pretrained`.
        dtype: See `XL3M.from_pretrained`.
        measure: See `XL3M`.
        compile: See `TransformersBackend`.

    Raises:
        SettingError: There is no such shape, device, dtype or measure, or a number is out of its range.
        ScoringError: The device's memory does not suffice for the model.
    """
    if repeats < 1:
        raise SettingError(f"repeats is {repeats}; it must be at least 1.")
    chosen = get_measure(measure)  # before a large model is made
    backend = counting_backend(shape, seed, device=device, dtype=dtype, compile=bool(compile))
    xl3m = XL3M(backend, measure=chosen)
    haystack = make_haystack(xl3m, tokens, 1, seed)
    question = haystack.needles[0][1].question
    # The warm-up is as what will be timed: some kernels are chosen by the shapes they first meet.
    document = xl3m.select(haystack.text, question).tokens
    product = _MatrixProduct(backend.device, backend.model.dtype)
    seconds, peaks = [], []
    for _ in range(repeats):
        seconds.append(_seconds(backend, partial(xl3m.select, haystack.text, question)))
        peaks.append(product.flops())
    taken = median(seconds)
    return Throughput(
        shape=shape,
        parameters=sum(parameter.numel() for parameter in backend.model.parameters()),
        device=str(backend.device),
        device_name=_device_name(backend.device),
        dtype=str(backend.model.dtype).removeprefix("torch."),
        tokens=document,
        segment_tokens=xl3m.segmenter.segment_tokens,
        batch_tokens=backend.batch_tokens,
        read_tokens=backend.read_tokens,
        flop=backend.flop,
        seconds=tuple(seconds),
        read_tokens_per_second=backend.read_tokens / taken,
        document_tokens_per_second=document / taken,
        flops=backend.flop / taken,
        matmul_size=product.size,
        matmul_flops=median(peaks),
        ratio=median(backend.flop / s / peak for s, peak in zip(seconds, peaks, strict=True)),
        long_seconds=LONG * taken / document,
    )


def _seconds(backend: CountingBackend, work: Callable[[], object]) -> float:
    """What the work takes; the backend counts anew."""
    backend.read_tokens, backend.flop = 0, 0.0
    began = time.perf_counter()
    work()
    _finish(backend.device)
    return time.perf_counter() - began


# ---------------------------------------------------------------------------------------------- the model
class CountingBackend(TransformersBackend):
    """Counts what its model computes.

    Attributes:
        read_tokens: Tokens read so far.
        flop: Floating-point operations so far; see the module.
    """

    read_tokens: int = 0
    flop: float = 0.0

    def logits(self, ids: Tensor, keep: Tensor | int, **cache: Any) -> Any:
        """See `TransformersBackend.logits`."""
        past = cache.get("past_key_values")
        before = 0 if past is None else past.get_seq_length()
        output = super().logits(ids, keep, **cache)
        rows, tokens = ids.shape
        self.read_tokens += rows * tokens
        self.flop += flop_of(self.model, rows, tokens, before, output.logits.shape[1])
        return output


def flop_of(model: Any, rows: int, tokens: int, before: int, kept: int) -> float:
    """Floating-point operations of one forward pass, by the formula of the module.

    Args:
        model: A causal language model of one of the `SHAPES`.
        rows: B.
        tokens: T, of each row.
        before: P, whose keys and values are kept.
        kept: K, positions of each row that go through the head.
    """
    head = model.get_output_embeddings().weight.numel()
    layers = sum(weight.numel() for weight in model.get_decoder().layers.parameters() if weight.dim() > 1)
    seen = before * tokens + tokens * (tokens + 1) / 2
    width = model.config.num_hidden_layers * model.config.hidden_size  # heads x head size is the latter in all shapes
    return float(rows * (2 * layers * tokens + 2 * head * kept + 4 * width * seen))


def config_of(shape: str) -> Any:
    """The configuration of a shape, for `AutoModelForCausalLM.from_config`.

    Raises:
        SettingError: There is no such shape.
    """
    from transformers import AutoConfig

    if shape not in SHAPES:
        raise SettingError(f"The shape {shape!r} is not known; choose one of {', '.join(SHAPES)}.")
    kind, settings = SHAPES[shape]
    return AutoConfig.for_model(kind, bos_token_id=1, eos_token_id=2, pad_token_id=0, **settings)


def counting_backend(
    shape: str,
    seed: int,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    compile: bool = False,
) -> CountingBackend:
    """A model of a shape with random weights, made on the device, behind the bundled tokenizer.

    Raises:
        SettingError: There is no such shape, device or dtype.
        ScoringError: The device's memory does not suffice.
    """
    from transformers import AutoModelForCausalLM

    from xl3m_integrations.backends.loading import load_tokenizer, pick_device, pick_dtype
    from xl3m_integrations.bundled import MODEL_FOLDER

    config, place = config_of(shape), pick_device(device)
    weights = pick_dtype(dtype, place)
    try:
        with torch.device(place), torch.random.fork_rng([place] if place.type == "cuda" else []):
            torch.manual_seed(seed)
            model = AutoModelForCausalLM.from_config(config, dtype=weights)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise ScoringError(
            f"A model of the shape {shape} does not fit the memory of {place}; choose a smaller shape "
            f"({', '.join(SHAPES)}), or a dtype of fewer bytes than {str(weights).removeprefix('torch.')}."
        ) from error
    return CountingBackend(model, load_tokenizer(MODEL_FOLDER), compile=compile)


# ---------------------------------------------------------------------------------------------- the device
class _MatrixProduct:
    """A product of two square matrices, large enough for the device to be at its best.

    That is what takes a hundredth of a second, or the largest size: a CPU that does not compute in bfloat16 would
    multiply the largest for a minute.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self._device = device
        sizes = (256, 512, 1_024, 2_048) if device.type == "cpu" else (1_024, 2_048, 4_096, 8_192)
        for self.size in sizes:
            self._left, self._right = (torch.randn(self.size, self.size, device=device, dtype=dtype) for _ in range(2))
            if 2.0 * self.size**3 / self.flops() >= 0.01:  # the warm-up too
                break

    def flops(self, times: int = 5) -> float:
        """Floating-point operations a second, of the fastest of several."""
        fastest = float("inf")
        for _ in range(times):
            _finish(self._device)
            began = time.perf_counter()
            torch.mm(self._left, self._right)
            _finish(self._device)
            fastest = min(fastest, time.perf_counter() - began)
        return 2.0 * self.size**3 / fastest


def _finish(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
