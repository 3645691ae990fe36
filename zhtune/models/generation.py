"""The engine over transformers: batches by length, key-value cache, greedy or seeded sampling, whole characters.

One decoding loop serves `generate` and `stream`. It never emits an id that no token has: padded rows of the base behind
the last token, and gaps before it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from zhtune.errors import ConfigError, DataError, require
from zhtune.log import progress
from zhtune.models.context import context_of
from zhtune.models.engine import Conversation, Reply, Sampling, Whole, refuse_bare, until_stop
from zhtune.models.load import adapter_config, card_in_words, clear_card, fuse_attention, is_adapter, load_chain, open_encoder
from zhtune.references import Source
from zhtune.templates.render import template_of

_BATCH_TOKENS = 8192                                        # padded prompt and answer tokens of one batch, bounds the cache


class TransformersEngine:
    """Answers with a model folder, an embedded base, or an adapter on its base.

    Args:
        source: a resolved model reference.
        template: a chat template's name, for a base that has none.
        adapters: by name, LoRA adapters on the model that are kept apart (Sampling.by).
        apart: keep the last adapter of `source` beside the weights too (Sampling.adapter).
    """

    def __init__(self, source: Source, template: str = "", adapters: Mapping[str, Source] | None = None, apart: bool = False):
        torch = require("torch", "train")
        if apart and not is_adapter(source):
            refuse_bare(source.reference)
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        with tempfile.TemporaryDirectory(prefix="zhtune-") as scratch:
            self.encoder, _ = open_encoder(source, Path(scratch), template)
            self._names = {name: f"adapter{i}" for i, name in enumerate(adapters or {})}
            for adapter in (adapters or {}).values():
                _require_fit(adapter, source, template or self.encoder.template_text == (template_of(adapter.path) or self.encoder.template_text))
            if card := self._device == "cuda":
                clear_card()
            with card_in_words(source.reference):
                dtype = "float32" if not card else "auto" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
                model, _ = load_chain(source, Path(scratch), dtype, apart=apart, as_trained=card and not adapters)
                model = model.to(self._device)
        for name, adapter in (adapters or {}).items():
            model = _beside(model, adapter, self._names[name])
        fuse_attention(model)
        self.model = model.to(self._device)                 # the named adapters, too
        rows = model.get_output_embeddings().weight.shape[0]
        self._unused = torch.tensor(self.encoder.unused(rows), dtype=torch.long, device=self._device)
        self.name = source.reference
        from zhtune.models.attached import Attached
        attached = isinstance(model, Attached)
        self._beside = attached or apart                    # whether an answer can do without the model's own adapter
        self.context: int = context_of(model.config.to_dict()) - (model.part.positions if attached else 0)

    def generate(self, conversations: list[Conversation], sampling: Sampling) -> list[Reply]:
        """Answer many conversations; the answers come in the order of the conversations.

        Raises:
            DataError: a prompt leaves no room in the context.
        """
        prompts = [self._prompt(messages) for messages in conversations]
        replies: dict[int, Reply] = {}
        for batch in progress(_batches(prompts, sampling.max_tokens), "generate"):
            answers: list[list[int]] = [[] for _ in batch]
            ended: set[int] = set()                         # rows in which a stop string has come
            for step in self._decode([prompts[i] for i in batch], sampling, ended):
                for row, token in enumerate(step):
                    if token is not None:
                        answers[row].append(token)
                        if sampling.stop and self._stopped(answers[row], sampling.stop):
                            ended.add(row)
            replies |= {i: self._reply(prompts[i], answer, sampling.stop) for i, answer in zip(batch, answers, strict=True)}
        return [replies[i] for i in range(len(prompts))]

    def stream(self, messages: Conversation, sampling: Sampling) -> Iterator[str | Reply]:
        """Yield pieces of one answer as whole characters, last the Reply."""
        prompt, answer = self._prompt(messages), []
        whole, held, found = Whole(self.encoder.answer), "", False
        for (token,) in self._decode([prompt], sampling):
            answer.append(token)
            if token not in self.encoder.stop_ids:
                piece, held, found = until_stop(held + whole.push(token), sampling.stop)
                if piece:
                    yield piece
            if found:
                break
        else:
            piece, held, found = until_stop(held + whole.rest(), sampling.stop)
            if piece + held:
                yield piece + held
        yield self._reply(prompt, answer, sampling.stop)

    def check(self, messages: Conversation) -> None:
        """Raise DataError where the conversation leaves no room for an answer."""
        self._prompt(messages)

    def close(self) -> None:
        """Drop the weights."""
        self.model = None

    def _prompt(self, messages: Conversation) -> list[int]:
        ids = self.encoder.prompt(messages)
        if len(ids) >= self.context:
            raise DataError(f"the conversation has {len(ids)} tokens, the model's context is {self.context}")
        return ids

    def _reply(self, prompt: list[int], answer: list[int], stops: tuple[str, ...]) -> Reply:
        stopped = bool(answer) and answer[-1] in self.encoder.stop_ids
        text = self.encoder.answer(answer[:-1] if stopped else answer).rstrip("\ufffd")
        piece, held, found = until_stop(text, stops)
        return Reply(piece + held, len(prompt), len(answer), "stop" if stopped or found else "length")

    def _stopped(self, answer: list[int], stops: tuple[str, ...]) -> bool:
        """Whether a stop string stands at the end of an answer: no token has less than a byte."""
        if self.encoder.leads:                              # what the template puts first ends nothing
            tail = self.encoder.answer(answer)
        else:
            tail = self.encoder.decode(answer[-max(len(stop.encode()) for stop in stops) - 1:])
        return any(stop in tail for stop in stops)

    def _answering(self, sampling: Sampling) -> AbstractContextManager[Any]:
        """Context in which the adapter that was asked for computes, or none."""
        name = sampling.by
        if not sampling.adapter and not self._beside:
            refuse_bare(self.name)
        if not sampling.adapter or (self._names and not name):
            return self.model.disable_adapter()
        if not self._names:
            return nullcontext()
        if name not in self._names:
            raise DataError(f"there is no adapter {name!r}; there are: {', '.join(self._names)}")
        if self.model.active_adapter != self._names[name]:
            self.model.set_adapter(self._names[name])
        return nullcontext()

    def _decode(self, prompts: list[list[int]], sampling: Sampling, ended: Collection[int] = ()) -> Iterator[list[int | None]]:
        """Yield one step of new tokens, (batch,), a stop token included; None for rows that have ended, those of `ended` too."""
        import torch
        width = max(map(len, prompts))
        room = min(sampling.max_tokens, self.context - width)
        pad = self.encoder.end_id
        ids = torch.tensor([[pad] * (width - len(p)) + p for p in prompts], device=self._device)
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=self._device)
        generator = torch.Generator(self._device).manual_seed(sampling.seed)
        at, cache = list(range(len(prompts))), None         # the prompt of each row that is still computed
        alive = set(at)
        rows = ids                                          # (batch, prompt and answer): ChatGLM-6B reads positions from whole rows
        for _ in range(room):
            with torch.inference_mode(), self._answering(sampling):
                positions = self.model._prepare_position_ids_for_generation(rows, {"attention_mask": mask})[..., -ids.shape[1]:]
                out = self.model(input_ids=ids, attention_mask=mask, position_ids=positions, cache=cache, use_cache=True,
                                 logits_to_keep=1)
                logits, cache = out.logits[:, -1].float(), out.cache
                logits[:, self._unused] = -torch.inf
                tokens = _choose(logits, sampling, generator)
            chosen = {i: token for i, token in zip(at, tokens.tolist(), strict=True) if i in alive}
            yield [chosen.get(i) for i in range(len(prompts))]
            alive = {i for i, token in chosen.items() if token not in self.encoder.stop_ids and i not in ended}
            if not alive:
                return
            ids = tokens[:, None]
            rows = torch.cat([rows, ids], dim=1)
            mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
            if 2 * len(alive) <= len(at):                   # one long answer need not carry the others' rows along
                kept = torch.tensor([row for row, i in enumerate(at) if i in alive], device=self._device)
                at = [i for i in at if i in alive]
                ids, rows, mask = ids[kept], rows[kept], mask[kept]
                cache.batch_select_indices(kept)


def _require_fit(adapter: Source, base: Source, same_template: bool) -> None:
    """Raise ConfigError for an adapter that cannot stand beside others on a model."""
    kind = adapter_config(adapter).get("peft_type")
    if kind not in ("LORA", "IA3"):
        raise ConfigError(f"{adapter.reference} is a {kind} adapter, which does not stand beside others; give it as --model")
    if adapter.manifest["resolved"]["base_digest"] != base.digest:
        raise ConfigError(f"{adapter.reference} was trained on another model than {base.reference}")
    if not same_template:
        raise ConfigError(f"{adapter.reference} has another chat template than {base.reference}; give it as --model")


def _beside(model: Any, adapter: Source, name: str) -> Any:
    """The model with one more adapter, not merged."""
    peft = require("peft", "train")
    if isinstance(model, peft.PeftModel):
        model.load_adapter(str(adapter.path), adapter_name=name)
        return model.eval()
    return peft.PeftModel.from_pretrained(model, str(adapter.path), adapter_name=name).eval()


def _choose(logits: Any, sampling: Sampling, generator: Any) -> Any:
    """Next tokens, (batch,), from logits, (batch, vocabulary)."""
    import torch
    if sampling.temperature <= 0:
        return logits.argmax(-1)
    probabilities = torch.softmax(logits / sampling.temperature, -1)
    ordered, index = probabilities.sort(-1, descending=True)
    ordered[ordered.cumsum(-1) - ordered >= sampling.top_p] = 0     # the first token always stays
    return index.gather(-1, torch.multinomial(ordered, 1, generator=generator))[:, 0]


def _batches(prompts: list[list[int]], max_tokens: int) -> list[list[int]]:
    """Indices in batches of similar length, as many rows as fit `_BATCH_TOKENS`."""
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
    batches: list[list[int]] = []
    for i in order:
        if batches and (len(batches[-1]) + 1) * (len(prompts[i]) + max_tokens) <= _BATCH_TOKENS:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches
