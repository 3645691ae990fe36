"""What a teacher's tokens cost: prices per million tokens as exact decimals, from a YAML file or from given numbers.

Knows no provider and ships no price: prices change, the user states theirs. The file has one entry a model:

    my-model: {input: 0.40, output: 1.60, cached: 0.10}     # cached and batch may be left out
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from zhtune.config import read_yaml
from zhtune.errors import ConfigError

_MILLION = Decimal(1_000_000)


@dataclass(frozen=True)
class Price:
    """The price of one model, in whatever currency the user counts."""

    input: Decimal
    """A million prompt tokens."""
    output: Decimal
    """A million completion tokens."""
    cached: Decimal
    """A million prompt tokens that the server found in its cache."""
    batch: Decimal
    """Share of the price that the batch API asks."""

    def cost(self, usage: dict[str, int]) -> Decimal:
        """The exact cost of `{"prompt_tokens", "completion_tokens"[, "cached_tokens"]}`."""
        cached = usage.get("cached_tokens", 0)
        fresh = usage["prompt_tokens"] - cached
        return (fresh * self.input + cached * self.cached + usage["completion_tokens"] * self.output) / _MILLION

    def batched(self) -> Price:
        """The same model's price through the batch API."""
        return Price(self.input * self.batch, self.output * self.batch, self.cached * self.batch, Decimal(1))


def price(input: float | str, output: float | str, cached: float | str | None = None, batch: float | str = "0.5") -> Price:
    """A price from numbers, per million tokens; `cached` is `input` where it is not given.

    Raises:
        ConfigError: not a number, or a negative one.
    """
    given = {"input": input, "output": output, "cached": input if cached is None else cached, "batch": batch}
    return Price(**{name: _decimal(value, name) for name, value in given.items()})


def read_price(path: str | Path, model: str) -> Price:
    """The price of one model from a YAML price table.

    Raises:
        ConfigError: the file cannot be read, does not name the model, or has a wrong entry.
    """
    table = read_yaml(path)
    if model not in table:
        raise ConfigError(f"{path} has no price for {model!r}; it has {', '.join(map(str, table)) or 'none'}: add an entry")
    entry = table[model]
    if not isinstance(entry, dict) or not {"input", "output"} <= entry.keys() <= {"input", "output", "cached", "batch"}:
        raise ConfigError(f"{path}: {model!r} must be a mapping of input, output (and cached, batch), found {entry!r}")
    return price(**entry)


def _decimal(value: Any, name: str) -> Decimal:
    try:
        number = Decimal(str(value))                        # through str: a YAML 0.1 is the decimal 0.1
    except InvalidOperation as error:
        raise ConfigError(f"the price {name} must be a number, found {value!r}") from error
    if not number.is_finite() or number < 0:
        raise ConfigError(f"the price {name} must be 0 or more, found {value!r}")
    return number


FREE = price(0, 0)
"""A local server, or costs that nobody counts."""
