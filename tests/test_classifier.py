"""fastText classifiers: files written here by the published layout, probabilities by hand."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import pytest

from zhtune import CleanConfig, clean
from zhtune.corpus.classifier import Classifier, open_classifier
from zhtune.corpus.filters import Rules
from zhtune.corpus.prepare import Settings, prepare
from zhtune.errors import ConfigError, DataError
from zhtune.records import Document, read_jsonl

pytest.importorskip("fasttext")
WORDS, LABELS = ["好", "坏", "好书"], ["__label__good", "__label__bad"]
ROWS, OUT = [(1.0, 0.0), (0.0, 1.0), (1.0, 1.0)], [(2.0, 0.0), (0.0, 2.0)]


def _dense(rows: list[tuple[float, ...]]) -> bytes:
    return b"\0" + struct.pack("<2q", len(rows), 2) + b"".join(struct.pack("<2f", *row) for row in rows)


def _centroids(values: list[float], width: int) -> bytes:
    return struct.pack("<4i", width, 1, width, width) + struct.pack(f"<{256 * width}f", *values, *[0.0] * (256 * width - len(values)))


def _quantized(rows: list[tuple[float, ...]]) -> bytes:
    """Row i has code i and the norm of code 0, which is 1."""
    return (b"\1" + struct.pack("<?2qi", True, len(rows), 2, len(rows)) + bytes(range(len(rows))) + _centroids([x for row in rows for x in row], 2)
            + bytes(len(rows)) + _centroids([1.0], 1))


def write_model(path: Path, rows: bytes) -> Path:
    """A supervised model with softmax, two dimensions, no subwords."""
    entries = b"".join(text.encode() + b"\0" + struct.pack("<qb", 1, kind) for kind, names in enumerate((WORDS, LABELS)) for text in names)
    header = struct.pack("<2i12id", 793712314, 12, 2, 5, 5, 1, 5, 1, 3, 3, 0, 0, 0, 100, 1e-4)
    sizes = struct.pack("<3i2q", len(WORDS) + len(LABELS), len(WORDS), len(LABELS), 9, -1)
    path.write_bytes(header + sizes + entries + rows + _dense(OUT))
    return path


@pytest.fixture(params=["model.bin", "model.ftz"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write_model(tmp_path / request.param, (_dense if request.param == "model.bin" else _quantized)(ROWS))


def softmax(good: float, bad: float) -> float:
    """fastText adds 1e-5 to a probability before it takes its logarithm."""
    return math.exp(good) / (math.exp(good) + math.exp(bad)) + 1e-5


def test_probability(model):
    good = open_classifier(model, "good", "text")
    assert good == Classifier(model, "__label__good", "text") == open_classifier(model, "__label__good", "text")
    assert good.probability("好 好\n坏") == pytest.approx(softmax(4 / 3, 2 / 3), abs=1e-6)       # mean of (1,0), (1,0), (0,1), by (2,0) and (0,2)
    assert open_classifier(model, "bad", "text").probability("坏") == pytest.approx(softmax(2, 0), abs=1e-6)
    assert good.probability("没有") == good.probability("") == 0.0
    write_model(model, _dense([ROWS[1], ROWS[0], ROWS[2]]))     # trained anew under the same name
    assert open_classifier(model, "good", "text").probability("坏") == pytest.approx(softmax(2, 0), abs=1e-6)


@pytest.mark.parametrize(("words", "known"), [("text", 0.0), ("characters", softmax(4 / 3, 2 / 3)), ("jieba", softmax(1, 1))])
def test_text_is_divided_as_in_training(model, words, known):
    """好坏好: no word as it stands; three characters; 好书 is one of jieba's words."""
    text = "好书" if words == "jieba" else "好坏好"
    assert open_classifier(model, "good", words).probability(text) == pytest.approx(known, abs=1e-6)


def test_a_cut_or_other_file_is_refused(model, tmp_path):
    whole = model.read_bytes()
    for content in (b"", b"text", whole[:60], whole[:100], whole[:110], whole[:-1], whole + b"\0", b"\0" * len(whole)):
        (tmp_path / "cut.bin").write_bytes(content)
        with pytest.raises(DataError, match="no fastText classifier .*or not all of one"):
            open_classifier(tmp_path / "cut.bin", "good", "text")
    with pytest.raises(ConfigError, match="no label 'zh'; its labels are: __label__good, __label__bad"):
        open_classifier(model, "zh", "text")


def test_clean_refuses_by_label(tmp_path):
    model = write_model(tmp_path / "model.bin", _dense(ROWS))
    (tmp_path / "in.jsonl").write_text('{"text": "好好好好坏"}\n{"text": "坏坏坏坏好"}\n', "utf-8")
    options = {"input": str(tmp_path / "in.jsonl"), "min_characters": 5, "heldout": 0.0, "classifier": str(model)}
    made = clean(CleanConfig(**options, rules={"label": "good", "min_label": 0.5, "label_words": "characters"}, out=str(tmp_path / "out")))
    (_, row), = read_jsonl(made.path / "dropped.jsonl")
    assert (row["reason"], row["text"], row["value"]) == ("unlike_label", "坏坏坏坏好", round(softmax(0.4, 1.6), 4))
    assert made.manifest["counts"] == {"in": 2, "kept": 1, "dropped": {"unlike_label": 1}}
    with pytest.raises(ConfigError, match="go together"):
        clean(CleanConfig(**options, out=str(tmp_path / "none")))
    with pytest.raises(ConfigError, match="go together"):
        clean(CleanConfig(**{**options, "classifier": ""}, rules={"label": "good", "min_label": 0.5}, out=str(tmp_path / "none")))
    assert not (tmp_path / "none").exists()


def test_other_rules_come_first(tmp_path):
    model = open_classifier(write_model(tmp_path / "model.bin", _dense(ROWS)), "good", "text")
    settings = Settings(Rules(min_label=0.5, label="good"), classifier=model)
    assert prepare(Document("a", "短", {"file": "a"}), settings).reason == "too_short"
