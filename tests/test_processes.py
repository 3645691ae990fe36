"""Several processes on one machine: the same losses as one, one writer, resume after a kill; the engine that was asked for."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time

import pytest

from zhtune.records import write_jsonl

pytest.importorskip("trl")
pytestmark = pytest.mark.slow

SFT = ["-m", "zhtune", "sft", "--model", "new:llama-tiny", "--schedule.learning_rate", "5e-3", "--schedule.batch_size", "4",
       "--schedule.precision", "fp32", "--schedule.epochs", "4"]


@pytest.fixture
def talks(tmp_path):
    write_jsonl(tmp_path / "talks.jsonl", ({"id": f"r{i}", "messages": [{"role": "user", "content": f"{i}加一？" * (1 + i % 3)},
                                                                     {"role": "assistant", "content": f"是{i + 1}"}]} for i in range(21)))
    return str(tmp_path / "talks.jsonl")


def environment(**more):
    return {**os.environ, "OMP_NUM_THREADS": "1", **more}


def run(arguments, **more):
    done = subprocess.run([sys.executable, *arguments], env=environment(**more), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def launched(processes=2):
    return ["-m", "torch.distributed.run", "--nproc_per_node", str(processes), "--master_addr", "127.0.0.1", "--master_port", str(port())]


def losses(folder):
    return [loss for _, loss in json.loads((folder / "report.json").read_text())["losses"]]


@pytest.mark.parametrize("method", ["full", "lora"])
def test_two_processes_train_as_one_and_one_writes(tmp_path, talks, method):
    common = [*SFT, "--records", talks, "--method", method, "--validation.share", "0.2"]
    run([*common, "--out", str(tmp_path / "one")])
    done = run([*launched(), *common, "--out", str(tmp_path / "two")])
    assert losses(tmp_path / "one") == pytest.approx(losses(tmp_path / "two"), rel=1e-5)
    one, two = (json.loads((tmp_path / name / "report.json").read_text()) for name in ("one", "two"))
    assert [v for _, v in one["validation"]] == pytest.approx([v for _, v in two["validation"]], rel=1e-5) and one["counts"] == two["counts"]
    assert done.stdout.count(str(tmp_path / "two")) == 1 and sorted(p.name for p in tmp_path.glob("two*")) == ["two"]
    again = run([*launched(), *common, "--out", str(tmp_path / "two")])
    assert "is up to date" in again.stderr


def test_two_processes_go_on_after_a_kill(tmp_path, talks):
    common = [*launched(), *SFT, "--records", talks, "--method", "full", "--schedule.checkpoints", "12"]
    run([*common, "--out", str(tmp_path / "whole")])
    process = subprocess.Popen([sys.executable, *common, "--out", str(tmp_path / "cut")], env=environment(), start_new_session=True,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    marked = tmp_path / "cut.partial" / "checkpoints"
    for _ in range(1200):
        if list(marked.glob("checkpoint-*/whole.json")) or process.poll() is not None:
            break
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "cut").exists()
    run([*common, "--out", str(tmp_path / "cut")])
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")


def test_packed_validated_noisy_training_survives_kills_at_seeded_moments(tmp_path, talks):
    common = [*SFT, "--records", talks, "--method", "full", "--packing", "true", "--max_length", "96", "--neftune", "5", "--schedule.epochs", "30",
              "--validation.share", "0.2", "--schedule.checkpoints", "20", "--schedule.micro_batch", "2"]
    began = time.monotonic()
    run([*common, "--out", str(tmp_path / "whole")])
    seconds, generator, kills = time.monotonic() - began, random.Random(7), 0
    while not (tmp_path / "cut").exists():
        process = subprocess.Popen([sys.executable, *common, "--out", str(tmp_path / "cut")], env=environment(), stderr=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL)
        try:
            process.wait(timeout=generator.uniform(0.4, 1.0) * seconds if kills < 3 else None)
        except subprocess.TimeoutExpired:
            process.kill()
            kills += 1
        assert process.wait() in (0, -signal.SIGKILL)
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")


def test_a_full_disk_stops_in_words_and_the_last_checkpoint_stays_good(tmp_path, talks):
    common = [*SFT, "--records", talks, "--method", "full", "--out", str(tmp_path / "full"), "--schedule.checkpoints", "3"]
    # a file size limit stands for the disk: weights (0.35 MB) fit, the optimizer's state (0.7 MB) does not
    limited = f"ulimit -f 600; exec {sys.executable} {' '.join(common)}"
    done = subprocess.run(["bash", "-c", limited], env=environment(), capture_output=True, text=True, timeout=600)
    assert done.returncode == 1 and "the disk is full (or a file size limit is reached)" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "full").exists() and (tmp_path / "full.partial").exists()
    run(common)
    assert len(losses(tmp_path / "full")) == 21


@pytest.mark.parametrize(("strategy", "method"), [("zero2", "lora"), ("zero3", "lora"), ("zero2", "p-tuning-v2"), ("zero2", "bottleneck")])
def test_deepspeed_is_what_runs_when_it_is_asked_for(tmp_path, talks, strategy, method):
    pytest.importorskip("deepspeed")
    common = [*SFT, "--records", talks, "--method", method, "--tuning.prefix.dropout", "0"]
    run([*common, "--out", str(tmp_path / "plain")])
    alone = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port()), "DS_ACCELERATOR": "cpu"}
    run([*common, "--launch.strategy", strategy, "--out", str(tmp_path / "ds")], **alone)
    assert losses(tmp_path / "ds") == pytest.approx(losses(tmp_path / "plain"), rel=1e-3)
