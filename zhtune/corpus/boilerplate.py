"""Lines of navigation (上一篇, 扫码关注, 责任编辑, 备案号) that many documents share. Two passes: count, then remove.

A line goes if enough documents have it and it reads like navigation, and besides stands near the top or foot or ends no
sentence; or if it is the very first or last line and ends no sentence (the name of a site). What says something of its own
document stays, though others have it too: headings (第 1 条, 第一章 总则), dates, fences and rules without a letter.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import numpy as np

from zhtune.digests import hash64

# Every word begins with one character, no class of them: then `search` skips to these, in less than half the time.
_NAVIGATION = re.compile("上一?[篇页章条]|下一?[篇页章条]|扫码|扫一扫|二维码|公众号|责任?编辑|责编|编辑[:：]|审核[:：]|来源[:：]|來源[:：]|备案|ICP"
                         "|版权所有|Copyright|copyright|©|All [Rr]ights|展开全|点击|收藏|分享|返回[首顶上列目主]|首[页頁]|登[录入]|注[册冊]|註[册冊]"
                         "|阅读全文|查看更多|更多>|加载|相关(?:阅读|文章|推荐|新闻|链接)|推荐阅读|热门|排行|字号|打印|举报|投诉|广告|原文链接|转载|客服"
                         "|热线|下载|App|app|友情链接|网站地图|关于我们|联系我们|免责声明|当前位置|浏览(?:次数|量)|阅读量?[:：]|点赞|评论|关注我们"
                         "|订阅|关键词|标签[:：]")
_HEADING = re.compile(r"第 ?[一二三四五六七八九十百千零〇\d]+ ?[编編章节節条條款篇部回卷]|[一二三四五六七八九十]+、"
                      r"|[（(][一二三四五六七八九十\d]+[）)]|[\d.]+[、.\s]|#+ |\d{4} ?年 ?\d")
_LETTER = re.compile(r"\w")
_ENDS = "。！？…；”」』，、"
_EDGE, _LONGEST, _FEWEST = 3, 80, 8                         # lines at each end; characters of a line; lines of a document that has edges
_ROWS, _WIDTH = 3, 1 << 22                                  # of the count sketch: 48 MB, whatever the corpus


class LineCounts:
    """In how many documents each line stands, in fixed memory (a count-min sketch: it may count too many, never too few)."""

    def __init__(self) -> None:
        self.table = np.zeros((_ROWS, _WIDTH), np.uint32)
        """Those of two parts of a collection add up to that of the whole"""

    def add(self, keys: Iterable[int]) -> None:
        """Count one document's lines, given as `line_keys` gives them."""
        for key in keys:
            for row in range(_ROWS):
                self.table[row, key >> 21 * row & _WIDTH - 1] += 1

    def of(self, key: int) -> int:
        return min(int(self.table[row, key >> 21 * row & _WIDTH - 1]) for row in range(_ROWS))

    def without(self, text: str, least: int) -> str:
        """A text without its navigation lines that at least that many documents have."""
        lines = text.split("\n")
        shared = {number for number, key in _candidates(lines) if self.of(key) >= least}
        return "\n".join(line for number, line in enumerate(lines) if number not in shared) if shared else text


def line_keys(text: str) -> set[int]:
    """What identifies the lines of a document that may be navigation; digits count as one (page 3 of 12)."""
    return {key for _, key in _candidates(text.split("\n"))}


def _candidates(lines: list[str]) -> Iterator[tuple[int, int]]:
    """(number, key) of each line that may be navigation."""
    filled = [number for number, line in enumerate(lines) if line.strip()]
    edges = {*filled[:_EDGE], *filled[-_EDGE:]} if len(filled) >= _FEWEST else set()
    for number in filled:
        line = lines[number].strip()
        ends = line[-1] in _ENDS
        if len(line) > _LONGEST or (ends and number not in edges) or _HEADING.match(line) or not _LETTER.search(line):
            continue
        if _NAVIGATION.search(line) or (not ends and number in edges and number in (filled[0], filled[-1])):
            yield number, hash64(re.sub(r"\d+", "0", line))
