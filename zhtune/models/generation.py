"""The engine over transformers: batches by length, key-value cache, greedy or seeded sampling, whole characters.

One decoding loop serves `generate` and `stream`. It never emits an id that no token has: padded rows of the base behind
the last token, and gaps before it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zhtune.errors import DataError, require
from zhtune.log import progress
from zhtune.models.engine import Conversation, Reply, Sampling, Whole
from zhtune.models.load import load_chain
from zhtune.references import Source
from zhtune.templates.encode import ChatEncoder

_BATCH_TOKENS = 8192                                        # padded prompt and answer tokens of one batch, bounds the cache


class TransformersEngine:
    """Answers with a model folder, an embedded base, or an adapter on its base.

    Args:
        source: a resolved model reference.
        template: a chat template's name, for a base that has none.
    """

    def __init__(self, source: Source, template: str = ""):
        torch = require("torch", "train")
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        with tempfile.TemporaryDirectory(prefix="zhtune-") as scratch:
            model, folder = load_chain(source, Path(scratch), "auto" if self._device == "cuda" else "float32")
            self.encoder = ChatEncoder(folder, template)
        self.model = model.to(self._device)
        rows = model.get_output_embeddings().weight.shape[0]
        self._unused = torch.tensor(self.encoder.unused(rows), dtype=torch.long, device=self._device)
        self.name = source.reference
        self.context: int = model.config.max_position_embeddings

    def generate(self, conversations: list[Conversation], sampling: Sampling) -> list[Reply]:
        """Answer many conversations; the answers come in the order of the conversations.

        Raises:
            DataError: a prompt leaves no room in the context.
        """
        prompts = [self._prompt(messages) for messages in conversations]
        replies: dict[int, Reply] = {}
        for batch in progress(_batches(prompts, sampling.max_tokens), "generate"):
            answers = [[] for _ in batch]
            for step in self._decode([prompts[i] for i in batch], sampling):
                for row, token in enumerate(step):
                    if token is not None:
                        answers[row].append(token)
            replies |= {i: self._reply(prompts[i], answer) for i, answer in zip(batch, answers, strict=True)}
        return [replies[i] for i in range(len(prompts))]

    def stream(self, messages: Conversation, sampling: Sampling) -> Iterator[str | Reply]:
        """Yield pieces of one answer as whole characters, last the Reply."""
        prompt, answer = self._prompt(messages), []
        whole = Whole(self.encoder.decode)
        for (token,) in self._decode([prompt], sampling):
            answer.append(token)
            if token not in self.encoder.stop_ids and (piece := whole.push(token)):
                yield piece
        if rest := whole.rest():
            yield rest
        yield self._reply(prompt, answer)

    def close(self) -> None:
        """Drop the weights."""
        self.model = None

    def _prompt(self, messages: Conversation) -> list[int]:
        ids = self.encoder.prompt(messages)
        if len(ids) >= self.context:
            raise DataError(f"the conversation has {len(ids)} tokens, the model's context is {self.context}")
        return ids

    def _reply(self, prompt: list[int], answer: list[int]) -> Reply:
        stopped = bool(answer) and answer[-1] in self.encoder.stop_ids
        text = self.encoder.decode(answer[:-1] if stopped else answer).rstrip("\ufffd")
        return Reply(text, len(prompt), len(answer), "stop" if stopped else "length")

    def _decode(self, prompts: list[list[int]], sampling: Sampling) -> Iterator[list[int | None]]:
        """Yield one step of new tokens, (batch,), a stop token included; None for rows that have ended."""
        import torch
        width = max(map(len, prompts))
        room = min(sampling.max_tokens, self.context - width)
        pad = self.encoder.end_id
        ids = torch.tensor([[pad] * (width - len(p)) + p for p in prompts], device=self._device)
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=self._device)
        generator = torch.Generator(self._device).manual_seed(sampling.seed)
        alive, cache = [True] * len(prompts), None
        for _ in range(room):
            with torch.inference_mode():
                positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1]:]
                out = self.model(input_ids=ids, attention_mask=mask, position_ids=positions, cache=cache, use_cache=True,
                                 logits_to_keep=1)
                logits, cache = out.logits[:, -1].float(), out.cache
                logits[:, self._unused] = -torch.inf
                tokens = _choose(logits, sampling, generator)
            chosen = tokens.tolist()
            yield [token if lives else None for token, lives in zip(chosen, alive, strict=True)]
            alive = [lives and token not in self.encoder.stop_ids for token, lives in zip(chosen, alive, strict=True)]
            if not any(alive):
                return
            ids = tokens[:, None]
            mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)


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
