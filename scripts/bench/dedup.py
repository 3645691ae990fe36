"""Near duplicates: zhtune against datatrove (as shipped, and with characters) and rensa. Recall and precision against the truth.

Usage: python scripts/bench/dedup.py COLLECTION [--engines zhtune rensa …] [--python NAME=PATH …] [--threshold 0.7]

COLLECTION is a corpus.jsonl of mutate.py. Each engine runs in a process of its own (peers in environments of their own: --python
rensa=/path/to/venv/bin/python; an engine whose library is not there is left out, and that is said). All get the folded texts, so
that folding costs the peers nothing; zhtune's time has it in. Truth: 256 permutations, 64 bands of 4, exact Jaccard of the
candidates, apart from zhtune's own sketches. CPU seconds are those of the process after its libraries are loaded.

    recall      pairs at or above the threshold of which at least one went
    precision   documents that went and have a document at or above the threshold
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ENGINES = ("zhtune", "rensa", "datatrove-characters", "datatrove-words")
_PRIME = (1 << 61) - 1


def read(path: Path) -> tuple[list[str], list[str]]:
    rows = [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]
    return [row["id"] for row in rows], [row["text"] for row in rows]


def run_zhtune(path: Path, threshold: float) -> dict[str, Any]:
    """All of `corpus.distinct`, its spool too."""
    from zhtune.corpus.distinct import Distinct
    from zhtune.corpus.minhash import sketch
    from zhtune.records import Document
    names, texts = read(path)
    gone: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        began = time.process_time()
        for start in range(0, len(texts), 100):
            sketch(texts[start:start + 100], 4)
        signed = time.process_time() - began
        began = time.process_time()
        for _ in Distinct(near=threshold)(map(Document, names, texts), (), Path(scratch), lambda reason, document, **_: gone.append(document.id)):
            pass
        return {"sign": signed, "cpu": time.process_time() - began, "gone": gone}


def run_rensa(path: Path, threshold: float) -> dict[str, Any]:
    from rensa import RMinHash, RMinHashLSH
    names, texts = read(path)
    began = time.process_time()
    hashes = []
    for text in texts:
        minhash = RMinHash(num_perm=128, seed=42)
        minhash.update([text[i:i + 5] for i in range(len(text) - 4)])
        hashes.append(minhash)
    signed = time.process_time()
    lsh = RMinHashLSH(threshold=threshold, num_perm=128, num_bands=16)
    for number, minhash in enumerate(hashes):
        lsh.insert(number, minhash)
    gone: set[int] = set()
    for number, minhash in enumerate(hashes):
        if number not in gone:
            gone |= {other for other in lsh.query(minhash) if other > number and hashes[other].jaccard(minhash) >= threshold}
    return {"sign": signed - began, "cpu": time.process_time() - began, "gone": [names[n] for n in gone]}


def run_datatrove(path: Path, threshold: float, characters: bool) -> dict[str, Any]:
    from datatrove.data import Document
    from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
    from datatrove.pipeline.dedup import minhash as module
    from datatrove.pipeline.dedup.minhash import MinhashConfig
    if characters:                                          # datatrove offers no such tokenizer: the one place where a peer is changed
        class Characters:
            def word_tokenize(self, text: str) -> list[str]:
                return list(text)
        module.load_word_tokenizer = lambda language: Characters()
        module.split_into_words = lambda text, language=None: list(text)
    names, texts = read(path)
    config = MinhashConfig(n_grams=5, num_buckets=16 if characters else 14, hashes_per_bucket=8)
    with tempfile.TemporaryDirectory() as scratch:
        began = time.process_time()
        documents = [Document(text=text, id=name) for name, text in zip(names, texts, strict=True)]
        signature = MinhashDedupSignature(f"{scratch}/sig", config=config, language="zho_Hani")
        signature.run(iter(documents), 0, 1)
        signed = time.process_time()
        for bucket in range(config.num_buckets):
            MinhashDedupBuckets(f"{scratch}/sig", f"{scratch}/buckets", config=config).run(None, bucket, config.num_buckets)
        MinhashDedupCluster(f"{scratch}/buckets", f"{scratch}/remove", config=config).run(None, 0, 1)
        kept = {document.id for document in MinhashDedupFilter(f"{scratch}/remove").run(iter(documents), 0, 1)}
        return {"sign": signed - began, "cpu": time.process_time() - began, "gone": [n for n in names if n not in kept]}


def truth(path: Path, least: float) -> tuple[list[str], dict[tuple[int, int], float]]:
    """All pairs of a Jaccard of `least` and more; missed with probability 2e-8 at .7."""
    import numpy as np

    from zhtune.corpus.units import fold_units, shingles
    names, texts = read(path)
    sets = [np.unique(shingles(fold_units([text])[0])) for text in texts]
    generator = np.random.default_rng(7)
    a, b = (generator.integers(1, _PRIME, 256, dtype=np.uint64) | np.uint64(1) for _ in range(2))
    lowest = np.array([_lowest(s, a, b) for s in sets])
    pairs: set[tuple[int, int]] = set()
    for band in range(64):
        groups: dict[bytes, list[int]] = {}
        for number, row in enumerate(lowest[:, 4 * band:4 * band + 4]):
            if len(sets[number]):
                groups.setdefault(row.tobytes(), []).append(number)
        for group in groups.values():
            pairs |= {(group[i], group[j]) for i in range(len(group)) for j in range(i + 1, len(group))}
    found = {}
    for i, j in sorted(pairs):
        common = len(np.intersect1d(sets[i], sets[j], assume_unique=True))
        if (share := common / (len(sets[i]) + len(sets[j]) - common)) >= least:
            found[i, j] = share
    return names, found


def _lowest(shingles: Any, a: Any, b: Any) -> Any:
    import numpy as np
    if not len(shingles):
        return np.zeros(256, np.uint64)
    out = np.full(256, np.iinfo(np.uint64).max, np.uint64)
    for start in range(0, len(shingles), 1024):
        values = shingles[start:start + 1024, None] * a + b
        values ^= values >> np.uint64(29)
        out = np.minimum(out, (values * np.uint64(0xBF58476D1CE4E5B9)).min(axis=0))
    return out


def measured(names: list[str], pairs: dict[tuple[int, int], float], gone: list[str], threshold: float) -> dict[str, float]:
    went = set(gone)
    left = {i for i, name in enumerate(names) if name in went}
    near = [pair for pair, share in pairs.items() if share >= threshold]
    partners = {i for pair in near for i in pair}
    return {"pairs": len(near), "recall": sum(i in left or j in left for i, j in near) / max(len(near), 1),
            "removed": len(left), "precision": len(left & partners) / max(len(left), 1)}


def peak() -> int:
    """Megabytes of this process alone; getrusage has its parent's in it."""
    return int(re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text("utf-8"))[1]) // 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collection", type=Path)
    parser.add_argument("--engines", nargs="+", default=list(ENGINES), choices=ENGINES)
    parser.add_argument("--python", nargs="*", default=[], help="NAME=PATH of the interpreter that has an engine's library")
    parser.add_argument("--threshold", type=float, default=0.7)
    parser.add_argument("--one", help="run this engine here and print its result")
    arguments = parser.parse_args()
    if arguments.one:
        run = {"zhtune": run_zhtune, "rensa": run_rensa, "datatrove-characters": lambda p, t: run_datatrove(p, t, True),
               "datatrove-words": lambda p, t: run_datatrove(p, t, False)}[arguments.one]
        result = run(arguments.collection, arguments.threshold)
        print(json.dumps({**result, "peak_mb": peak()}))
        return
    compare(arguments)


def compare(arguments: argparse.Namespace) -> None:
    from zhtune.corpus.units import fold_units
    names, texts = read(arguments.collection)
    folded = arguments.collection.with_name("folded.jsonl")
    with open(folded, "w", encoding="utf-8") as file:
        for name, text in zip(names, texts, strict=True):
            row = {"id": name, "text": fold_units([text])[0].tobytes().decode("utf-16-le", "replace")}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    pythons = dict(item.split("=", 1) for item in arguments.python)
    names, pairs = truth(arguments.collection, 0.5)
    size = sum(len(text.encode()) for text in texts) / 1e6
    print(f"{len(names)} documents, {size:.1f} MB, {len(pairs)} pairs >= .5")
    for engine in arguments.engines:
        python = pythons.get(engine.split("-")[0], sys.executable)
        path = arguments.collection if engine == "zhtune" else folded
        done = subprocess.run([python, __file__, str(path), "--one", engine, "--threshold", str(arguments.threshold)], capture_output=True, text=True)
        if done.returncode:
            print(f"{engine}: left out: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else done.returncode}")
            continue
        result = json.loads(done.stdout.splitlines()[-1])
        print(json.dumps({"engine": engine, "threshold": arguments.threshold, **measured(names, pairs, result.pop("gone"), arguments.threshold),
                          **{k: round(v, 3) for k, v in result.items()}, "mb_s": round(size / result["cpu"], 2)}))


if __name__ == "__main__":
    main()
