"""What continued pretraining on a domain makes a model forget of general text, with and without replay.

Usage: python scripts/bench/forgetting.py WORKSPACE OUT [BLOCKS] [LEARNING_RATE]

WORKSPACE is that of a finished quickstart recipe: its pretrain is a pruned embedded base that was trained on its general corpus
(clean, pack). The domain is what kg-instruct says of each head, as a document. Goal: with replay, general text less than 2 % worse.
"""

import sys
from collections import defaultdict
from pathlib import Path

from zhtune import CleanConfig, PackConfig, PretrainConfig, Schedule, clean, log, pack, pretrain
from zhtune.records import read_records, write_jsonl

RATIOS = (0.0, 0.2, 0.5)                                    # share of replay


def domain(workspace: Path, out: Path) -> tuple[str, str]:
    """A corpus and its tokens: the different answers about each head, one after the other."""
    answers: dict[str, dict[str, None]] = defaultdict(dict)
    for _, record in read_records(workspace / "kg-instruct" / "records.jsonl"):
        for message in record["messages"]:
            if message["role"] == "assistant":
                answers[str(record["source"].get("triples"))][message["content"]] = None
    texts = ["".join(said) for said in answers.values()]
    out.mkdir(parents=True, exist_ok=True)
    write_jsonl(out / "domain.jsonl", ({"text": "\n".join(texts[i:i + 10])} for i in range(0, len(texts), 10)))
    corpus = clean(CleanConfig(input=str(out / "domain.jsonl"), out=str(out / "corpus"), heldout=0.1))
    tokens = pack(PackConfig(corpus=str(corpus.path), model=str(workspace / "pretrain"), out=str(out / "tokens")))
    return str(corpus.path), str(tokens.path)


def main() -> None:
    workspace, out = Path(sys.argv[1]), Path(sys.argv[2])
    blocks, rate = int(sys.argv[3]) if len(sys.argv) > 3 else 60, float(sys.argv[4]) if len(sys.argv) > 4 else 1e-4
    log.configure()
    corpus, tokens = domain(workspace, out)
    for ratio in RATIOS:
        replay = {"replay": str(workspace / "pack"), "replay_ratio": ratio} if ratio else {}
        made = pretrain(PretrainConfig(
            model=str(workspace / "pretrain"), tokens=tokens, corpus=corpus, general=str(workspace / "clean"), blocks=blocks, new_rows=0.0,
            schedule=Schedule(learning_rate=rate, batch_size=4, checkpoints=0), out=str(out / f"replay-{ratio}"), **replay))
        figures = made.manifest["metrics"]
        (before, after), (was, now) = ([figures[f"{name}bits_per_character_{when}"] for when in ("before", "after")] for name in ("", "general_"))
        print(f"replay {ratio}: domain {before:.3f} -> {after:.3f} bits a character, general {was:.3f} -> {now:.3f} "
              f"({100 * figures['forgetting']:+.2f} %)", flush=True)


if __name__ == "__main__":
    main()
