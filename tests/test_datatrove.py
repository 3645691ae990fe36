"""`scripts/datatrove_clean.py`: what several tasks make of a corpus is what `zhtune clean` makes, byte for byte."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from zhtune.artifact import Artifact
from zhtune.config import parse
from zhtune.stages.clean import CleanConfig, clean

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "datatrove_clean.py"
STORY = ["".join(chr(0x4E00 + (37 * i + 11 * n * (i + 3)) % 9000) for n in range(40)) + "。" for i in range(40)]
FOOT = "\n扫码关注我们的公众号"


def configured(folder):
    """A YAML file for `clean` of five files with good and bad documents."""
    texts = folder / "in"
    texts.mkdir()
    (texts / "a.jsonl").write_text("".join(json.dumps({"text": "".join(STORY[i:i + 4]) + FOOT}) + "\n" for i in range(0, 40, 4)) + "{broken\n", "utf-8")
    (texts / "b.txt").write_bytes(("".join(STORY[4:8]) + "联系电话13912345678。").encode("gb18030"))
    (texts / "c.html").write_text(f"<title>t</title><p>{''.join(STORY[9:13])}</p>", "utf-8")
    (texts / "d.txt").write_text("短。", "utf-8")
    (texts / "e.dat").write_bytes(b"?")
    path = folder / "clean.yaml"
    path.write_text(json.dumps({"input": str(texts), "out": str(folder / "ranks"), "preset": "shipped:web", "rules": {"boilerplate": 3, "script": "keep"},
                                "near": 0.6, "heldout": 0.3, "max_characters": 100}), "utf-8")
    return path


def same(folder, path):
    """That the corpus of the tasks is the one that `clean` writes: data, refusals, counts, identity."""
    config = parse(CleanConfig, "clean", ["--config", str(path)])
    made = Artifact.open(folder / "ranks", verify=True)
    whole = clean(CleanConfig(**{**vars(config), "out": str(folder / "whole")}))
    assert whole.manifest["counts"]["dropped"] == {"bad_json": 1, "near_duplicate": 1, "too_short": 1, "unknown_format": 1} and whole.manifest["counts"]["kept"] == 11
    assert made.digest == whole.digest and made.manifest["identity"] == whole.manifest["identity"] and made.manifest["metrics"] == whole.manifest["metrics"]
    assert b"13912345678" not in (made.path / "dropped.jsonl").read_bytes() and clean(config).digest == made.digest      # which is up to date
    texts = b"".join(p.read_bytes() for p in made.path.glob("*.parquet"))
    assert FOOT.strip().encode() not in texts


def test_tasks_in_any_number_and_order_make_the_same_corpus(tmp_path):
    spec = importlib.util.spec_from_file_location("datatrove_clean", SCRIPT)
    script = sys.modules["datatrove_clean"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    path = configured(tmp_path)
    for number, tasks in enumerate((1, 7)):
        job = script.job_of(parse(CleanConfig, "clean", ["--config", str(path)]), tasks)
        job.folder.mkdir()
        for step in (script.count, script.judge):
            for rank in reversed(range(tasks)):
                step(job, None, rank, tasks)
        script.gather(job, None, 0, 1)
        same(tmp_path, path)
        os.rename(tmp_path / "ranks", tmp_path / f"ranks-{number}")


def ran(*arguments):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SCRIPT.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])}
    return subprocess.run([sys.executable, str(SCRIPT), *map(str, arguments)], capture_output=True, text=True, timeout=300, env=environment)


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["local", "ray"])
def test_executors_on_one_machine(tmp_path, executor):
    pytest.importorskip("datatrove")
    if executor == "ray":
        pytest.importorskip("ray")
    path = configured(tmp_path)
    done = ran(path, "--tasks", 2, "--executor", executor, *(["--options", '{"mem_per_cpu_gb": 0.5}'] if executor == "ray" else []))
    assert done.returncode == 0, done.stderr[-2000:]
    same(tmp_path, path)
    assert sorted(p.name for p in tmp_path.iterdir() if not p.name.startswith(".")) == ["clean.yaml", "in", "ranks", "whole"]


def test_a_wrong_config_is_one_line_and_makes_nothing(tmp_path):
    path = tmp_path / "clean.yaml"
    path.write_text(json.dumps({"input": str(tmp_path / "nowhere"), "out": str(tmp_path / "o")}), "utf-8")
    done = ran(path)
    assert done.returncode == 1 and done.stderr.splitlines()[-1].endswith("nowhere does not exist") and "Traceback" not in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["clean.yaml"]
