"""`jaxtune generate`: files in and out, one prompt on the command line, what is typed wrong."""

import csv
import json

import pytest

import jaxtune as jt
from jaxtune.__main__ import run
from jaxtune.run.cli import run_command

TEXTS = ["the cat, so good", "film", "a dog ran on the film"]
WARM = ["--max_new_tokens=5", "--temperature=1.2", "--top_p=0.9", "--seed=4"]


@pytest.fixture(scope="module")
def folder(tiny_weights):
    return tiny_weights("causal_lm", "gpt2")


@pytest.fixture(scope="module")
def expected(folder):
    model = jt.load(folder)
    return model.generate(TEXTS, max_new_tokens=5, temperature=1.2, top_p=0.9, seed=4)


def test_files_of_prompts_and_of_texts(folder, expected, tmp_path, write_csv, capsys):
    source = write_csv(tmp_path / "in.csv", [[str(i), text] for i, text in enumerate(TEXTS)])
    source.write_text(source.read_text().replace("text,label", "id,start", 1))
    lines, table = tmp_path / "new" / "out.jsonl", tmp_path / "out.csv"
    for output in (lines, table):
        argv = [f"--model={folder}", f"--input={source}", f"--output={output}", *WARM]
        run(["generate", *argv, "--text_columns=start", "--batch_size=2"])
    assert [json.loads(line) for line in lines.read_text().splitlines()] == expected
    with table.open(newline="") as stream:
        assert list(csv.DictReader(stream)) == expected
    assert f"3 texts: {table}" in capsys.readouterr().out


def test_one_prompt_is_gone_on_with_on_the_terminal(folder, expected, capsys):
    run(["generate", f"--model={folder}", f"--prompt={TEXTS[0]}", *WARM])
    assert capsys.readouterr().out == expected[0]["text"] + "\n"
    run(["generate", f"--model={folder}", "--prompt=", *WARM])
    assert "1 of 1 prompts are empty" in capsys.readouterr().err


FILES = ["--input={input}", "--output={output}"]


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        ([], ("needs --model.",)),
        (["--model=m"], ("needs --input and --output, or --prompt.",)),
        (["--model=m", "--prompt=x", "--output=o.csv"], ("--prompt and --output",)),
        (["--model=m", "--input={input}", "--output=o.txt"], (".jsonl or .csv",)),
        (["--model=m", "--input={input}x", "--output=o.csv"], ("no such file. Nearest: in.txt",)),
        (["--model=m", *FILES, "--temprature=1"], ("Nearest: --temperature=1.",)),
        (["--model=m", *FILES, "--temperature=-1"], ("temperature is -1.0",)),
        (["--model=m", *FILES, "--temperature=1", "--top_p=0"], ("top_p is 0.0",)),
        (["--model={other}", *FILES], ("is a model for classification", "causal_lm")),
        (["--model={model}", "--input={long}", "--output={output}"], ("line 2: the prompt has",)),
    ],
)
def test_what_is_typed_wrong(folder, tiny_weights, tmp_path, capsys, argv, parts):
    names = {"input": tmp_path / "in.txt", "long": tmp_path / "long.txt", "model": folder}
    names["input"].write_text("film\n")
    names["long"].write_text("film\n" + "film " * 70 + "\n")
    names |= {"output": tmp_path / "out.jsonl", "other": tiny_weights("classification", "gpt2")}
    assert run_command(run, ["generate", *[word.format(**names) for word in argv]]) == 2
    found = capsys.readouterr()
    assert found.err.startswith("error: ")
    assert found.err.count("\n") == 1
    for part in parts:
        assert part in found.err
    assert not names["output"].exists()


@pytest.mark.exhaustive
def test_an_adapter_folder(folder, tiny_settings, tmp_path):
    """Of a strategy that no model folder can hold."""
    from jaxtune.run.console import Report
    from jaxtune.run.train import train

    settings = tiny_settings("causal_lm", "adapter", folder)
    train(settings, tmp_path / "run", Report(quiet=True))
    found = jt.load(tmp_path / "run" / "model")
    assert any("adapter" in leaf for leaf in str(found.saved.pretrained.params).split("'"))
    records = found.generate(TEXTS, max_new_tokens=5)
    assert [record["prompt"] for record in records] == TEXTS
