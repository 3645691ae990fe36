"""Text that was read in a wrong encoding: read back where that is exact, known for lost where it is not."""

from __future__ import annotations

import re

from zhtune.text import HAN

# 锟斤拷 is U+FFFD read as GBK, 烫 and 屯 are unset memory; 锛 銆 鈥 begin ，。“ read as GBK and are all but unused words.
GARBLED = re.compile("锟斤拷|烫烫烫|屯屯屯|ï¿½|[锛銆鈥].{0,40}?[锛銆鈥]", re.DOTALL)
_LATIN_RUN = re.compile("[\x80-\xff€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]*[\xc2-\xf4][\x80-\xff€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]+")
_LATIN = re.compile("[\xc2-\xf4]")
_PLAUSIBLE = re.compile(f"[{HAN}\u3000-\u303f\uff00-\uffef\u2010-\u2026\xa0-\xff]+")


def mend(text: str) -> str:
    """Text that was UTF-8 and read as GBK or Latin-1, read back, where that is exact; any other text as it is."""
    if text.isascii():
        return text
    try:
        back = text.encode("gb18030").decode("utf-8")
        if all(_PLAUSIBLE.fullmatch(run) for run in re.findall("[^\x00-\x7f]+", back)) and re.search(f"[{HAN}]", back):
            return back
    except (UnicodeEncodeError, UnicodeDecodeError):
        pass                                                # the usual case: it is no mojibake of this kind
    return _LATIN_RUN.sub(lambda run: _mend_run(run[0]), text) if _LATIN.search(text) else text


def _mend_run(run: str) -> str:
    try:
        back = b"".join(c.encode("latin-1") if c < "\u0100" else c.encode("cp1252") for c in run).decode("utf-8")
    except UnicodeDecodeError:
        return run
    return back if _PLAUSIBLE.fullmatch(back) else run
