"""Walks through the model as TLC writes them down, read into Python."""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

_TOKEN = re.compile(r'"[^"]*"|\w+|<<|>>|\|->|:>|@@|[\[\](){},]')
_CLOSING = {"<<": ">>", "{": "}", "[": "]", "(": ")"}


class State(NamedTuple):
    """A state, by variable, and the action that led to it: its name, then what it was done with."""

    action: tuple[Any, ...]
    variables: dict[str, Any]


def read_walk(text: str) -> list[State]:
    """Read the states of one walk, in order."""
    states = []
    for block in re.split(r"^STATE_\d+ == *$", text, flags=re.MULTILINE)[1:]:
        parts = re.split(r"^/\\ (\w+) = ", block, flags=re.MULTILINE)[1:]
        variables = {name: parse(value) for name, value in zip(parts[::2], parts[1::2], strict=True)}
        states.append(State(tuple(variables.pop("last")), variables))
    return states


def parse(text: str) -> Any:
    """Parse a value: sequences and sets become lists, records and functions dicts, model values strings."""
    return _value(iter(_TOKEN.findall(text)))


def _value(tokens: Iterator[str]) -> Any:
    return _value_from(next(tokens), tokens)


def _value_from(token: str, tokens: Iterator[str]) -> Any:
    if token in _CLOSING:
        return _collection(token, tokens)
    if token in ("TRUE", "FALSE"):
        return token == "TRUE"
    return int(token) if token.isdigit() else token.strip('"')


def _collection(opening: str, tokens: Iterator[str]) -> Any:
    items: list[Any] = []
    pairs: dict[Any, Any] = {}
    while (token := next(tokens)) != _CLOSING[opening]:
        if token in ("|->", ":>"):
            pairs[items.pop()] = _value(tokens)
        elif token not in (",", "@@"):
            items.append(_value_from(token, tokens))
    return pairs if pairs or opening == "(" else items
