"""An access list as Mosquitto's acl_file: which user may read and write which topics; no I/O but reading the file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from broker.session import Identity
from broker.settings import BrokerError
from broker.topics import covers, is_valid_filter, matches, overlap

READ, WRITE = 1, 2
_KINDS = {"read": READ, "write": WRITE, "readwrite": READ | WRITE, "deny": 0}
REMEMBERED = 8192  # answers, until the file is read again


class Rule(NamedTuple):
    """`access` is 0 where the rule denies, which goes before everything that allows."""

    access: int
    topic_filter: str

    def for_client(self, identity: Identity) -> Rule | None:
        """With %c and %u filled in; None where an id would widen the filter."""
        path = self.topic_filter
        for mark, name in (("%c", identity.client_id), ("%u", identity.username)):
            if mark in path:
                if not name or set(name) & set("+#/"):
                    return None
                path = path.replace(mark, name)
        return Rule(self.access, path)


@dataclass
class AccessList:
    """The rules of each user, of those without a name (None), and the patterns of all."""

    users: dict[str | None, list[Rule]] = field(default_factory=dict)
    patterns: list[Rule] = field(default_factory=list)
    _answers: dict[tuple[Identity, int, str], bool] = field(default_factory=dict)

    def may(self, identity: Identity, access: int, topic: str) -> bool:
        """Whether the client may read or write the topic."""
        key = (identity, access, topic)
        answer = self._answers.get(key)
        if answer is None:
            if len(self._answers) >= REMEMBERED:
                self._answers.clear()
            rules = [rule for rule in self._rules(identity) if matches(rule.topic_filter, topic)]
            answer = all(rule.access for rule in rules) and any(rule.access & access for rule in rules)
            self._answers[key] = answer
        return answer

    def may_subscribe(self, identity: Identity, topic_filter: str) -> bool:
        """Whether anything that the filter matches may be read; what may not is left out at delivery."""
        rules = self._rules(identity)
        if any(not rule.access and covers(rule.topic_filter, topic_filter) for rule in rules):
            return False
        return any(rule.access & READ and overlap(rule.topic_filter, topic_filter) for rule in rules)

    def _rules(self, identity: Identity) -> list[Rule]:
        patterns = (rule.for_client(identity) for rule in self.patterns)
        return [*self.users.get(identity.username, ()), *(rule for rule in patterns if rule is not None)]


def parse(lines: Iterable[str]) -> AccessList:
    """The access list of a file's lines. Raises ValueError, which names the line."""
    found, user = AccessList(), None
    for number, raw in enumerate(lines, 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        word, _, rest = line.partition(" ")
        try:
            if word == "user":
                user = _named(rest.strip())
            elif word == "topic":
                found.users.setdefault(user, []).append(_rule(rest.strip()))
            elif word == "pattern":
                found.patterns.append(_rule(rest.strip()))
            else:
                raise ValueError(f"{word!r} is neither user, topic nor pattern")
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from error
    return found


def _named(name: str) -> str:
    if not name:
        raise ValueError("a user without a name")
    return name


def _rule(text: str) -> Rule:
    word, _, rest = text.partition(" ")
    access, path = (_KINDS[word], rest.strip()) if word in _KINDS and rest.strip() else (READ | WRITE, text)
    if not is_valid_filter(path):
        raise ValueError(f"{path!r} is not a topic filter")
    return Rule(access, path)


def read(path: Path) -> AccessList:
    """Raises BrokerError, which names the line."""
    try:
        return parse(path.read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise BrokerError(f"the access list {path} cannot be read: {error}") from error
    except ValueError as error:
        raise BrokerError(f"{path}, {error}") from error
