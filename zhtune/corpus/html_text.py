"""HTML -> the text a reader sees, one line a block. Judges no text; navigation and what is never shown are left out."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from zhtune.text import HAN

_HIDDEN = frozenset("script style noscript template svg iframe object select button textarea nav footer aside title".split())
_BLOCKS = frozenset("""address article blockquote body br caption center dd details div dl dt fieldset figcaption figure form h1 h2 h3 h4 h5 h6
                    head header hr html legend li main ol p pre section summary table tbody tfoot thead tr ul""".split())
_WIDE = f"[{HAN}\u3000-\u303f\uff00-\uffef]"
_WRAP = re.compile(rf"(?<={_WIDE})[ \t]*[\r\n][ \t\r\n]*(?={_WIDE})")      # a line end in the source between two wide characters is no space
_BLANK = re.compile("[ \t\r\n\f]+")
_CONDITION = re.compile(r"<!\[(?!CDATA\[)[^<>]*>?")        # <![if !IE]>, at which the parser stops
_TAGS = re.compile(r"<!--.*?-->|<(script|style)\b.*?</\1\s*>|</?(?:a|abbr|b|big|br|center|code|dd|del|div|dl|dt|em|font|h[1-6]|hr|i|img|ins|li|ol|p|"
                   r"pre|s|small|span|strike|strong|sub|sup|table|tbody|td|th|thead|tr|tt|u|ul)(?:\s[^<>]*)?/?>", re.DOTALL | re.IGNORECASE)
_BREAKING = re.compile(r"</?(?:br|p|div|li|tr|h[1-6]|hr|dd|dt|table|ul|ol)\b", re.IGNORECASE)
_ENTITY = re.compile(r"&(?:nbsp|lt|gt|amp|quot|apos|#39|ldquo|rdquo|mdash|hellip|middot|emsp|ensp|#160|#x[0-9a-fA-F]{2,5});")
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_BREAK, _SPACE, _TAB = "\ufdd0", "\ufdd1", "\ufdd2"         # stand for what must outlive the folding of white space


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self.title: list[str] = []
        self._hidden: list[str] = []                        # open elements that are not shown
        self._pre = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("article", "main", "body"):
            self._hidden.clear()                            # a <nav> that nobody closed
        if tag in _HIDDEN:
            self._hidden.append(tag)
        self._mark(tag)
        self._pre += tag == "pre"

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._mark(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self._hidden:
            del self._hidden[self._hidden.index(tag):]
        self._mark(tag)
        self._pre -= tag == "pre" and self._pre > 0

    def handle_data(self, data: str) -> None:
        if self._hidden:
            self.title += [data] if self._hidden == ["title"] else []
        else:
            self.parts.append(data.replace("\n", _BREAK).replace(" ", _SPACE).replace("\t", _SPACE) if self._pre else data)

    def unknown_decl(self, data: str) -> None:
        self.handle_data(data.removeprefix("CDATA["))

    def _mark(self, tag: str) -> None:
        if not self._hidden and tag in _BLOCKS:
            self.parts.append(_BREAK)
        elif not self._hidden and tag in ("td", "th"):
            self.parts.append(_TAB)


def html_text(html: str) -> tuple[str, str]:
    """(text, title) of a page; cells of a table row are parted by tabs, lines within <pre> keep their indent."""
    reader = _Reader()
    reader.feed(_CONDITION.sub("", html))
    reader.close()
    flat = _BLANK.sub(" ", _WRAP.sub("", "".join(reader.parts)))
    lines = (re.sub(f" *{_TAB}[ {_TAB}]*", "\t", line).strip().replace(_SPACE, " ").rstrip() for line in flat.split(_BREAK))
    return "\n".join(line for line in lines if line), _BLANK.sub(" ", "".join(reader.title)).strip()


def strip_markup(text: str) -> str:
    """A text without the remains of markup: known HTML tags, comments, entities, colour codes of terminals.

    `List<String>`, `a < b`, `<stdio.h>` and other angle brackets stay.
    """
    if "\x1b" in text:
        text = _ANSI.sub("", text)
    if "<" in text:
        text = _TAGS.sub(lambda tag: "\n" if _BREAKING.match(tag[0]) else "", text)
    if "&" in text:
        from html import unescape
        text = _ENTITY.sub(lambda entity: unescape(entity[0]).replace("\xa0", " "), text)
    return text
