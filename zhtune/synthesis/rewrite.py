"""Facts + a teacher -> questions and answers in the teacher's words, each verified against the graph.

A draft that the verifier rejects goes back to the teacher with what is wrong in it, at most twice; then the template's
record takes its place. So every fact gets as many records as were asked for, and none that the graph does not support.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from zhtune.graph.graph import Graph
from zhtune.synthesis.instruct import answer as template_answer
from zhtune.synthesis.instruct import question as template_question
from zhtune.synthesis.instruct import record
from zhtune.synthesis.replies import parse_tasks
from zhtune.synthesis.self_instruct import Asking, Prompt
from zhtune.synthesis.teacher import Outcome
from zhtune.synthesis.verify import Verification, Verifier

PROMPTS = {"rewrite": ("head", "relation", "facts", "count"), "retry": ("head", "relation", "facts", "drafts", "count")}
"""Each prompt's file (prompts/kg_instruct/NAME.txt) and its placeholders."""
_REASONS = {"other_head": "说的不是所问的对象", "polarity": "肯定否定说反了", "not_in_graph": "资料里没有", "other_fact": "不是所问的内容",
            "unknown_item": "资料里没有", "number": "数目不对"}


@dataclass
class Rewritten:
    """What came of it."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    verdicts: Counter[str] = field(default_factory=Counter)
    """Drafts by what became of them: accepted, accepted_after_retry, template, and each reason of a rejection"""


@dataclass
class _Fact:
    head: str
    relation: str
    wanted: int
    rejected: list[tuple[str, str, str]] = field(default_factory=list)
    """(question, answer, what is wrong) of this round"""


class Rewriter:
    """Asks a teacher and keeps what is true.

    Args:
        graph: with its ontology.
        asking: the teacher and how it is asked.
        prompts: "rewrite" and "retry".
        refuse: called as refuse(reason, **what) for each rejected draft.
        retries: rounds after the first.
        seed: of the template's records.
    """

    def __init__(self, graph: Graph, asking: Asking, prompts: dict[str, Prompt], refuse: Callable[..., None], retries: int, seed: int):
        self._graph, self._asking, self._prompts, self._refuse, self._retries, self._seed = graph, asking, prompts, refuse, retries, seed
        self._verifier = Verifier(graph)
        self._questions: set[str] = set()

    def rewrite(self, facts: list[tuple[str, str]], count: int) -> Rewritten:
        """`count` records for each (head, relation), in the order of the facts."""
        found = Rewritten()
        kept: dict[tuple[str, str], list[dict[str, Any]]] = {fact: [] for fact in facts}
        open_ = [_Fact(head, relation, count) for head, relation in facts]
        for turn in range(self._retries + 1):
            outcomes = self._asking.ask([(f"{turn}:{f.head}:{f.relation}", self._messages(f, turn)) for f in open_])
            for fact, outcome in zip(open_, outcomes, strict=True):
                kept[fact.head, fact.relation] += self._judge(fact, outcome, turn, found)
            open_ = [fact for fact in open_ if fact.wanted]
            if not open_:
                break
        for fact in open_:
            found.verdicts["template"] += fact.wanted
            kept[fact.head, fact.relation] += [self._template(fact, number) for number in range(fact.wanted)]
        found.rows = [row for rows in kept.values() for row in rows]
        return found

    def _messages(self, fact: _Fact, turn: int) -> list[dict[str, str]]:
        label = self._graph.ontology.relations[fact.relation].labels[0]
        facts = "\n".join(f"{i}. {fact.head}　{label}　{tail}" for i, tail in enumerate(self._graph.tails(fact.head, fact.relation), 1))
        values = {"head": fact.head, "relation": label, "facts": facts, "count": fact.wanted}
        if turn and fact.rejected:
            drafts = "\n".join(f"问：{q}\n答：{a}\n错处：{wrong}" for q, a, wrong in fact.rejected)
            return self._prompts["retry"].fill(**values, drafts=drafts)
        return self._prompts["rewrite"].fill(**values)

    def _judge(self, fact: _Fact, outcome: Outcome, turn: int, found: Rewritten) -> list[dict[str, Any]]:
        """Records of the drafts that are right; the others are kept for the next round."""
        fact.rejected = []
        rows: list[dict[str, Any]] = []
        for draft in parse_tasks(outcome.text, outcome.finish).tasks if outcome.text else []:
            if len(rows) == fact.wanted:
                break
            wrong = self._wrong(fact, draft.instruction, draft.output)
            if wrong:
                reason, text = wrong
                found.verdicts[reason] += 1
                fact.rejected.append((draft.instruction, draft.output, text))
                self._refuse(reason, fact=[fact.head, fact.relation], job=outcome.job_id, question=draft.instruction, answer=draft.output,
                             detail=text)
                continue
            self._questions.add(draft.instruction)
            found.verdicts["accepted_after_retry" if turn else "accepted"] += 1
            rows.append(self._record(fact, draft.instruction, draft.output, outcome, turn))
        if not rows and not fact.rejected:
            found.verdicts["no_draft"] += 1
        fact.wanted -= len(rows)
        return rows

    def _wrong(self, fact: _Fact, question: str, answer: str) -> tuple[str, str] | None:
        """(reason, in words) of a draft that cannot stay."""
        if fact.head not in question:
            return "head_not_asked", f"问题没有写出“{fact.head}”"
        if question in self._questions:
            return "same_question", "问题与已有的重复"
        if question.replace(fact.head, "{h}") in self._graph.heldout_wordings(fact.relation):
            return "heldout_wording", "换一种问法"
        verdict = self._verifier.verify(answer, fact.head, fact.relation)
        return None if verdict.accepted else _in_words(verdict)

    def _record(self, fact: _Fact, question: str, answer: str, outcome: Outcome, turn: int) -> dict[str, Any]:
        name = "retry" if turn else "rewrite"
        row = record("one_hop", question, answer, self._graph.facts[fact.head, fact.relation], self._seed)
        row["source"] |= {"producer": "teacher", "teacher": self._asking.teacher.name, "job": outcome.job_id, "prompt": self._prompts[name].sha256,
                          "cost": str(outcome.cost)}
        return row

    def _template(self, fact: _Fact, number: int) -> dict[str, Any]:
        relation = self._graph.ontology.relations[fact.relation]
        text, form = template_question(self._graph, fact.head, relation, number % len(relation.ask),
                                       f"{self._seed}:rewrite:{fact.head}:{fact.relation}:{number}", set(), noise=False)
        return record("one_hop", text, template_answer(self._graph, fact.head, fact.relation), self._graph.facts[fact.head, fact.relation],
                      self._seed, wording=number % len(relation.ask), form=form)


def _in_words(verdict: Verification) -> tuple[str, str]:
    parts = [f"“{claim.text}”{_REASONS[claim.reason]}" for claim in verdict.flagged]
    if verdict.missing:
        parts.append(f"漏了{'、'.join(verdict.missing)}")
    return verdict.flagged[0].reason if verdict.flagged else "missing", "；".join(parts)
