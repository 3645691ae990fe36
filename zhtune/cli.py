"""The command line: one literal table from verbs to functions, loaded only when a verb is called."""

from __future__ import annotations

import importlib
import logging
import os
import sys
import typing

VERBS = {
    "clean": ("zhtune.stages.clean:clean", "raw text -> corpus"),
    "vocab": ("zhtune.stages.vocab:vocab", "corpus -> Chinese vocabulary for any tokenizer"),
    "extend": ("zhtune.stages.extend:extend", "base model + vocabulary -> extended model"),
    "fertility": ("zhtune.stages.fertility:fertility", "tokenizers + text -> report of tokens per character, by domain"),
    "convert": ("zhtune.stages.convert:convert", "published ChatGLM or GLM-4 checkpoint -> model without its code"),
    "pack": ("zhtune.stages.pack:pack", "corpus + tokenizer -> token blocks"),
    "pretrain": ("zhtune.stages.pretrain:pretrain", "model + tokens -> continued pretraining"),
    "kg": ("zhtune.stages.kg:kg", "triples + ontology -> checked graph"),
    "kg-instruct": ("zhtune.stages.kg_instruct:kg_instruct", "graph (+ teacher) -> instruction records"),
    "lint": ("zhtune.stages.lint:lint", "records or preferences in any format -> the same, normalised, with a report; corpus -> report"),
    "self-instruct": ("zhtune.stages.self_instruct:self_instruct", "seeds or corpus + teacher -> instruction records"),
    "sft": ("zhtune.stages.sft:sft", "model + records -> fine-tuned model or adapter"),
    "prefer": ("zhtune.stages.prefer:prefer", "graph -> preference pairs"),
    "dpo": ("zhtune.stages.dpo:dpo", "model + preferences -> adapter"),
    "merge": ("zhtune.stages.merge:merge", "adapter -> one model folder"),
    "generate": ("zhtune.stages.generate:generate", "anything that answers + prompts -> records with answers"),
    "evaluate": ("zhtune.stages.evaluate:evaluate", "anything that answers -> report of facts and bits per character"),
    "quantize": ("zhtune.stages.quantize:quantize", "model -> GGUF in 8 or 4 bit"),
    "chat": ("zhtune.stages.chat:chat", "talk to a model in the terminal"),
    "serve": ("zhtune.stages.serve:serve", "OpenAI-compatible endpoint and web page"),
    "run": ("zhtune.stages.run:run", "a whole recipe, and its report"),
    "show": ("zhtune.stages.show:show", "what an artifact is made of"),
}
# Verbs whose first argument needs no flag.
POSITIONAL = {"chat": "model", "serve": "model", "run": "recipe", "show": "artifact"}


def main(argv: list[str] | None = None) -> int:
    """Run one verb; returns the exit status: 0, 1 (an error, said in one line), 2 (usage) or 130 (Ctrl-C)."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_usage())
        return 0 if argv else 2
    if argv[0] == "--version":
        from zhtune import __version__
        print(__version__)
        return 0
    if argv[0] not in VERBS:
        import difflib
        near = difflib.get_close_matches(argv[0], VERBS, 1)
        print(f"zhtune: no verb {argv[0]!r}; {f'did you mean {near[0]!r}?' if near else 'see zhtune --help'}", file=sys.stderr)
        return 2
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TQDM_DISABLE", "1")              # libraries' bars; zhtune shows its own
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")      # torch takes large pages: a training step on a processor is some 5 % faster
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # nothing that is done here is told to anybody
    from zhtune.errors import ZhtuneError
    try:
        return _run(argv[0], argv[1:])
    except ZhtuneError as error:
        print(f"zhtune: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("zhtune: interrupted; the same command goes on", file=sys.stderr)
        return 130


def load(verb: str) -> tuple[typing.Callable, type]:
    """The stage function of a verb and the class of its config (the annotation of its one argument)."""
    module, _, name = VERBS[verb][0].partition(":")
    function = getattr(importlib.import_module(module), name)
    return function, typing.get_type_hints(function)["config"]


def _run(verb: str, argv: list[str]) -> int:
    from zhtune import log
    from zhtune.artifact import Artifact
    from zhtune.config import parse
    first = os.environ.get("RANK", "0") == "0"              # of the processes that torchrun and its like start, one speaks
    log.configure(logging.INFO if first else logging.ERROR)
    as_json = "--json" in argv
    argv = [token for token in argv if token != "--json"]
    if verb in POSITIONAL and argv and not argv[0].startswith("-"):
        argv = [f"--{POSITIONAL[verb]}", *argv]
    function, config_class = load(verb)
    result = function(parse(config_class, verb, argv))
    if not first:
        return 0
    if as_json:
        from zhtune.records import dumps
        print(dumps(result.manifest if isinstance(result, Artifact) else result).decode())
    elif isinstance(result, Artifact):
        print(result.summary())
    elif isinstance(result, str):
        print(result)
    return 0


def _usage() -> str:
    lines = [f"  {verb:<12} {text}" for verb, (_, text) in VERBS.items()]
    return "\n".join(["usage: zhtune VERB [--config FILE.yaml] [--field value …] [--json]", "", *lines, "",
                      "zhtune VERB --help lists the fields of a verb; zhtune run scripts/recipes/quickstart.yaml runs them all."])
