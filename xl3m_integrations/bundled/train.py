"""Train the bundled model from scratch: `python -m xl3m_integrations.bundled.train --haystack DIR --out DIR`.

With `--start` it goes on from a finished model. Seeded and resumable: every row depends on (seed, part, step) alone,
and a run that was stopped goes on from its last checkpoint. Work: about 6 FLOP a parameter and token, and attention
beside it. On a GPU one process trains on all parts of a step, which worker processes make ahead of it: 16 of them made
1.2 million tokens a second, and an H200 could have trained on 2.4 million, with `--compile`. On a CPU processes share
the parts and average their gradients, as two single-thread processes beat two OpenMP threads; with 1.8M parameters they
came to 13,000 tokens a second.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.multiprocessing.spawn import spawn
from torch.utils.data import DataLoader
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from xl3m_integrations.backends.loading import cpu_computes_bfloat16, pick_device
from xl3m_integrations.bundled import attention, corpus
from xl3m_integrations.bundled.corpus import Prose
from xl3m_integrations.bundled.examples import SHAPES, sees
from xl3m_integrations.bundled.model import build_model, llama_config
from xl3m_integrations.bundled.plan import Plan
from xl3m_integrations.bundled.rows import Batch, Rows
from xl3m_integrations.bundled.tokenizer import train_tokenizer
from xl3m_integrations.writing import replacing

Optimizers = tuple[torch.optim.Optimizer, torch.optim.Optimizer]

log = logging.getLogger("xl3m.train")


def read_haystack(folder: Path | None) -> Prose | None:
    """All `*.txt` files of `folder` as prose; None without a folder."""
    if folder is None:
        return None
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in sorted(folder.glob("*.txt"))]
    if not texts:
        raise SystemExit(f"--haystack {folder} holds no .txt file; give a folder of plain text, or leave it out.")
    return Prose(texts)


def tokenizer_texts(prose: Prose | None, rng: random.Random, documents: int = 6_000) -> Iterator[str]:
    """Text like that of training, for the tokenizer's merges."""
    for _ in range(documents):
        sentences = corpus.filler(rng, 600, prose if rng.random() < 0.6 else None)
        facts = corpus.unambiguous(rng, [], 8)
        yield corpus.weave(rng, sentences, facts)[0]
        yield "\n".join(question for fact in facts for question in fact.questions)
    for _ in range(20):
        for _, before, after in SHAPES:
            yield before
            yield after


# ---------------------------------------------------------------------------------------------- checkpoints
def save_checkpoint(folder: Path, model: LlamaForCausalLM, optimizers: Optimizers, step: int) -> None:
    """Write model, optimisers and step; the file is replaced at once or not at all."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    tensors = {f"model.{name}": parameter.detach() for name, parameter in model.named_parameters()}
    for optimizer in optimizers:
        for parameter, state in optimizer.state.items():
            for key, value in state.items():
                tensors[f"state.{key}.{names[id(parameter)]}"] = value
    with replacing(folder / "checkpoint.safetensors") as beside:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, beside, {"step": str(step)})


def load_checkpoint(folder: Path, model: LlamaForCausalLM, optimizers: Optimizers) -> int:
    """Restore what `save_checkpoint` wrote; gives the step with which the run goes on."""
    path = folder / "checkpoint.safetensors"
    with safe_open(path, "pt") as file:
        step = int(file.metadata()["step"])
    tensors = load_file(path)
    for name, parameter in model.named_parameters():
        parameter.data.copy_(tensors[f"model.{name}"])
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for optimizer in optimizers:
        for parameter in (p for group in optimizer.param_groups for p in group["params"]):
            found = {key.split(".")[1]: value for key, value in tensors.items() if _is_state(key, names[id(parameter)])}
            if found:  # the count of steps, a number, stays on the CPU
                optimizer.state[parameter] = {
                    key: value.to(parameter.device) if value.ndim else value for key, value in found.items()
                }
    return step


def _is_state(key: str, name: str) -> bool:
    return key.startswith("state.") and key.split(".", 2)[2] == name


# ---------------------------------------------------------------------------------------------- one step
def make_optimizers(model: LlamaForCausalLM, plan: Plan) -> Optimizers:
    """Muon for the matrices inside the layers, AdamW for embeddings, biases and norms.

    Beside AdamW alone, on the same rows, Muon's answer loss was 0.2 nats lower after 300 steps.
    """
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    muon = torch.optim.Muon(matrices, lr=0.0, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    return muon, torch.optim.AdamW(others, lr=0.0, weight_decay=0.0, betas=(0.9, 0.95))


def losses(forward: Any, head: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean cross-entropy of the answer tokens and of the other tokens, in nats.

    Products are in bfloat16, but on a CPU that does not compute in it.
    """
    hidden_places = ~sees(batch["blocks"])
    rounds = head.device.type != "cpu" or cpu_computes_bfloat16()
    mask = torch.zeros(hidden_places.shape, dtype=torch.bfloat16 if rounds else head.dtype, device=head.device)
    with torch.autocast(head.device.type, torch.bfloat16, enabled=rounds):
        hidden = forward(
            input_ids=batch["input_ids"],
            position_ids=batch["position_ids"],
            attention_mask=mask.masked_fill_(hidden_places, -1e30),
            use_cache=False,
        ).last_hidden_state
        logits = torch.nn.functional.linear(hidden.flatten(0, 1)[batch["places"]], head)
    nats = torch.nn.functional.cross_entropy(logits.float(), batch["labels"], reduction="none")
    answers = batch["answers"]
    return _mean(nats, answers), _mean(nats, ~answers)


def _mean(nats: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    return (nats * chosen).sum() / chosen.sum().clamp(min=1)


def average_gradients(model: LlamaForCausalLM, processes: int) -> None:
    """All-reduce the gradients as one flat tensor."""
    if processes == 1:
        return
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    at = 0
    for gradient in gradients:
        gradient.copy_((flat[at : at + gradient.numel()] / processes).view_as(gradient))
        at += gradient.numel()


# ---------------------------------------------------------------------------------------------- the run
def resume(
    run: Path, plan: Plan, device: torch.device
) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast, Optimizers, int]:
    """Model, tokenizer, optimisers and next step: from the checkpoint, or from the plan's start."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(run / "tokenizer")
    if plan.start:
        model = LlamaForCausalLM.from_pretrained(plan.start, dtype=torch.float32)
    else:
        special = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
        size = (plan.hidden_size, plan.intermediate_size, plan.layers)
        model = build_model(llama_config(len(tokenizer), plan.window, *special, *size), plan.seed)
    model = model.to(device)
    optimizers = make_optimizers(model, plan)
    step = load_checkpoint(run, model, optimizers) if (run / "checkpoint.safetensors").exists() else 0
    return model, tokenizer, optimizers, step


def train_process(
    rank: int,
    plan: Plan,
    haystack: Path | None,
    out: Path,
    device: torch.device,
    processes: int,
    workers: int,
    compiled: bool,
    stop_after: int | None,
) -> None:
    """What each process runs, from model to last checkpoint."""
    logging.basicConfig(level=logging.INFO if rank == 0 else logging.WARNING, format="%(asctime)s %(message)s")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    torch.set_num_threads(1)
    if processes > 1:
        os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
        dist.init_process_group("gloo", rank=rank, world_size=processes)
    model, tokenizer, optimizers, first = resume(out, plan, device)
    model.config._attn_implementation = attention.NAME if device.type == "cpu" else "sdpa"
    forward: Any = torch.compile(model.model, dynamic=False) if compiled else model.model
    rows = Rows(plan, tokenizer, read_haystack(haystack), range(rank, plan.parts, processes), device.type != "cpu")
    steps = range(first, min(plan.steps, stop_after or plan.steps))
    ahead = 4 if workers else None  # steps for each worker
    loader = DataLoader(
        rows,
        batch_size=None,
        sampler=steps,
        num_workers=workers,
        prefetch_factor=ahead,
        pin_memory=device.type == "cuda",
    )
    began = time.monotonic()
    for step, batches in zip(steps, loader, strict=True):
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = plan.learning_rate(step)
        for batch in batches:
            moved = {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
            answer, language = losses(forward, model.lm_head.weight, moved)
            ((answer + plan.lm_weight * language) / len(batches)).backward()
        average_gradients(model, processes)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        last = step == steps[-1]
        if rank == 0 and (step % 20 == 0 or last):
            speed = (step + 1 - first) * plan.parts * plan.part_tokens / (time.monotonic() - began)
            figures = f"answer {answer.item():.3f} lm {language.item():.3f} nats, {speed:,.0f} tokens/s"
            log.info("step %d/%d length %d: %s", step, plan.steps, moved["input_ids"].shape[1], figures)
        if rank == 0 and ((step + 1) % 200 == 0 or last):
            save_checkpoint(out, model, optimizers, step + 1)
    if processes > 1:
        dist.destroy_process_group()


def export(run: Path, out: Path, start_share: float = 0.0) -> None:
    """Write the checkpoint of `run` as a Hugging Face model folder in bfloat16.

    Args:
        run: The run's folder.
        out: The model's folder.
        start_share: Share of the weights that the run began with, where it began with a finished model's. The mean of
            both keeps most of what either can do (WiSE-FT, arXiv 2109.01903).
    """
    plan = Plan.from_json((run / "plan.json").read_text())
    model, tokenizer, _, _ = resume(run, plan, torch.device("cpu"))
    if plan.start and start_share:
        before = LlamaForCausalLM.from_pretrained(plan.start, dtype=torch.float32).state_dict()
        for name, parameter in model.named_parameters():  # those that layers share are named once
            parameter.data.lerp_(before[name], start_share)
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m xl3m_integrations.bundled.train", description=__doc__)
    parser.add_argument("--haystack", type=Path, help="folder of .txt files to hide facts in, beside generated filler")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints; a run found there is resumed")
    parser.add_argument("--export", type=Path, help="write the finished model to this folder")
    parser.add_argument("--tokens", type=int, default=Plan().tokens, help="of the whole run")
    parser.add_argument("--parts", type=int, default=Plan().parts, help=f"of a step, {Plan().part_tokens} tokens each")
    parser.add_argument("--seed", type=int, default=Plan().seed)
    parser.add_argument("--start", default="", help="folder of a finished model to go on from")
    parser.add_argument("--start-share", type=float, default=0.0, help="share of its weights in what is exported")
    parser.add_argument("--peak-lr", type=float, default=Plan().peak_lr, help="highest learning rate")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cuda or cpu")
    parser.add_argument("--processes", type=int, default=2, help="on a CPU: processes that share a step")
    parser.add_argument(
        "--workers", type=int, help="more processes that make rows ahead; on a GPU one per core, else none, if left out"
    )
    parser.add_argument(
        "--compile", action="store_true", help="torch.compile the model: 1.5x faster, needs a C++ compiler"
    )
    parser.add_argument("--stop-after", type=int, help="stop at this step; run again to go on")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Command line of the training script."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if not 0 <= options.start_share <= 1 or (options.start_share and not options.start):
        parser.error(
            f"--start-share is {options.start_share}; it is a share, from 0 to 1, of the model that --start names"
        )
    device = pick_device(options.device)
    plan = Plan(
        seed=options.seed,
        tokens=options.tokens,
        parts=options.parts,
        start=options.start,
        peak_lr=options.peak_lr,
    )
    prepare(plan, options.haystack, options.out)
    on_cpu = device.type == "cpu"
    processes = options.processes if on_cpu else 1
    workers = (0 if on_cpu else os.cpu_count() or 1) if options.workers is None else options.workers
    task = (plan, options.haystack, options.out, device, processes, workers, options.compile, options.stop_after)
    if processes == 1:
        train_process(0, *task)
    else:
        os.environ.setdefault("MASTER_PORT", str(20_000 + os.getpid() % 20_000))
        spawn(train_process, task, nprocs=processes)
    if options.export:
        export(options.out, options.export, options.start_share)


def prepare(plan: Plan, haystack: Path | None, out: Path) -> None:
    """Make the run's folder, or check that it belongs to the same plan."""
    if plan.start and not Path(plan.start).is_dir():
        raise SystemExit(f"--start {plan.start} is no folder; give that of a finished model, or leave it out.")
    out.mkdir(parents=True, exist_ok=True)
    recorded = out / "plan.json"
    if recorded.exists():
        before = recorded.read_text()
        if before != plan.to_json():
            raise SystemExit(f"{out} holds a run with other settings: {before}; choose another --out or delete it.")
        return
    if plan.start:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(plan.start)
    else:
        texts = tokenizer_texts(read_haystack(haystack), random.Random(plan.seed))
        tokenizer = train_tokenizer(texts, plan.vocab_size, plan.window)
    tokenizer.save_pretrained(out / "tokenizer")
    recorded.write_text(plan.to_json())


if __name__ == "__main__":
    main()
