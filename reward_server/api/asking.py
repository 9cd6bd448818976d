"""What a request asks of the graders, checked: its own grade, the terms of the reward, and a second opinion."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from chorus.protocol.graders import KINDS, MAX_ROW_BYTES, GraderSpec
from chorus.protocol.templates.template import Template
from chorus.reward_server.api import schemas
from chorus.reward_server.api.settings import Settings
from chorus.reward_server.graders.task import Asked, GradeResult, GradeTask, Program, Reply

_NO_GOLDS = ("code", "reasoning_gym")  # graded by tests, or by an item's name: no other grader of ours can


class BadItemError(ValueError):
    """A request that is well formed and still cannot be graded; the message says which field and why."""


class MissingFieldError(BadItemError):
    """A field that the item's kind needs is not there: the body is none that this service takes."""


class NoSandboxError(Exception):
    """A program to run, and nowhere safe to run it; the message says what was tried."""


@dataclass(frozen=True)
class Question:
    """The tasks of one request: `grade` decides, `terms` by their graders' names, `shadow`: whose opinion, its task."""

    grade: GradeTask
    terms: Mapping[str, GradeTask] = field(default_factory=dict)
    shadow: tuple[str, GradeTask] | None = None

    def tasks(self) -> Iterator[GradeTask]:
        yield self.grade
        yield from self.terms.values()
        if self.shadow is not None:
            yield self.shadow[1]

    def answer(self, replies: Iterator[Reply]) -> Answer:
        """Takes as many replies as there are tasks."""
        grade = _graded(next(replies))
        terms = {name: _graded(next(replies)) for name in self.terms}
        return Answer(grade, terms, None if self.shadow is None else (self.shadow[0], _graded(next(replies))))


@dataclass(frozen=True)
class Answer:
    """What the graders said to a question."""

    grade: GradeResult
    terms: Mapping[str, GradeResult] = field(default_factory=dict)
    shadow: tuple[str, GradeResult] | None = None

    @property
    def scores(self) -> dict[str, float | None]:
        """Of users' own graders, the one that decided among them, and of their parts."""
        found: dict[str, float | None] = {}
        for name, result in self.terms.items():
            found |= {name: result.score, **{f"{name}.{part}": value for part, value in result.parts.items()}}
        return found

    @property
    def reason(self) -> str | None:
        """Of the grade, or else of the first term that failed."""
        failed = (result.reason for result in self.terms.values() if result.accuracy is None)
        return self.grade.reason or next(failed, None)


class Asking:
    """Makes questions of requests, as the server is set."""

    def __init__(self, settings: Settings, sandbox: str | None, no_sandbox: str) -> None:
        self._settings = settings
        self._sandbox = sandbox
        self._no_sandbox = no_sandbox
        self.own: dict[str, GraderSpec] = {spec.name: spec for spec in settings.graders}
        self.kinds = (*KINDS, *self.own)
        self._paid = tuple(term.grader for term in settings.reward.terms)

    def question(
        self, request: schemas.GradeRequest, template: Template | None, where: str, asked: Asked = "grade"
    ) -> Question:
        """Raises BadItemError, MissingFieldError, NoSandboxError."""
        self.check_kind(request.kind, where)
        golds = self._golds(request, where)
        row = self._row(request, where)
        terms = self._terms(request, where)
        grade = self._grade(request, template, golds, row, where, asked)
        return Question(
            grade,
            {name: self._own(name, request, golds, row, where, asked) for name in terms},
            self._shadow(request, template, golds, row, where),
        )

    def check_kind(self, kind: str, where: str = "") -> None:
        if kind not in self.kinds:
            names = [f"'{name}'" for name in self.kinds]
            raise MissingFieldError(f"{where}kind: Input should be {', '.join(names[:-1])} or {names[-1]}")

    def _golds(self, request: schemas.GradeRequest, where: str) -> tuple[str, ...]:
        if request.kind == "code":
            return ()
        if request.gold is None:
            if request.kind in self.own:
                return ()
            raise MissingFieldError(f"{where}gold: Field required")
        golds = (request.gold,) if isinstance(request.gold, str) else tuple(request.gold)
        if any(not gold.strip() for gold in golds):
            raise BadItemError(f"{where}gold: an empty gold matches nothing; give the answer")
        return golds

    def _row(self, request: schemas.GradeRequest, where: str) -> dict[str, Any]:
        if request.row is None:
            return {}
        try:
            size = len(json.dumps(request.row, ensure_ascii=False).encode(errors="surrogatepass"))
        except RecursionError:
            raise BadItemError(f"{where}row: nested too deeply") from None
        if size > MAX_ROW_BYTES:
            raise BadItemError(f"{where}row: {size:,} bytes, a row may have {MAX_ROW_BYTES:,}; send fewer columns")
        return request.row

    def _terms(self, request: schemas.GradeRequest, where: str) -> tuple[str, ...]:
        terms = self._paid if request.terms is None else tuple(dict.fromkeys(request.terms))
        if unknown := next((name for name in terms if name not in self.own), None):
            known = ", ".join(self.own) or "none"
            raise MissingFieldError(
                f"{where}terms: this server has no grader {unknown!r:.80} (its own: {known}); start it with the recipe "
                "that names it in [[reward.graders]]"
            )
        return tuple(name for name in terms if name != request.kind)

    def _grade(
        self,
        request: schemas.GradeRequest,
        template: Template | None,
        golds: tuple[str, ...],
        row: dict[str, Any],
        where: str,
        asked: Asked,
    ) -> GradeTask:
        if request.kind == "code":
            return GradeTask("code", request.completion, task=asked, program=self._program(request, where))
        if request.kind in self.own:
            return self._own(request.kind, request, golds, row, where, asked, term=False)
        return self._by_gold(request.kind, request, template, golds, asked)

    def _by_gold(
        self,
        kind: str,
        request: schemas.GradeRequest,
        template: Template | None,
        golds: tuple[str, ...],
        asked: Asked = "grade",
        term: bool = False,
    ) -> GradeTask:
        return GradeTask(
            kind,
            request.completion,
            golds,
            request.mode,
            asked,
            options=tuple(request.options or ()),
            markers=tuple(template.markers) if template else (),
            prefill=template.prefill if template else "",
            percent_sign_optional=self._settings.percent_sign_optional,
            unfinished_reasoning=self._settings.unfinished_reasoning,
            term=term,
        )

    def _own(
        self,
        name: str,
        request: schemas.GradeRequest,
        golds: tuple[str, ...],
        row: dict[str, Any],
        where: str,
        asked: Asked = "grade",
        term: bool = True,
    ) -> GradeTask:
        columns = self.own[name].columns
        if missing := [column for column in columns if column not in row]:
            raise BadItemError(f"{where}row: there is no column {missing[0]!r}, which the grader {name!r} asks for")
        given = json.dumps({column: row[column] for column in columns}) if columns else None
        return GradeTask(name, request.completion, golds, request.mode, asked, row=given, term=term)

    def _shadow(
        self,
        request: schemas.GradeRequest,
        template: Template | None,
        golds: tuple[str, ...],
        row: dict[str, Any],
        where: str,
    ) -> tuple[str, GradeTask] | None:
        """For a share of the completions, the same whenever they are graded; where that grader can grade the kind."""
        name = self._settings.shadow
        if not name or name == request.kind or _lot(request.completion, golds) >= self._settings.shadow_share:
            return None
        if name in self.own:
            return name, self._own(name, request, golds, row, where)
        if request.kind in _NO_GOLDS or not golds or (name == "math-verify" and request.kind != "math"):
            return None
        return name, self._by_gold(name, request, template, golds, term=True)

    def _program(self, request: schemas.GradeRequest, where: str) -> Program:
        if not request.tests:
            raise MissingFieldError(f"{where}tests: kind 'code' is graded by tests; give at least one")
        if self._sandbox is None:
            raise NoSandboxError(f"{where}kind: 'code' needs a sandbox, and this server has none ({self._no_sandbox})")
        try:
            tests = json.dumps([dict(test) for test in request.tests])  # msgpack knows no integers over 64 bits
        except RecursionError as error:
            raise BadItemError(f"{where}tests: nested too deeply") from error
        block = request.block or self._settings.code_block
        scoring = request.scoring or self._settings.code_scoring
        return Program(tests, self._sandbox, self._settings.timeout_s, scoring, block)


def _lot(completion: str, golds: tuple[str, ...]) -> float:
    """From 0 to 1, always the same for the same text."""
    text = "\0".join((completion, *golds)).encode(errors="surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=6).digest(), "big") / 2**48


def _graded(reply: Reply) -> GradeResult:
    if not isinstance(reply, GradeResult):
        raise TypeError(f"{type(reply).__name__} is no grade")
    return reply
