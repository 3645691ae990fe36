"""Personal data in Chinese text: a small literal set, each with the check that its number itself allows.

Resident identity numbers (date and ISO 7064 checksum, GB 11643-1999), mobile phone numbers, bank cards (issuer's prefix
and Luhn), e-mail addresses. Names, addresses and landline numbers are not looked for.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from dataclasses import dataclass

_PATTERN = re.compile(r"(?P<resident_id>(?<![\dA-Za-z])[1-9]\d{16}[\dXxＸｘ](?![\dA-Za-z]))"
                      r"|(?P<bank_card>(?<![\d.-])[3-6]\d{3}(?:[ -]?\d{4}){2,3}(?:[ -]?\d{1,4})?(?![\d-]))"
                      r"|(?P<mobile_phone>(?<![\dA-Za-z.-])1[3-9]\d[ -]?\d{4}[ -]?\d{4}(?![\dA-Za-z]))"
                      r"|(?P<e_mail>[A-Za-z0-9][A-Za-z0-9._%+-]*@(?:[A-Za-z0-9-]+\.)+[A-Za-z]{2,})")
_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_CHECK = "10X98765432"
MASKS = {"resident_id": "【身份证号】", "bank_card": "【银行卡号】", "mobile_phone": "【手机号】", "e_mail": "【邮箱】"}


@dataclass(frozen=True)
class Find:
    """One piece of personal data."""

    name: str
    start: int
    end: int
    masked: str
    """The find as a report may show it: its first two and last two characters"""


def personal(text: str) -> Iterator[Find]:
    """Yield the personal data in a text, from left to right."""
    for found in _PATTERN.finditer(text):
        name = found.lastgroup or ""
        if _CHECKS[name](found[0]):
            yield Find(name, found.start(), found.end(), f"{found[0][:2]}…{found[0][-2:]}")


def mask(text: str, name: str) -> str:
    """The text with the finds of one name replaced by what they are, such as 【手机号】."""
    for find in reversed([find for find in personal(text) if find.name == name]):
        text = text[:find.start] + MASKS[name] + text[find.end:]
    return text


def is_resident_id(number: str) -> bool:
    """Whether 18 characters are a resident identity number: birth date and check character are right."""
    digits = [int(c) for c in number[:17]]
    try:
        born = datetime.date(_number(digits[6:10]), _number(digits[10:12]), _number(digits[12:14]))
    except ValueError:
        return False
    last = {"x": "X", "Ｘ": "X", "ｘ": "X"}.get(number[17]) or (number[17] if number[17] == "X" else str(int(number[17])))
    return 1850 < born.year < 2100 and _CHECK[sum(d * w for d, w in zip(digits, _WEIGHTS, strict=True)) % 11] == last


def is_bank_card(number: str) -> bool:
    """Whether a number has an issuer's prefix, its length and a right Luhn digit (UnionPay, Visa, Mastercard, JCB, Amex)."""
    digits = [int(c) for c in number if c not in " -"]
    first = "".join(map(str, digits[:2]))
    lengths = (16, 17, 18, 19) if first == "62" else (15,) if first in ("34", "37") else (16,)
    if len(digits) not in lengths or not (first in ("62", "34", "35", "37") or first[0] == "4" or "51" <= first <= "55"):
        return False
    doubled = [d if i % 2 == 0 else 2 * d - 9 * (d > 4) for i, d in enumerate(reversed(digits))]
    return len(set(digits)) > 1 and sum(doubled) % 10 == 0


def _number(digits: list[int]) -> int:
    return int("".join(map(str, digits)))


_CHECKS = {"resident_id": is_resident_id, "bank_card": is_bank_card, "mobile_phone": lambda number: True, "e_mail": lambda address: True}
