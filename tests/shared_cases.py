"""Runs the make.py of a case in ../shared/cases. Its tiny.py wants the protobuf package for SentencePiece's file, which zhtune reads itself."""

import subprocess
import sys
from pathlib import Path

CASES = Path(__file__).resolve().parents[2] / "shared" / "cases"
_RUN = """
import runpy, sys, types
from zhtune.tokenizers.spm import parse_spm

class ModelProto:                                           # what tiny.py calls of sentencepiece_model_pb2
    def __init__(self):
        self.trainer_spec = types.SimpleNamespace(input=[], model_prefix="")
    def ParseFromString(self, data):
        self.data = data
        self.pieces = [types.SimpleNamespace(piece=p.text, score=p.score, type=p.type) for p in parse_spm(data).pieces]
    def SerializeToString(self, deterministic):
        return self.data

stand_in = types.ModuleType("sentencepiece.sentencepiece_model_pb2")
stand_in.ModelProto = ModelProto
sys.modules[stand_in.__name__] = stand_in
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def make(case: str, out: Path) -> Path:
    """Write a case's files into `out`; returns the case's folder."""
    done = subprocess.run([sys.executable, "-c", _RUN, str(CASES / case / "make.py"), str(out)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return CASES / case
