"""How far a model reads: its context in tokens, and RoPE scaling that makes it longer. Reads config.json, loads no weights.

linear divides every position by the factor (Chen et al. 2023, arXiv 2306.15595); dynamic raises the base with the length,
so that short texts are read as before ("dynamic NTK"); yarn interpolates slow dimensions only (Peng et al. 2023, arXiv
2309.00071). transformers computes all three from `rope_parameters`.
"""

from __future__ import annotations

from typing import Any

from zhtune.errors import ConfigError

_NAMES = ("max_position_embeddings", "max_sequence_length", "seq_length", "n_positions")     # of families in config.json
_ALIBI = 2048                                               # BLOOM was trained on as many; its config does not say


def context_of(config: dict[str, Any]) -> int:
    """Tokens of context that a parsed config.json states."""
    said = next((config[name] for name in _NAMES if config.get(name)), _ALIBI)
    rope = _rope(config)
    return round(said * rope["factor"]) if rope.get("rope_type") == "dynamic" else said


def require_context(config: dict[str, Any], flag: str, length: int) -> None:
    """Raise ConfigError if `length` tokens, asked for by `flag`, are more than a model reads."""
    if length > (most := context_of(config)):
        raise ConfigError(f"{flag} {length} is beyond the model's context of {most} tokens; lower it, or make the context longer first: "
                          f"zhtune extend --rope yarn --context {length}")


def scaled(config: dict[str, Any], scaling: str, context: int) -> dict[str, Any]:
    """A config.json with RoPE scaling for a longer context.

    Args:
        config: of a model with unscaled RoPE.
        scaling: linear, dynamic or yarn.
        context: the new context in tokens.

    Raises:
        ConfigError: another kind of positions, scaled already, or no longer than before.
    """
    rope, before = _rope(config), context_of(config)
    if config.get("model_type") == "bloom":
        raise ConfigError("BLOOM has ALiBi in place of RoPE: it reads longer texts as it is, there is nothing to scale")
    if "rope_theta" not in rope or "max_position_embeddings" not in config:
        raise ConfigError(f"a {config.get('model_type')} model has no RoPE that could be scaled")
    if rope.get("rope_type", "default") != "default":
        raise ConfigError(f"the model's RoPE is scaled already ({rope['rope_type']}); start from the model as it was before")
    if context <= before:
        raise ConfigError(f"--context {context} is no longer than the model's own context of {before} tokens")
    rope |= {"rope_type": scaling, "factor": context / before}
    if scaling == "yarn":
        rope["original_max_position_embeddings"] = before
    kept = {name: value for name, value in config.items() if name not in ("rope_scaling", "rope_theta")}
    # transformers reads the old context of a dynamic scaling from max_position_embeddings
    return kept | {"rope_parameters": rope, "max_position_embeddings": before if scaling == "dynamic" else context}


def _rope(config: dict[str, Any]) -> dict[str, Any]:
    """RoPE's settings in today's form; configs of transformers 4 have rope_theta and rope_scaling beside each other."""
    rope = dict(config.get("rope_parameters") or {})
    if not rope and (config.get("rope_theta") or config.get("model_type") in ("llama", "mistral")):
        rope = {"rope_theta": config.get("rope_theta", 10000.0), **(config.get("rope_scaling") or {})}
        rope["rope_type"] = rope.pop("type", rope.get("rope_type", "default"))
    return rope
