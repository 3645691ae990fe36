"""Which engine answers for a reference. Answers nothing itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from zhtune.errors import ConfigError
from zhtune.models.engine import Conversation, Engine, Reply, Sampling, refuse_bare
from zhtune.references import Source


def open_engine(source: Source, threads: int = 2, template: str = "", adapters: Mapping[str, Source] | None = None,
                apart: bool = False) -> Engine:
    """The engine for a resolved reference: model, adapter, base, quantized artifact, .gguf file or endpoint.

    Args:
        source: what answers.
        threads: of llama.cpp; torch takes its own from OMP_NUM_THREADS.
        template: a chat template's name, for a model that has none.
        adapters: by name, adapters on a model that are kept apart: each answer names the one it is by.
        apart: do not merge the last adapter of the reference, so that an answer can leave it out (a LoRA is slower so).

    Raises:
        ConfigError: nothing that answers, or not in this way.
    """
    gguf = source.kind == "quantized" or (source.path is not None and source.path.suffix == ".gguf")
    if adapters and (gguf or source.kind == "endpoint"):
        raise ConfigError(f"{source.reference} takes no adapters; give the model that they were trained on")
    if apart and adapters:
        raise ConfigError('with --adapters a prompt without the field "adapter" is answered by the model itself; leave out false there')
    if apart and (gguf or source.kind == "endpoint"):
        refuse_bare(source.reference)
    if template and source.kind == "endpoint":
        raise ConfigError("an endpoint has its own chat template; leave out --template")
    if source.kind == "endpoint":
        from zhtune.models.endpoint import EndpointEngine
        return EndpointEngine(source)
    if gguf:
        from zhtune.models.llamacpp import LlamaCppEngine
        return LlamaCppEngine(source, threads, template=template)
    from zhtune.models.generation import TransformersEngine
    return TransformersEngine(source, template, adapters or {}, apart)


@contextmanager
def answering(source: Source, threads: int = 2, template: str = "") -> Iterator[Callable[[list[Conversation], int, float, int], list[Reply]]]:
    """An engine as the function that a local teacher is: (conversations, max_tokens, temperature, seed) -> replies."""
    engine = open_engine(source, threads, template)
    try:
        yield lambda conversations, max_tokens, temperature, seed: engine.generate(
            conversations, Sampling(max_tokens=max_tokens, temperature=temperature, seed=seed))
    finally:
        engine.close()
