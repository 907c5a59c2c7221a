"""Rows, initial copy heads, and a training run that resumes exactly."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from xl3m_integrations.bundled import attention, corpus, train
from xl3m_integrations.bundled.examples import ExampleMaker, collate, sees
from xl3m_integrations.bundled.model import build_model, llama_config
from xl3m_integrations.bundled.plan import Plan
from xl3m_integrations.bundled.rows import Rows
from xl3m_integrations.bundled.tokenizer import train_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    rng = random.Random(0)
    texts = ["\n".join(corpus.any_fact(rng).statement for _ in range(20)) for _ in range(300)]
    return train_tokenizer(texts, 1_024, 256)


def test_every_digit_is_a_token_of_its_own_with_its_space(tokenizer: PreTrainedTokenizerFast) -> None:
    assert [tokenizer.decode([i]) for i in tokenizer.encode(" 48213", add_special_tokens=False)] == [" 4", *"8213"]


def test_any_text_comes_back_from_the_tokenizer(tokenizer: PreTrainedTokenizerFast) -> None:
    text = "naïve 漢字 🙂\r\n\ttabs  and   spaces"
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_a_rows_answers_are_the_values_in_the_context_or_absent(tokenizer: PreTrainedTokenizerFast) -> None:
    maker = ExampleMaker(tokenizer, None, random.Random(1))
    present = asked = 0
    for _ in range(60):
        row = maker.row(256, 100)
        assert len(row.ids) == len(row.positions) == len(row.blocks) == len(row.weights) <= 256
        context = tokenizer.decode([i for i, block in zip(row.ids, row.blocks, strict=True) if block == 0])
        for block in range(1, max(row.blocks) + 1):
            answer = [
                i
                for i, own, weight in zip(row.ids, row.blocks, row.weights, strict=True)
                if own == block and weight > 0
            ]
            assert answer[-1] == tokenizer.eos_token_id
            asked += 1
            present += tokenizer.decode(answer[:-1]).strip() in context
    assert asked > 100 and 0.4 < present / asked < 0.95


def test_a_question_sees_the_context_and_itself_only(tokenizer: PreTrainedTokenizerFast) -> None:
    """Each question's logits in a row of several equal those of context + question alone."""
    maker = ExampleMaker(tokenizer, None, random.Random(2))
    row = next(row for row in (maker.row(256, 80) for _ in range(50)) if max(row.blocks) >= 2)
    model = build_model(llama_config(len(tokenizer), 256, 1, 2, 0), seed=0).eval()
    batch = collate([row], 0, 256)
    with torch.inference_mode():
        together = model(
            input_ids=batch["input_ids"], position_ids=batch["position_ids"], attention_mask=sees(batch["blocks"])
        ).logits[0]
        for block in (1, 2):
            places = [at for at, own in enumerate(row.blocks) if own in (0, block)]
            alone = model(input_ids=torch.tensor([[row.ids[at] for at in places]])).logits[0]
            torch.testing.assert_close(together[places], alone, atol=1e-4, rtol=1e-4)


def test_initial_heads_look_one_and_two_tokens_back(tokenizer: PreTrainedTokenizerFast) -> None:
    config = llama_config(len(tokenizer), 256, 1, 2, 0)
    config._attn_implementation = "eager"
    model = build_model(config, seed=0).eval()
    ids = torch.randint(10, 1_000, (1, 60), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        attention = model(input_ids=ids, output_attentions=True).attentions[0][0]
    for head, offset in enumerate((1, 1, 2)):
        looked = attention[head, 5:].argmax(-1)
        assert (torch.arange(5, 60) - looked == offset).all()


def test_the_training_attention_is_attention(tokenizer: PreTrainedTokenizerFast) -> None:
    """In float32 it equals PyTorch's own, also for a number of tokens that its groups do not divide."""
    torch.manual_seed(0)
    for tokens in (1, 7, 64, 101):
        query, key, value = (torch.randn(2, 3, tokens, 8) for _ in range(3))
        sees = torch.rand(2, 1, tokens, tokens).lt(0.6).tril() | torch.eye(tokens, dtype=torch.bool)
        mask = torch.zeros(sees.shape).masked_fill(~sees, -1e30)
        found, _ = attention.attend(None, query, key, value, mask, 8**-0.5)
        expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=sees)
        torch.testing.assert_close(found.transpose(1, 2), expected, atol=1e-5, rtol=1e-5)


def test_the_curriculum_covers_the_run() -> None:
    plan = Plan(curriculum_tokens=1_000_000)
    step_tokens = plan.parts * plan.part_tokens
    stages = [plan.stage(step) for step in range(2_000_000 // step_tokens)]
    assert stages[0].length == 192 and {stage.length for stage in stages[4:]} == {384, 704}


def test_the_learning_rate_rises_stays_and_falls_to_zero() -> None:
    plan = Plan(tokens=40_000_000, peak_lr=3e-3, decay_share=0.3)
    rates = [plan.learning_rate(step) for step in range(plan.steps + 1)]
    assert rates[0] < rates[50] < max(rates) == rates[200] == 3e-3
    assert rates[-2] < 1e-4 and rates[-1] == 0


def test_parts_read_together_or_one_by_one_teach_the_same(tokenizer: PreTrainedTokenizerFast) -> None:
    """All parts in one batch, and two processes with a batch for each part, predict the same tokens."""
    plan = Plan(parts=4, part_tokens=1_024)
    (together,) = Rows(plan, tokenizer, None, range(4), True)[3]
    apart = [batch for rank in range(2) for batch in Rows(plan, tokenizer, None, range(rank, 4, 2), False)[3]]
    assert [int(batch["input_ids"].shape[1]) for batch in apart] == [together["input_ids"].shape[1]] * 4
    order = (apart[0], apart[2], apart[1], apart[3])
    for name in ("input_ids", "position_ids", "blocks", "labels", "answers"):
        torch.testing.assert_close(together[name], torch.cat([batch[name] for batch in order]))
    predicting = together["input_ids"].flatten()[together["places"] + 1]
    torch.testing.assert_close(predicting, together["labels"])
    assert together["answers"].any() and not together["answers"].all()


@pytest.mark.slow
def test_a_run_that_was_stopped_ends_like_one_that_was_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does it matter whether rows are made by workers, ahead of the model, or where they are needed."""

    def run(folder: Path, workers: str, *stops: str) -> dict[str, torch.Tensor]:
        size = ["--tokens", "60000", "--parts", "2", "--device", "cpu", "--processes", "1", "--workers", workers]
        for stop in stops:
            train.main(["--out", str(folder), *size, "--stop-after", stop, "--export", str(folder / "m")])
        return load_file(folder / "checkpoint.safetensors")

    threads = torch.get_num_threads()
    monkeypatch.setattr(train, "tokenizer_texts", lambda prose, rng: _few_texts(rng))
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")  # a run sets it
    whole, parts = run(tmp_path / "whole", "0", "3"), run(tmp_path / "parts", "2", "1", "3")
    torch.set_num_threads(threads)
    assert whole.keys() == parts.keys()
    for name, tensor in whole.items():
        torch.testing.assert_close(parts[name], tensor, atol=1e-5, rtol=1e-4, msg=name)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "whole" / "m")
    assert loaded.dtype == torch.bfloat16 and loaded.config.max_position_embeddings == 640


def _few_texts(rng: random.Random) -> list[str]:
    return ["\n".join(corpus.any_fact(rng).statement for _ in range(20)) for _ in range(100)]


def test_a_run_goes_on_from_a_finished_model(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    """With nothing to learn, at a rate of zero, its weights and its tokenizer come out as they were."""
    start, out, threads = tmp_path / "start", tmp_path / "out", torch.get_num_threads()
    special = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    build_model(llama_config(len(tokenizer), 640, *special), seed=3).to(torch.bfloat16).save_pretrained(start)
    tokenizer.save_pretrained(start)
    few = ["--tokens", "6144", "--parts", "1", "--device", "cpu", "--processes", "1", "--peak-lr", "0"]
    train.main(["--start", str(start), "--out", str(tmp_path / "run"), "--export", str(out), *few])
    torch.set_num_threads(threads)
    before, after = (load_file(folder / "model.safetensors") for folder in (start, out))
    assert before.keys() == after.keys()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert PreTrainedTokenizerFast.from_pretrained(out).get_vocab() == tokenizer.get_vocab()


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_an_export_holds_a_share_of_the_start(tokenizer: PreTrainedTokenizerFast, tmp_path: Path, share: float) -> None:
    start, run = tmp_path / "start", tmp_path / "run"
    special = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    first, last = (build_model(llama_config(len(tokenizer), 640, *special), seed=seed) for seed in (3, 4))
    first.save_pretrained(start)
    plan = Plan(start=str(start))
    tokenizer.save_pretrained(run / "tokenizer")
    (run / "plan.json").write_text(plan.to_json())
    train.save_checkpoint(run, last, train.make_optimizers(last, plan), 1)
    train.export(run, tmp_path / "out", share)
    exported = load_file(tmp_path / "out" / "model.safetensors")
    before, after = first.state_dict(), last.state_dict()
    for name, tensor in exported.items():
        expected = share * before[name] + (1 - share) * after[name]
        torch.testing.assert_close(tensor.float(), expected, atol=1e-6, rtol=2**-8, msg=name)


def test_a_start_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="is no folder"):
        train.main(["--start", str(tmp_path / "none"), "--out", str(tmp_path / "run")])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("wrong", [["--start-share", "0.5"], ["--start", "model", "--start-share", "1.5"]])
def test_a_share_of_no_start_or_beyond_the_whole_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: list[str]
) -> None:
    with pytest.raises(SystemExit):
        train.main(["--out", str(tmp_path / "run"), *wrong])
    assert "from 0 to 1" in capsys.readouterr().err


def test_a_folder_of_another_plan_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(json.dumps({"seed": 99}))
    with pytest.raises(SystemExit, match="other settings"):
        train.main(["--out", str(tmp_path)])


def test_a_haystack_without_texts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"no \.txt file"):
        train.read_haystack(tmp_path)
