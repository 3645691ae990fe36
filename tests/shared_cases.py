"""Runs the make.py of a case in ../shared/cases. Its tiny.py wants the protobuf package for SentencePiece's file, which zhtune reads itself."""

import runpy
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from unittest.mock import patch

from zhtune.tokenizers.spm import parse_spm

CASES = Path(__file__).resolve().parents[2] / "shared" / "cases"


class ModelProto:
    """What tiny.py calls of sentencepiece_model_pb2."""

    def __init__(self):
        self.trainer_spec = SimpleNamespace(input=[], model_prefix="")

    def ParseFromString(self, data):
        self._data = data
        self.pieces = [SimpleNamespace(piece=p.text, score=p.score, type=p.type) for p in parse_spm(data).pieces]

    def SerializeToString(self, deterministic):
        return self._data


def make(case: str, out: Path) -> Path:
    """Write a case's files into `out`, in this process; returns the case's folder."""
    stand_in, script = ModuleType("sentencepiece.sentencepiece_model_pb2"), CASES / case / "make.py"
    stand_in.ModelProto = ModelProto
    sys.modules[stand_in.__name__] = stand_in
    try:
        with patch.object(sys, "argv", [str(script), str(out)]), patch.object(sys, "path", [*sys.path]):
            runpy.run_path(str(script), run_name="__main__")
    finally:
        del sys.modules[stand_in.__name__]
    return CASES / case
