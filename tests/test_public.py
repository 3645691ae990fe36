"""The public API and the command line."""

import dataclasses
import importlib
import re
import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import get_type_hints

import pytest
import yaml

import zhtune
from zhtune.cli import POSITIONAL, VERBS, load, main
from zhtune.config import Checked, parse, read_yaml
from zhtune.errors import ConfigError
from zhtune.stages.run import _require_files, read_recipe
from zhtune.train.schedule import Schedule

ROOT = Path(__file__).resolve().parents[1]


def test_all_is_sorted_and_every_name_is_there():
    assert zhtune.__all__ == sorted(zhtune.__all__)
    assert all(getattr(zhtune, name) is not None for name in zhtune.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        zhtune.nothing  # noqa: B018


def test_every_verb_has_a_function_and_a_config_and_no_module_shadows_it():
    children = {p.stem for p in (ROOT / "zhtune").iterdir() if not p.name.startswith("__")}
    for verb in VERBS:
        function, config = load(verb)
        name = verb.replace("-", "_")
        assert callable(function) and dataclasses.is_dataclass(config) and getattr(zhtune, name) is function
        kinds = [config, *(kind for kind in get_type_hints(config).values() if dataclasses.is_dataclass(kind))]
        assert all(issubclass(kind, Checked) for kind in kinds)     # else nothing calls their check()
        assert name not in children


@pytest.mark.parametrize(("made", "message"), [
    (lambda: zhtune.SftConfig(model="m", records="r", out="o", method="Full"), "SftConfig.method: 'Full' is none of: full, freeze, lora, qlora"),
    (lambda: zhtune.SftConfig(model="m", records="r", out="o", max_length="512"), "SftConfig.max_length: '512' is not of type int"),
    (lambda: zhtune.SftConfig(model="m", records="r", out="o", schedule={"epochs": 2}), "SftConfig.schedule: {'epochs': 2} is not of type Schedule"),
    (lambda: zhtune.ExtendConfig(model="m", out="o", rope="yarnn"), "ExtendConfig.rope: 'yarnn' is none of: linear, dynamic, yarn"),
    (lambda: zhtune.KgConfig(input=["a", 1], out="o"), "KgConfig.input: ['a', 1] is not of type str"),
    (lambda: zhtune.PreferConfig(graph="g", out="o", flaws=[1]), "PreferConfig.flaws: [1] is not of type list[str]"),
    (lambda: Schedule(decay="cosin"), "Schedule.decay: 'cosin' is none of: linear, cosine, constant"),
    (lambda: Schedule(epochs=True), "Schedule.epochs: True is not of type int"),
])
def test_a_value_that_no_flag_would_take_is_refused_in_python_too(made, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        made()
    config = zhtune.SftConfig(model=Path("m"), records=[Path("a/b"), "c"], out=Path("o"), schedule=Schedule(learning_rate=1))
    assert (config.model, config.records, config.out, config.schedule.learning_rate) == ("m", ["a/b", "c"], "o", 1)


def test_a_key_that_stands_twice_is_refused(tmp_path):
    (tmp_path / "r.yaml").write_text("workspace: out\npack: {model: a}\nsft:\n  model: &m x\n  lora: {rank: 1}\npack: {model: b}\n", "utf-8")
    with pytest.raises(ConfigError, match=r"r.yaml is not valid YAML: 'pack' stands twice in .*line 6, column 1"):
        read_yaml(tmp_path / "r.yaml")
    (tmp_path / "c.yaml").write_text("out: o\ninput: a\nout: p\n", "utf-8")
    for flags in (["--config", str(tmp_path / "c.yaml")], [f"--config={tmp_path / 'c.yaml'}", "--seed", "1"]):
        with pytest.raises(ConfigError, match="'out' stands twice"):
            parse(zhtune.KgConfig, "kg", flags)
    (tmp_path / "r.yaml").write_text("a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}\n1: c\n", "utf-8")
    assert read_yaml(tmp_path / "r.yaml") == {"a": {"x": 1, "y": 2}, "b": {"x": 3, "y": 2}, 1: "c"}
    (tmp_path / "r.yaml").write_text("1: a\n'': b\n", "utf-8")
    assert read_yaml(tmp_path / "r.yaml") == {1: "a", "": "b"}
    (tmp_path / "r.yaml").write_text("a: &a {rank: 1}\nb: {c: &c {<<: *a, rank: 2}}\nd: {<<: *c}\n", "utf-8")     # d merges c before c is made
    assert read_yaml(tmp_path / "r.yaml") == {"a": {"rank": 1}, "b": {"c": {"rank": 2}}, "d": {"rank": 2}}


def test_help_is_quick():
    def once():
        began = time.monotonic()
        out = subprocess.run([sys.executable, "-m", "zhtune", "--help"], capture_output=True, text=True, check=True).stdout
        assert all(verb in out for verb in VERBS)
        return time.monotonic() - began
    assert statistics.median(once() for _ in range(3)) < 0.5


def test_shipped_recipes_parse():
    recipes = sorted((ROOT / "scripts" / "recipes").glob("*.yaml"))
    assert len(recipes) >= 2
    for path in recipes:
        sections = read_recipe(yaml.safe_load(path.read_text("utf-8")), Path("out"), path.name)
        assert len(sections) >= (10 if path.stem in ("quickstart", "smoke") else 2), path.stem


@pytest.mark.parametrize(("argv", "message"), [
    (["clean", "--inputt", "x"], "clean has no field 'inputt'; did you mean 'input'?"),
    (["extend", "--model", "x", "--vocab", "y", "--out", "z", "--rope", "bogus"], "--rope bogus is none of: linear, dynamic, yarn"),
    (["clean", "--out", "o", "--input", "no-such-folder"], "no-such-folder does not exist"),
    (["clean"], "the following arguments are required"),
    (["clean", "--out", "o", "--input", "x", "--heldout", "2"], "--heldout is a share from 0 to below 1, not 2.0"),
    (["run", "no.yaml"], "no.yaml cannot be read: No such file or directory"),
    (["show", "nothing"], "nothing is no finished artifact"),
    (["evaluate", "--model", "new:x", "--out", "o"], "evaluate needs something to measure on"),
])
def test_a_mistake_is_one_line_and_status_1(argv, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(argv) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not list(tmp_path.glob("o*"))


def test_a_misspelt_verb_names_the_nearest(capsys):
    assert main(["sfft"]) == 2 and "did you mean 'sft'?" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "message"), [
    ("sft:\n  model: nowhere\n  records: ./x", "sft.model: 'nowhere' is no earlier section"), ("nosuch: {}", "'nosuch' is no stage"),
    ("kg:\n  input: ./x\nvocab:\n  graph: kg\nextend:\n  model: embedded\n  vocab: kg", "extend.vocab: kg makes graph; extend reads vocab or file there"),
    ("clean:\n  input: ./x\nsft:\n  model: embedded\n  records: clean", "sft.records: clean makes corpus or report; sft reads records or file there"),
    ("chat:\n  model: embedded", "chat writes no artifact"), ("clean:\n  input: ./x\n  colour: red", "clean has no field 'colour'")])
def test_a_recipe_with_a_mistake_is_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        read_recipe(yaml.safe_load(text), Path("out"), "r.yaml")


def test_a_section_may_make_another_kind_than_its_first():
    recipe = {"lint": {"preferences": "./p.jsonl"}, "dpo": {"model": "embedded", "preferences": "lint"}, "merge": {"adapter": "dpo"},
              "extend": {"model": "merge", "vocab": "./v"}, "sft": {"model": "extend", "records": "./r", "start": "dpo", "method": "p-tuning-v2"}}
    assert [s.needs for s in read_recipe(recipe, Path("out"), "r.yaml")] == [(), ("lint",), ("dpo",), ("merge",), ("extend", "dpo")]
    # and no other: every kind that a module sets is one that its stage names
    for path in sorted((ROOT / "zhtune" / "stages").glob("*.py")):
        for kind in re.findall(r'work\.kind = "([a-z]+)"', path.read_text("utf-8")):
            stage = importlib.import_module(f"zhtune.stages.{path.stem}").STAGE
            assert kind in (stage.kind, *stage.others), path


def test_what_an_earlier_section_writes_may_be_named_by_its_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.txt").write_text("文" * 300, "utf-8")
    recipe = {"workspace": "out", "clean": {"input": "in.txt"}, "vocab": {"corpus": str(tmp_path / "out" / "clean")}}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False), "utf-8")
    assert main(["run", "r.yaml", "--until", "clean"]) == 0
    assert main(["run", "r.yaml", "--dry_run", "true"]) == 0
    for section in read_recipe(recipe, tmp_path / "elsewhere", "r.yaml"):
        _require_files(section, Path("out"))


def test_a_recipe_names_a_missing_file_before_any_stage_runs(tmp_path, capsys):
    (tmp_path / "in.txt").write_text("文" * 300, "utf-8")
    recipe = {"workspace": str(tmp_path / "out"), "clean": {"input": str(tmp_path / "in.txt")}, "kg": {"input": str(tmp_path / "graf")}}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False), "utf-8")
    for more in ([], ["--dry_run", "true"]):
        assert main(["run", str(tmp_path / "r.yaml"), *more]) == 1
        assert capsys.readouterr().err.strip() == f"zhtune: kg.input: {tmp_path / 'graf'} does not exist" and not (tmp_path / "out").exists()


def test_the_readme_names_every_verb_and_no_other():
    text = (ROOT / "README.md").read_text("utf-8")
    table = [cell for row in re.findall(r"^\| ([a-z][a-z, -]*) \|", text, re.MULTILINE) for cell in row.split(", ")]
    assert sorted(table) == sorted(VERBS)


@pytest.mark.parametrize(("page", "least"), [("README.md", 9), ("docs/instruction-data.md", 7), ("docs/corpora.md", 7), ("docs/graph.md", 6),
                                            ("docs/models.md", 7), ("docs/templates.md", 5), ("docs/training.md", 3), ("docs/vocabulary.md", 5),
                                            ("docs/formats.md", 3)])
def test_the_commands_of_the_pages_parse(page, least):
    text = (ROOT / page).read_text("utf-8")
    blocks = "\n".join(re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    commands = re.findall(r"^(?:\.venv/bin/)?zhtune ([a-z].*?)(?:\s+#.*)?$", blocks, re.MULTILINE)
    assert len(commands) >= least
    for command in commands:
        verb, *argv = shlex.split(command)
        if verb in POSITIONAL:
            argv = [f"--{POSITIONAL[verb]}", *argv]
        parse(load(verb)[1], verb, argv)


def test_the_scripts_of_the_readme_are_there_and_can_be_run():
    for name in ("scripts/quickstart", "scripts/test", "scripts/check", ".ci/run"):
        assert (ROOT / name).stat().st_mode & 0o111, name
    for link in re.findall(r"\]\(([^)#:]+)\)", (ROOT / "README.md").read_text("utf-8")):
        assert (ROOT / link).exists(), link
