"""Names in text: the longest of the graph's names at every place, found in one pass (Aho-Corasick). Judges nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from zhtune.text import is_han

_LEADS = ("是", "为", "有")


class Mention(NamedTuple):
    """A name at a place."""

    start: int
    end: int
    name: str
    """The entity; for an alias the one that bears it"""


class Linker:
    """Finds names.

    Args:
        names: of entities; a name of one character counts only where it stands alone.
        aliases: alias -> name.
    """

    def __init__(self, names: Iterable[str], aliases: dict[str, str] | None = None):
        import ahocorasick
        self._automaton = ahocorasick.Automaton()
        for form, name in sorted(({**(aliases or {}), **{name: name for name in names}}).items()):
            if form:
                self._automaton.add_word(_letters(form), (len(form), name))
        self._empty = len(self._automaton) == 0
        if not self._empty:
            self._automaton.make_automaton()

    def mentions(self, text: str) -> list[Mention]:
        """Mentions that do not overlap, the leftmost longest first, in order."""
        if self._empty:
            return []
        letters, found, read, at = _letters(text), [], 0, 0
        for end, (length, name) in self._automaton.iter(letters):
            at += len(letters[read:end + 1].encode("latin-1").decode("utf-8", "surrogatepass"))
            read = end + 1
            found.append((at - length, -length, name))
        kept, at = [], 0
        for start, size, name in sorted(found):
            if start >= at and (size < -1 or stands_alone(text, start, start + 1)):
                at = start - size
                kept.append(Mention(start, at, name))
        return kept


def _letters(text: str) -> str:
    """A letter for each byte: the automaton looks through the successors of a node one by one, which are thousands of characters, but few bytes."""
    return text.encode("utf-8", "surrogatepass").decode("latin-1")


def stands_alone(text: str, start: int, end: int) -> bool:
    """Whether no Han character, letter or digit touches a place; before it a verb that leads to a name may stand, as in 朝代是宋。"""
    before, after = text[max(0, start - 1):start], text[end:end + 1]
    return (before in _LEADS or not _is_word(before)) and not _is_word(after)


def _is_word(character: str) -> bool:
    return bool(character) and (is_han(character) or character.isalnum())
