"""One-hop records + a teacher -> the same facts in the teacher's words, each draft verified against the graph.

A draft that the verifier rejects goes back to the teacher with what is wrong in it; what is still wrong after the last
round stays the template's record. So every fact keeps as many records as it had, and none that the graph does not support.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from zhtune.graph.graph import Graph
from zhtune.synthesis.chinese_filters import answer_refusal
from zhtune.synthesis.teachers.asking import Asking, Prompt
from zhtune.synthesis.teachers.joblog import Outcome
from zhtune.synthesis.teachers.replies import Task, tasks_of
from zhtune.synthesis.verify import Verification, Verifier

PROMPTS = {"rewrite": ("head", "relation", "facts", "count"), "retry": ("head", "relation", "facts", "drafts", "count")}
"""Each prompt's file (prompts/kg_instruct/NAME.txt) and its placeholders."""
_REASONS = {"other_head": "说的不是所问的对象", "polarity": "肯定否定说反了", "not_in_graph": "资料里没有", "other_fact": "不是所问的内容",
            "unknown_item": "资料里没有", "number": "数目不对"}


@dataclass
class _Fact:
    head: str
    relation: str
    places: list[int] = field(default_factory=list)
    """Where its records stand among the rows"""
    made: list[dict[str, Any]] = field(default_factory=list)
    rejected: list[tuple[str, str, str]] = field(default_factory=list)
    """(question, answer, what is wrong) of the last round"""

    @property
    def wanted(self) -> int:
        """Records that it still lacks."""
        return len(self.places) - len(self.made)


class Rewriter:
    """Asks a teacher and keeps what is true.

    Args:
        graph: with its ontology.
        asking: the teacher and how it is asked.
        prompts: "rewrite" and "retry".
        refuse: called as refuse(reason, **what) for each reply, or part of one, that is no draft, and each rejected draft.
        retries: rounds after the first.
    """

    def __init__(self, graph: Graph, asking: Asking, prompts: dict[str, Prompt], refuse: Callable[..., None], retries: int):
        self._graph, self._asking, self._prompts, self._refuse, self._retries = graph, asking, prompts, refuse, retries
        self._verifier = Verifier(graph)
        self._questions: set[str] = set()
        self._places: dict[str, int] = {}
        self.counts: Counter[str] = Counter(dict.fromkeys(("accepted", "accepted_after_retry", "fell_back", "facts_retried"), 0))
        """Records by how they came about, and facts that were asked again"""

    def rewrite(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The rows, their one-hop records in the teacher's words wherever its drafts are right. All records of a fact are asked in one call."""
        open_ = facts = self._facts(rows)
        self._places = {row["messages"][0]["content"]: place for place, row in enumerate(rows)}
        for turn in range(self._retries + 1):
            self.counts["facts_retried"] += len(open_) if turn == 1 else 0
            prompts = [self._prompts["retry" if fact.rejected else "rewrite"] for fact in open_]
            asked = [(f"{turn}:{fact.head}:{fact.relation}", self._messages(fact, prompt)) for fact, prompt in zip(open_, prompts)]
            for fact, prompt, outcome in zip(open_, prompts, self._asking.ask(asked), strict=True):
                made = self._judge(fact, prompt, outcome)
                self.counts["accepted_after_retry" if turn else "accepted"] += len(made)
                fact.made += made
            open_ = [fact for fact in open_ if fact.wanted]
            if not open_:
                break
        self.counts["fell_back"] += sum(fact.wanted for fact in open_)
        made = dict(pair for fact in facts for pair in zip(_replaced(fact, rows), fact.made))
        return [made.get(place, row) for place, row in enumerate(rows)]

    def _facts(self, rows: list[dict[str, Any]]) -> list[_Fact]:
        """The facts of the one-hop rows, in the graph's order."""
        found: dict[tuple[str, str], _Fact] = {}
        for place, row in enumerate(rows):
            if row["source"]["task"] == "one_hop":
                first = self._graph.by_id[row["source"]["triples"][0]]
                found.setdefault((first.head, first.relation), _Fact(first.head, first.relation)).places.append(place)
        return [found[key] for key in self._graph.facts if key in found]

    def _messages(self, fact: _Fact, prompt: Prompt) -> list[dict[str, str]]:
        label = self._graph.ontology.relations[fact.relation].labels[0]
        facts = "\n".join(f"{i}. {fact.head}　{label}　{tail}" for i, tail in enumerate(self._graph.tails(fact.head, fact.relation), 1))
        drafts = "\n".join(f"问：{q}\n答：{a}\n错处：{wrong}" for q, a, wrong in fact.rejected)
        return prompt.fill(head=fact.head, relation=label, facts=facts, count=fact.wanted, drafts=drafts)

    def _judge(self, fact: _Fact, prompt: Prompt, outcome: Outcome) -> list[dict[str, Any]]:
        """Records of the drafts that are right; the others are kept for the next round."""
        fact.rejected, made, about = [], [], [fact.head, fact.relation]
        drafts = tasks_of(outcome, self._refuse, fact=about)
        for draft in drafts:
            wrong = ("surplus", "") if len(made) == fact.wanted else self._wrong(fact, draft)
            if wrong:
                fact.rejected.append((draft.instruction, draft.output, wrong[1]))
                self._refuse(wrong[0], fact=about, job=outcome.job_id, question=draft.instruction, answer=draft.output, detail=wrong[1])
                continue
            self._questions.add(draft.instruction)
            made.append(self._record(fact, draft, {**self._asking.provenance(prompt, outcome), "call_tasks": len(drafts)}))
        return made

    def _wrong(self, fact: _Fact, draft: Task) -> tuple[str, str] | None:
        """(reason, in words) of a draft that cannot stay."""
        if fault := self._question_fault(fact, draft.instruction):
            return fault
        if reason := answer_refusal(draft.output, draft.instruction):
            return reason, "不是正常的回答"
        verdict = self._verifier.verify(draft.output, fact.head, fact.relation)
        return None if verdict.accepted else _in_words(verdict)

    def _question_fault(self, fact: _Fact, question: str) -> tuple[str, str] | None:
        graph, rest = self._graph, question.replace(fact.head, "")
        rule = graph.ontology.relations[fact.relation]
        if fact.head not in question:
            return "head_not_asked", f"问题没有写出“{fact.head}”"
        if question in self._questions or self._places.get(question, fact.places[0]) not in fact.places:
            return "same_question", "问题与已有的重复"
        if question.replace(fact.head, "{h}") in graph.heldout_wordings[fact.relation]:
            return "heldout_wording", "换一种问法"
        for name in (mention.name for mention in self._verifier.linker.mentions(question)):
            if name in graph.about(fact.head):              # the answer, or another fact, perhaps a held-out one
                return "gives_away", f"问题里不要提“{name}”"
            if name != fact.head and graph.types[name] in rule.heads:
                return "other_head_asked", f"问题问了“{name}”"
        labels = [label for other in graph.ontology.relations.values() if other != rule for label in other.labels if len(label) > 1 and label in rest]
        if labels and not any(label in rest for label in rule.labels):
            return "other_relation_asked", f"问题问的是{labels[0]}，不是{rule.labels[0]}"
        return None

    def _record(self, fact: _Fact, draft: Task, provenance: dict[str, Any]) -> dict[str, Any]:
        triples = [triple.id for triple in self._graph.facts[fact.head, fact.relation]]
        return {"messages": [{"role": "user", "content": draft.instruction}, {"role": "assistant", "content": draft.output}],
                "source": {"producer": "teacher", "task": "one_hop", "triples": triples, **provenance}}


def _replaced(fact: _Fact, rows: list[dict[str, Any]]) -> list[int]:
    """Its places, first those whose question the teacher asks too: no question stands twice."""
    asked = {row["messages"][0]["content"] for row in fact.made}
    return sorted(fact.places, key=lambda place: rows[place]["messages"][0]["content"] not in asked)


def _in_words(verdict: Verification) -> tuple[str, str]:
    parts = [f"“{claim.text}”{_REASONS[claim.reason]}" for claim in verdict.flagged]
    if verdict.missing:
        parts.append(f"漏了{'、'.join(verdict.missing)}")
    return verdict.flagged[0].reason if verdict.flagged else "missing", "；".join(parts)
