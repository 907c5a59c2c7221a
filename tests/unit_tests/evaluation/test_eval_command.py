"""`xl3m eval`: what it prints and writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import Result
from command_line import run

from xl3m_integrations.engine import XL3M
from xl3m_integrations.evaluation import evaluate


def run_eval(model: str, *arguments: str) -> Result:
    fixed = ("--model", model, "--dtype", "float32", "--methods", "xl3m,head,full", "--n", "1", "--seed", "4")
    return run("eval", *fixed, *arguments)


def test_tables_file_and_plots(model: str, tmp_path: Path):
    result = run_eval(
        model, "--tasks", "kv,vt_2", "--lengths", "300,600", "--json", f"{tmp_path}/e.json", "--plots", f"{tmp_path}/p"
    )
    assert result.exit_code == 0, result.output
    shown = " ".join(result.stdout.split())  # however the lines were broken
    for said in (
        "all tasks, 300 tokens",
        "kv, 600 tokens",
        "recall",
        "@16",
        "all",
        "seed 4",
        "Left out",
        "xl3m",
        "head",
    ):
        assert said in shown
    body = json.loads((tmp_path / "e.json").read_text(encoding="utf-8"))
    assert (body["complete"], body["settings"]["seed"]) == (True, 4)
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".part" or path.name.startswith(".")] == []
    assert (tmp_path / "p" / "heat-map-xl3m.png").is_file()


def test_another_exit_layer_ranks_otherwise(model: str):
    bodies = [
        json.loads(run_eval(model, "--tasks", "kv", "--lengths", "3000", "--json", "-", *how).stdout)
        for how in (("--measure", "entropy"), ("--measure", "entropy", "--exit-layer", "1"))
    ]
    assert [body["settings"]["exit_layer"] for body in bodies] == [None, 1]
    ranks = [[record["ranks"] for record in body["records"]] for body in bodies]
    assert ranks[0] != ranks[1]


def test_json_to_the_output_is_one_object_and_what_python_gives(model: str):
    result = run_eval(model, "--tasks", "kv", "--lengths", "300", "--json", "-")
    body = json.loads(result.stdout)
    xl3m = XL3M.from_pretrained(model, dtype="float32")
    found = evaluate(xl3m, tasks=["kv"], lengths=[300], n=1, seed=4, methods=["xl3m", "head", "full"])
    steady = [{**record, "seconds": 0} for record in body["records"]]
    assert steady == [{**record, "seconds": 0} for record in json.loads(found.to_json())["records"]]


def test_rows_and_haystack(model: str, tmp_path: Path):
    (tmp_path / "a.txt").write_text("One word after the other. " * 50, encoding="utf-8")
    row = {"question": "Where?", "answers": "Oslo", "docs": ["In Oslo. " * 90], "gold": [0]}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row), encoding="utf-8")
    result = run_eval(model, "--rows", f"{tmp_path}/rows.jsonl")
    assert result.exit_code == 0, result.output
    assert "rows, as given" in result.stdout
    result = run_eval(model, "--haystack", f"{tmp_path}/*.txt", "--tasks", "passkey", "--lengths", "300", "--json", "-")
    assert json.loads(result.stdout)["settings"]["haystack"] == "texts"


def test_a_run_without_seed_draws_one(model: str):
    arguments = ("--model", model, "--tasks", "kv", "--lengths", "300", "--n", "1", "--methods", "head", "--json", "-")
    results = [run("eval", *arguments) for _ in range(2)]
    assert len({json.loads(result.stdout)["settings"]["seed"] for result in results}) == 2


def test_a_time_limit_is_told(model: str):
    result = run_eval(model, "--tasks", "kv", "--lengths", "300", "--time-limit", "0")
    assert result.exit_code == 0, result.output
    assert "The run ended early" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--lengths", "8x"), "no whole number"),
        (("--tasks", "magic"), "Unknown task"),
        (("--methods", "magic"), "Unknown method"),
        (("--plots", "/dev/null/plots"), "cannot be made"),
        (("--json", "/nowhere/at/all/e.json"), "cannot be written"),
    ],
)
def test_wrong_calls(model: str, arguments: tuple[str, ...], said: str):
    result = run_eval(model, *arguments)
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())


def test_lengths_may_have_units(model: str):
    result = run_eval(model, "--tasks", "kv", "--lengths", "0.3k", "--json", "-")
    assert result.exit_code == 2
    result = run_eval(model, "--tasks", "kv", "--lengths", "1k", "--json", "-", "--methods", "head")
    assert json.loads(result.stdout)["settings"]["lengths"] == [1_000]
