"""How a folder becomes finished, stays trusted, is skipped, resumed, found stale, rebuilt."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass, replace

import pytest
from filelock import FileLock

from zhtune.artifact import Artifact
from zhtune.building import Stage, build, status
from zhtune.config import StageConfig
from zhtune.errors import ArtifactError, ConfigError, DataError

STAGE = Stage("toy", version=1, kind="records", inputs={"input": ("file",)})


@dataclass(frozen=True, kw_only=True)
class ToyConfig(StageConfig):
    """A stage for tests."""

    input: str | list[str]
    """A file"""
    word: str = "a"
    """What is written"""


@pytest.fixture
def config(tmp_path):
    (tmp_path / "in.txt").write_text("x")
    return ToyConfig(input=str(tmp_path / "in.txt"), out=str(tmp_path / "o"))


def toy(config, calls=None, fail=None, resumable=False):
    def write(work):
        if calls is not None:
            calls.append((work.path / "data.txt").exists())     # what an interrupted run left
        (work.path / "data.txt").write_text(config.word)
        if fail:
            raise fail
    return build(STAGE, config, write, resumable)


def test_finished_with_the_same_identity_is_skipped_and_workers_do_not_count(config):
    calls = []
    first = toy(config, calls)
    assert toy(replace(config, workers=7), calls).digest == first.digest and calls == [False]
    manifest = first.manifest
    assert manifest["files"] == [{"name": "data.txt", "bytes": 1, "sha256": "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"}]
    assert manifest["inputs"][0]["path"] == "../in.txt" and manifest["identity"]["config"] == {"seed": 0, "word": "a"}


def test_another_identity_names_the_difference_and_rebuild_keeps_the_old(config):
    old = toy(config)
    with pytest.raises(ArtifactError, match=r"word was 'a', is now 'b'.*--rebuild"):
        toy(replace(config, word="b"))
    new = toy(replace(config, word="b", rebuild=True))
    assert new.digest != old.digest and (new.path.with_name("o.stale-1") / "data.txt").read_text() == "a"
    assert toy(replace(config, rebuild=True)).digest == old.digest and new.path.with_name("o.stale-2").exists()


def test_a_changed_input_is_stale(config, tmp_path):
    toy(config)
    assert status(STAGE, config) == ("fresh", "")
    (tmp_path / "in.txt").write_text("other")
    assert status(STAGE, config) == ("stale", "input has changed")


def test_a_file_of_another_name_is_another_input(config, tmp_path):
    toy(config)                                             # its suffix says how it is read
    (tmp_path / "in.txt").rename(tmp_path / "in.jsonl")
    assert status(STAGE, replace(config, input=str(tmp_path / "in.jsonl"))) == ("stale", "input has changed")


def test_an_input_in_the_output_is_refused_and_stays(config, tmp_path):
    toy(config)
    for inside in (tmp_path / "o" / "data.txt", tmp_path / ".." / tmp_path.name / "o" / "data.txt"):
        with pytest.raises(ConfigError, match="data.txt lies in --out .*, which is to be written; copy it to another place"):
            toy(replace(config, input=str(inside), rebuild=True))
    assert (tmp_path / "o" / "data.txt").read_text() == "a" and not list(tmp_path.glob("o.*"))


def test_a_name_that_is_no_utf8_is_refused_in_words(config, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    name = os.fsdecode("报告.txt".encode("gbk"))
    (folder / name).write_text("x")
    for path in (folder, folder / name):
        with pytest.raises(DataError, match=r"\\xb1\\xa8\\xb8\\xe6.txt is no UTF-8 name; rename it"):
            toy(replace(config, input=str(path)))


def test_a_folder_that_cannot_be_written_to_is_refused_in_words(config, tmp_path, monkeypatch):
    def refuse(lock, *_, **__):
        raise PermissionError(13, "Permission denied", lock.lock_file)
    monkeypatch.setattr(FileLock, "acquire", refuse)        # root may write everywhere
    with pytest.raises(ConfigError, match="--out .*o: .* cannot be written to"):
        toy(config)


def test_an_unfinished_folder_is_resumed_only_for_the_same_identity(config, tmp_path):
    calls = []
    with pytest.raises(KeyboardInterrupt):
        toy(config, calls, KeyboardInterrupt())
    assert (tmp_path / "o.partial" / "started.json").exists() and not (tmp_path / "o").exists()
    assert status(STAGE, config) == ("unfinished", "was interrupted")
    toy(config, calls, resumable=True)
    assert calls == [False, True]
    with pytest.raises(KeyboardInterrupt):
        toy(replace(config, word="b", rebuild=True), calls, KeyboardInterrupt())
    toy(replace(config, word="c"), calls, resumable=True)
    assert calls == [False, True, False, False] and (tmp_path / "o.unfinished-1" / "data.txt").read_text() == "b"


def test_what_an_interrupted_run_refused_does_not_stay(config):
    def write(work):
        resumed = (work.path / "data.txt").exists()
        (work.path / "data.txt").write_text("a")
        if not resumed:
            work.drop("unlucky", id=1)
            raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        build(STAGE, config, write, resumable=True)
    assert [file["name"] for file in build(STAGE, config, write, resumable=True).manifest["files"]] == ["data.txt"]


def test_a_second_writer_is_kept_out(config, tmp_path):
    with FileLock(tmp_path / ".o.lock"), pytest.raises(ArtifactError, match="is being written by another process"):
        toy(config)


def test_changed_and_cut_files_and_manifests_are_found(config):
    made = toy(config)
    data, manifest = made.path / "data.txt", made.path / "manifest.json"
    later = time.time_ns() + 10**9
    os.utime(data, ns=(later, later))                       # touched, not changed
    assert Artifact.open(made.path).digest == made.digest
    data.write_text("b")
    os.utime(data, ns=(later, later))
    with pytest.raises(ArtifactError, match="was changed after it was written"):
        Artifact.open(made.path)
    data.write_text("")
    with pytest.raises(ArtifactError, match="has 0 bytes, its manifest says 1"):
        Artifact.open(made.path)
    manifest.write_text('{"kind": "records", "fi')
    with pytest.raises(ArtifactError, match="manifest.json is corrupt"):
        Artifact.open(made.path)
    with pytest.raises(ArtifactError, match="--rebuild"):
        toy(config)
    again = toy(replace(config, rebuild=True))              # the corrupt folder is set aside, not deleted
    assert again.digest == made.digest and (again.path.with_name("o.stale-1") / "manifest.json").read_text().endswith('"fi')


def test_a_result_made_again_has_the_same_digest(config, tmp_path):
    old = toy(config)
    os.replace(old.path, tmp_path / "kept")
    assert toy(config).digest == old.digest == Artifact.open(tmp_path / "kept", verify=True).digest


def test_a_partial_without_a_readable_beginning_is_set_aside(config, tmp_path):
    (tmp_path / "o.partial").mkdir()
    (tmp_path / "o.partial" / "started.json").write_text('{"stage": "to')
    calls = []
    toy(config, calls, resumable=True)
    assert calls == [False] and (tmp_path / "o.unfinished-1" / "started.json").exists()


def test_an_input_of_the_wrong_kind_is_refused(config, tmp_path):
    made = toy(config)
    with pytest.raises(ConfigError, match=r"--input .* is of kind records; toy reads file there"):
        toy(replace(config, input=str(made.path), out=str(tmp_path / "p")))
    assert not list(tmp_path.glob("p*"))


def test_an_unfinished_input_is_no_input(config, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        toy(config, fail=KeyboardInterrupt())
    with pytest.raises(ArtifactError, match="is not finished; run its stage again"):
        toy(replace(config, input=str(tmp_path / "o"), out=str(tmp_path / "p")))


def test_a_folder_that_is_no_artifact_is_left_alone(config, tmp_path):
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "mine.txt").write_text("precious")
    with pytest.raises(ArtifactError, match="exists and is no artifact"):
        toy(replace(config, rebuild=True))
    assert (tmp_path / "o" / "mine.txt").read_text() == "precious"


def test_a_refusal_before_anything_is_made_leaves_no_folder_behind(config, tmp_path):
    def refuse(work):
        raise ConfigError("no")
    with pytest.raises(ConfigError, match="no"):
        build(STAGE, config, refuse)
    assert not (tmp_path / "o.partial").exists()
    with pytest.raises(ConfigError):
        toy(config, fail=ConfigError("late"))               # what is made already stays to be looked at
    assert (tmp_path / "o.partial" / "data.txt").read_text() == "a"


def test_a_full_disk_is_one_line_and_nothing_is_finished(tmp_path):
    (tmp_path / "in").mkdir()
    for i in range(300):
        (tmp_path / "in" / f"{i}.txt").write_text("".join(chr(0x4E00 + (i * 7919 + j * j) % 20000) for j in range(900)), "utf-8")
    limited = f"ulimit -f 64; exec {sys.executable} -m zhtune clean --input {tmp_path / 'in'} --out {tmp_path / 'o'}"
    done = subprocess.run(["bash", "-c", limited], capture_output=True, text=True, env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")})
    assert done.returncode == 1 and "the disk is full" in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "o").exists() and (tmp_path / "o.partial").exists()


@pytest.mark.parametrize("nothing", ["", [], [""]])
def test_a_required_input_that_is_empty_is_refused(config, tmp_path, nothing):
    with pytest.raises(ConfigError, match="--input names nothing"):
        toy(replace(config, input=nothing))
    assert not (tmp_path / "o.partial").exists()
