"""Symbols: ordinary numbers to whoever reads them, nodes of a graph to whoever writes it down, decisions where they come from data."""

from __future__ import annotations

import copy
import math
import operator
import pickle
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import pytest
import torch.fx
from hypothesis import given

from fxgrad.torch_api.symbols import Origin, SymbolicFloat, SymbolicInt, make, plain


class Owner:
    """Writes nodes into a graph and notes decisions."""

    def __init__(self) -> None:
        self.active = True
        self.open_numbers = False
        self.graph = torch.fx.Graph()
        self.input = self.graph.placeholder("n")
        self.decided: list[bool] = []
        self.assumed: list[tuple[Any, tuple[Any, ...], Any, bool]] = []

    def symbol_node(self, target: Any, args: tuple[Any, ...]) -> torch.fx.Node:
        return self.graph.call_function(target, args)

    def decide(self, outcome: bool, asked: Any) -> bool:
        assert asked[0](*map(plain, asked[1])) is outcome
        self.decided.append(outcome)
        return outcome

    def assume(self, target: Any, args: tuple[Any, ...], taken: Any, *, weak: bool = False) -> None:
        self.assumed.append((target, args, taken, weak))

    def symbol(self, value: float, *, data: bool = False) -> Any:
        origin = Origin(self, None, (), data=data)
        origin.resolved = self.input
        return make(value, origin)

    def recomputed(self, symbol: Any, value: float) -> Any:
        """What the graph of a symbol gives where the first number is `value`."""
        self.graph.output(symbol.origin.node())
        return torch.fx.GraphModule({}, self.graph)(value)


BINARY = [operator.add, operator.sub, operator.mul, operator.floordiv, operator.mod, operator.truediv, operator.pow, divmod]
BITS = [operator.and_, operator.or_, operator.xor, operator.lshift, operator.rshift]
UNARY: list[Callable[[Any], Any]] = [operator.neg, abs, round, math.ceil, math.floor, math.trunc]
SMALL = st.integers(1, 20)


@given(op=st.sampled_from(BINARY), left=SMALL, right=st.one_of(SMALL, st.floats(0.5, 4)))
def test_arithmetic_is_that_of_numbers(op: Callable[[Any, Any], Any], left: int, right: float) -> None:
    symbol = Owner().symbol(left)
    assert op(symbol, right) == op(left, right)
    assert op(right, symbol) == op(right, left)


@given(op=st.sampled_from(BITS), left=SMALL, right=SMALL)
def test_bits_are_those_of_ints(op: Callable[[Any, Any], Any], left: int, right: int) -> None:
    symbol = Owner().symbol(left)
    assert (op(symbol, right), op(right, symbol)) == (op(left, right), op(right, left))


@given(op=st.sampled_from([*BINARY[:-1], *BITS]), first=SMALL, other=SMALL, right=SMALL)
def test_the_graph_computes_for_other_numbers(op: Callable[[Any, Any], Any], first: int, other: int, right: int) -> None:
    owner = Owner()
    assert owner.recomputed(op(right, owner.symbol(first)), other) == op(right, other)


@pytest.mark.parametrize("op", UNARY)
@pytest.mark.parametrize("value", [3, 2.5])
def test_unary_operations_keep_the_origin(op: Callable[[Any], Any], value: float) -> None:
    owner = Owner()
    result = op(owner.symbol(value))
    assert result == op(value)
    assert owner.recomputed(result, value + 2) == op(value + 2)


def test_round_to_digits_and_modular_power() -> None:
    owner = Owner()
    assert round(owner.symbol(2.345), 1) == 2.3
    assert pow(owner.symbol(7), 2, 5) == 4


def test_a_symbol_does_not_keep_its_run_and_is_a_plain_number_after_it() -> None:
    symbol = Owner().symbol(4, data=True)
    assert type(symbol + 1) is int
    assert symbol > 3
    assert symbol


def test_type_of_results() -> None:
    owner = Owner()
    symbol = owner.symbol(4)
    assert [type(x) for x in (symbol + 1, symbol / 3, symbol // 3, math.ceil(symbol / 3), symbol == 4)] == [
        SymbolicInt,
        SymbolicFloat,
        SymbolicInt,
        SymbolicInt,
        bool,
    ]


def test_a_symbol_hashes_and_prints_as_its_number() -> None:
    symbol = Owner().symbol(4)
    assert ({4: "x"}[symbol], f"{symbol:>3}", list(range(symbol))) == ("x", "  4", [0, 1, 2, 3])


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x)), plain])
@pytest.mark.parametrize("value", [4, 2.5])
def test_copies_are_plain_numbers(again: Callable[[Any], Any], value: float) -> None:
    got = again(Owner().symbol(value))
    assert (got, type(got)) == (value, type(value))


def test_other_numbers_take_over() -> None:
    symbol = Owner().symbol(4)
    assert (symbol + 1j, symbol.__add__("x")) == (4 + 1j, NotImplemented)


def test_comparing_a_size_decides_nothing() -> None:
    owner = Owner()
    assert owner.symbol(4) > 3
    assert owner.decided == []


@pytest.mark.parametrize(
    "compare", [lambda s: s > 3, lambda s: operator.lt(3, s), lambda s: s != 3, bool, lambda s: s + 1 > 0, lambda s: 1 * s > 0]
)
def test_comparing_a_number_read_off_data_is_a_decision(compare: Callable[[Any], bool]) -> None:
    owner = Owner()
    assert compare(owner.symbol(4, data=True))
    assert owner.decided == [True]


def test_a_size_compared_with_data_is_a_decision_on_the_data() -> None:
    owner = Owner()
    assert owner.symbol(4) > owner.symbol(3, data=True)
    assert owner.decided == [True]


def test_after_the_run_numbers_are_plain_again() -> None:
    owner = Owner()
    symbol = owner.symbol(4, data=True)
    owner.active = False
    assert (type(symbol + 1), symbol > 3, owner.decided) == (int, True, [])


def test_a_long_sum_does_not_recurse() -> None:
    owner = Owner()
    total = symbol = owner.symbol(1)
    for _ in range(20_000):
        total = total + symbol
    assert len(list(total.origin.walk())) == 20_001
    assert owner.recomputed(total, 2) == 40_002


def test_a_number_used_twice_is_one_node() -> None:
    owner = Owner()
    double = owner.symbol(3) * 2
    assert double.origin.node() is (double.origin.node())
    assert len([node for node in owner.graph.nodes if node.op == "call_function"]) == 1
