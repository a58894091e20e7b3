"""A strict interpreter of the PowerShell that management scripts are made of.

It walks tree-sitter's syntax tree. What it does not know it refuses loudly, so that a script that passes here uses
nothing but what is written down here. Variables have dynamic scope and no case, as PowerShell's do.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import tree_sitter
import tree_sitter_powershell

from sandbox.windows.values import (
    VOID,
    Char,
    Net,
    PowerShellError,
    Row,
    UnknownError,
    equal,
    matches,
    number,
    text,
    truth,
)

_PARSER = tree_sitter.Parser(tree_sitter.Language(tree_sitter_powershell.language()))

Node = tree_sitter.Node
# Gets the arguments by name (lower case; switches are True) and those without one.
Cmdlet = Callable[[dict[str, Any], list[Any]], list[Any]]
_LOGIC = {"logical_expression", "logical_argument_expression"}
_ARITHMETIC = {
    *("additive_expression", "additive_argument_expression", "bitwise_expression", "bitwise_argument_expression"),
    *("multiplicative_expression", "multiplicative_argument_expression"),
}
_COMPARISON = {"comparison_expression", "comparison_argument_expression"}


class Exit(Exception):  # noqa: N818 - not an error
    """``exit``."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class _Return(Exception):  # noqa: N818
    def __init__(self, values: list[Any]) -> None:
        super().__init__()
        self.values = values


class _Continue(Exception):  # noqa: N818
    pass


class Language:
    """One run of one script; ``types``, ``cmdlets`` and ``programs`` are the Windows that it runs on."""

    def __init__(
        self,
        *,
        types: Mapping[str, Net],
        casts: Mapping[str, Callable[[Any], Any]],
        cmdlets: Mapping[str, Cmdlet],
        programs: Mapping[str, Callable[[list[str]], list[str]]],
        environment: Mapping[str, str],
        write: Callable[[str], None],
        step: Callable[[], None],
    ) -> None:
        self._types, self._casts, self._cmdlets, self._programs = types, casts, cmdlets, programs
        self._environment = {name.lower(): value for name, value in environment.items()}
        self._write = write
        self._step = step
        self._functions: dict[str, Node | None] = {}  # None: an empty one
        self._scopes: list[dict[str, Any]] = [{"psversiontable": Row(PSVersion="5.1.20348.2849")}]

    def run(self, script: str) -> int:
        """The exit status; raises UnknownError for what is not known."""
        root = _PARSER.parse(script.encode()).root_node
        if root.has_error:
            raise UnknownError(f"a syntax error near {_first_error(root)}")
        try:
            for value in self._block(root):
                self._write(f"{text(value)}\r\n")
        except Exit as leaving:
            return leaving.code
        except _Return:
            return 0
        except PowerShellError as error:
            self._write(f"{error}\r\n")
            return 1
        return 0

    # Statements: each gives what it puts into the pipeline

    def _block(self, node: Node) -> list[Any]:
        found: list[Any] = []
        for child in node.named_children:
            found += self._statement(child)
        return found

    def _statement(self, node: Node) -> list[Any]:
        self._step()
        method = getattr(self, f"_do_{node.type}", None)
        if method is not None:
            result: list[Any] = method(node)
            return result
        return self._output(node)

    def _do_comment(self, _node: Node) -> list[Any]:
        return []

    _do_empty_statement = _do_comment

    def _do_statement_list(self, node: Node) -> list[Any]:
        return self._block(node)

    _do_statement_block = _do_script_block = _do_script_block_body = _do_statement_list

    def _do_param_block(self, _node: Node) -> list[Any]:
        return []  # bound at the call

    def _do_function_statement(self, node: Node) -> list[Any]:
        name = _only(node, "function_name").text
        self._functions[(name or b"").decode().lower()] = next(iter(_all(node, "script_block")), None)
        return []

    def _do_if_statement(self, node: Node) -> list[Any]:
        if truth(self._value(_only(node, "pipeline"))):
            return self._block(_only(node, "statement_block"))
        for clauses in _all(node, "elseif_clauses"):
            for clause in _all(clauses, "elseif_clause"):
                if truth(self._value(_only(clause, "pipeline"))):
                    return self._block(_only(clause, "statement_block"))
        for clause in _all(node, "else_clause"):
            return self._block(_only(clause, "statement_block"))
        return []

    def _do_foreach_statement(self, node: Node) -> list[Any]:
        name, items = _text(_only(node, "variable")), self._output(_only(node, "pipeline"))
        found: list[Any] = []
        for item in items:
            self._assign(name, item)
            self._body(node, found)
        return found

    def _do_for_statement(self, node: Node) -> list[Any]:
        self._block(_only(node, "for_initializer"))
        found: list[Any] = []
        while truth(self._value(_only(node, "for_condition").named_children[0])):
            self._body(node, found)
            self._block(_only(node, "for_iterator"))
        return found

    def _do_while_statement(self, node: Node) -> list[Any]:
        found: list[Any] = []
        while truth(self._value(_only(node, "while_condition").named_children[0])):
            self._body(node, found)
        return found

    def _do_do_statement(self, node: Node) -> list[Any]:
        found: list[Any] = []
        while True:
            self._body(node, found)
            if not truth(self._value(_only(node, "while_condition").named_children[0])):
                return found

    def _body(self, node: Node, found: list[Any]) -> None:
        with contextlib.suppress(_Continue):
            found += self._block(_only(node, "statement_block"))

    def _do_try_statement(self, node: Node) -> list[Any]:
        try:
            return self._block(_only(node, "statement_block"))
        except PowerShellError as error:
            clause = self._catching(node, error)
            if clause is None:
                raise
            self._scopes[-1]["_"] = Row(Exception=Row(Message=str(error)))
            return self._block(_only(clause, "statement_block"))
        finally:
            for clause in _all(node, "finally_clause"):
                self._block(_only(clause, "statement_block"))

    def _catching(self, node: Node, error: PowerShellError) -> Node | None:
        for clauses in _all(node, "catch_clauses"):
            for clause in _all(clauses, "catch_clause"):
                kinds = [_type_name(each) for types in _all(clause, "catch_type_list") for each in types.named_children]
                if not kinds or any(kind in {_plain(known) for known in error.kinds} for kind in kinds):
                    return clause
        return None

    def _do_flow_control_statement(self, node: Node) -> list[Any]:
        word, values = node.children[0].type, node.named_children
        if word == "return":
            raise _Return(self._output(values[0]) if values else [])
        if word == "exit":
            raise Exit(number(self._value(values[0])) if values else 0)
        if word == "continue":
            raise _Continue
        raise UnknownError(f"the statement {word}")

    # Expressions

    def _output(self, node: Node) -> list[Any]:
        """What a pipeline puts out: lists one by one."""
        while node.child_count == 1 and node.type not in {"command", "variable"}:
            node = node.children[0]
        if node.type in {"command", "command_name"}:
            return self._command(node)
        if node.type in {"assignment_expression", "post_increment_expression"}:
            self._value(node)
            return []
        value = self._value(node)
        if value is VOID:
            return []
        return list(value) if isinstance(value, list | bytearray) else [value]

    def _value(self, node: Node) -> Any:
        while node.child_count == 1 and node.type not in _WHOLE:
            node = node.children[0]
        if node.type in _LOGIC:
            return self._logic(node)
        if node.type in _ARITHMETIC:
            return self._arithmetic(node)
        if node.type in _COMPARISON:
            return self._compare(node)
        if node.type in {"command", "command_name"}:
            return _collapsed(self._command(node))
        method = getattr(self, f"_see_{node.type}", None)
        if method is None:
            raise UnknownError(f"the syntax {node.type}: {_text(node)[:60]}")
        return method(node)

    def _see_parenthesized_expression(self, node: Node) -> Any:
        return self._value(node.named_children[0])  # an expression's list stays one even with one item

    def _see_array_expression(self, node: Node) -> list[Any]:
        found: list[Any] = []
        for child in node.named_children:
            found += self._block(child) if child.type == "statement_list" else self._output(child)
        return found

    def _see_array_literal_expression(self, node: Node) -> list[Any]:
        return [self._value(child) for child in node.named_children]

    def _see_variable(self, node: Node) -> Any:
        name = _text(node)[1:].lower()
        constants = {"true": True, "false": False, "null": None}
        if name in constants:
            return constants[name]
        if name.startswith("env:"):
            return self._environment.get(name[4:])
        scopes = self._scopes[:1] if name.startswith("script:") else reversed(self._scopes)
        for scope in scopes:
            if name.removeprefix("script:") in scope:
                return scope[name.removeprefix("script:")]
        raise UnknownError(f"the variable ${name}, which has no value")

    def _see_verbatim_string_characters(self, node: Node) -> str:
        return _text(node)[1:-1].replace("''", "'")

    def _see_verbatim_here_string_characters(self, node: Node) -> str:
        return _text(node)[3:-3]  # the line ends beside the marks are not part of it

    def _see_decimal_integer_literal(self, node: Node) -> int:
        return int(_text(node))

    def _see_generic_token(self, node: Node) -> str:
        return _text(node)

    def _see_expression_with_unary_operator(self, node: Node) -> Any:
        if node.children[0].type == "cast_expression":
            return self._value(node.children[0])
        operator, value = node.children[0].type, self._value(node.children[1])
        if operator == "-not":
            return not truth(value)
        if operator == "-":
            return -number(value)
        raise UnknownError(f"the operator {operator}")

    def _see_cast_expression(self, node: Node) -> Any:
        kind = _type_name(node.named_children[0])
        if kind not in self._casts:
            raise UnknownError(f"the cast [{kind}]")
        return self._casts[kind](self._value(node.named_children[1]))

    def _see_type_literal(self, node: Node) -> Net:
        kind = _type_name(node)
        if kind not in self._types:
            raise UnknownError(f"the type [{kind}]")
        return self._types[kind]

    def _see_member_access(self, node: Node) -> Any:
        return _get(self._value(node.named_children[0]), _text(_only(node, "member_name")))

    def _see_invokation_expression(self, node: Node) -> Any:
        target, name = self._value(node.named_children[0]), _text(_only(node, "member_name"))
        listed = _only(node, "argument_list").named_children
        arguments = [self._value(each) for each in listed[0].named_children] if listed else []
        self._step()
        return _call(target, name, arguments)

    def _see_element_access(self, node: Node) -> Any:
        target, index = self._value(node.named_children[0]), number(self._value(node.named_children[1]))
        if isinstance(target, Net):
            return target.call("index", [index])
        if isinstance(target, str):
            return Char(target[index])
        return target[index]

    def _see_assignment_expression(self, node: Node) -> Any:
        target, operator = node.named_children[0], _text(node.named_children[1])
        while target.child_count == 1:
            target = target.children[0]
        value = self._value(node.named_children[2])
        if operator == "+=":
            value = _added(self._value(target), value)
        elif operator != "=":
            raise UnknownError(f"the operator {operator}")
        if target.type == "variable":
            self._assign(_text(target), None if value is VOID else value)
        elif target.type == "member_access":
            owner = self._value(target.named_children[0])
            if not isinstance(owner, Net):
                raise UnknownError(f"a member of {type(owner).__name__} to be set")
            owner.set(_text(_only(target, "member_name")), value)
        elif target.type == "element_access":
            self._value(target.named_children[0])[number(self._value(target.named_children[1]))] = value
        else:
            raise UnknownError(f"an assignment to {target.type}")
        return VOID

    def _see_post_increment_expression(self, node: Node) -> Any:
        if _text(node)[-2:] != "++":
            raise UnknownError(_text(node))
        name = _text(node.children[0])
        self._assign(name, number(self._value(node.children[0])) + 1)
        return VOID

    def _assign(self, name: str, value: Any) -> None:
        name = name[1:].lower()
        if name == "null":
            return
        scope = self._scopes[0] if name.startswith("script:") else self._scopes[-1]
        scope[name.removeprefix("script:")] = value

    def _logic(self, node: Node) -> bool:
        left = truth(self._value(node.children[0]))
        operator = node.children[1].type
        if operator == "-and":
            return left and truth(self._value(node.children[2]))
        if operator == "-or":
            return left or truth(self._value(node.children[2]))
        raise UnknownError(f"the operator {operator}")

    def _arithmetic(self, node: Node) -> Any:
        left, operator, right = self._value(node.children[0]), node.children[1].type, self._value(node.children[2])
        if operator == "+":
            return _added(left, right)
        if operator == "-":
            return number(left) - number(right)
        if operator == "*":
            return number(left) * number(right)
        if operator == "-band":
            return number(left) & number(right)
        raise UnknownError(f"the operator {operator}")

    def _compare(self, node: Node) -> Any:
        left, operator, right = self._value(node.children[0]), _text(node.children[1]), self._value(node.children[2])
        kind, case = _operator(operator)
        if kind in {"eq", "ne"}:
            return equal(left, right, case=case) is (kind == "eq")
        if kind in {"gt", "ge", "lt", "le"}:
            mine, theirs = number(left), number(right)
            return {"gt": mine > theirs, "ge": mine >= theirs, "lt": mine < theirs, "le": mine <= theirs}[kind]
        if kind in {"match", "notmatch"}:
            found = matches(left, text(right), case=case)
            if found and kind == "match":
                groups = {0: found[0], **dict(enumerate(found.groups(), 1))}
                self._scopes[-1]["matches"] = _Groups(groups)
            return bool(found) is (kind == "match")
        if kind == "split":
            return re.split(text(right), text(left), flags=0 if case else re.IGNORECASE)
        if kind == "join":
            return text(right).join(map(text, left if isinstance(left, list) else [left]))
        if kind == "replace":
            pattern, by = right
            return re.sub(text(pattern), text(by), text(left), flags=0 if case else re.IGNORECASE)
        raise UnknownError(f"the operator {operator}")

    # Commands

    def _command(self, node: Node) -> list[Any]:
        self._step()
        if node.type == "command_name":
            return self._invoke(_text(node), {}, [])
        first = node.named_children[0]
        named, rest = self._arguments(node)
        if first.type == "command_invokation_operator":
            if _text(first) != "&":
                raise UnknownError(f"the operator {_text(first)}")
            path = text(self._value(node.named_children[1]))
            if named or path.lower() not in self._programs:
                raise UnknownError(f"the program {path}")
            return list(self._programs[path.lower()]([text(word) for word in rest]))
        return self._invoke(_text(first), named, rest)

    def _arguments(self, node: Node) -> tuple[dict[str, Any], list[Any]]:
        named: dict[str, Any] = {}
        rest: list[Any] = []
        waiting = ""
        for elements in _all(node, "command_elements"):
            for child in elements.children:
                if child.type in {"command_argument_sep", ":"} or _text(child) == "2>$null":
                    continue
                if child.type == "command_parameter":
                    waiting = _text(child)[1:].lower()
                    named[waiting] = True
                elif waiting:
                    named[waiting], waiting = self._value(child), ""
                else:
                    rest.append(self._value(child))
        return named, rest

    def _invoke(self, name: str, named: dict[str, Any], rest: list[Any]) -> list[Any]:
        if name.lower() in self._functions:
            return self._call_function(self._functions[name.lower()], named, rest)
        if name.lower() not in self._cmdlets:
            raise UnknownError(f"the command {name}")
        silent = text(named.pop("erroraction", "")).lower() == "silentlycontinue"
        try:
            return self._cmdlets[name.lower()](named, rest)
        except PowerShellError:
            if silent:
                return []
            raise

    def _call_function(self, body: Node | None, named: dict[str, Any], rest: list[Any]) -> list[Any]:
        if rest:
            raise UnknownError(f"an argument without a name: {rest}")
        if body is None:
            return []
        scope: dict[str, Any] = {}
        for block in _all(body, "param_block"):
            for parameter in _all(_only(block, "parameter_list"), "script_parameter"):
                name = _text(_only(parameter, "variable"))[1:].lower()
                kind = _type_name(_only(_only(_only(parameter, "attribute_list"), "attribute"), "type_literal"))
                scope[name] = self._casts[kind](named.pop(name, None))
        if named:
            raise UnknownError(f"the parameter {min(named)} of a function")
        self._scopes.append(scope)
        try:
            return self._block(body)
        except _Return as returned:
            return returned.values
        finally:
            self._scopes.pop()


class _Groups(Net):
    def __init__(self, groups: dict[int, Any]) -> None:
        self._groups = groups

    def call_index(self, number_: int) -> Any:
        return self._groups[number_]


# Nodes that mean something even with one child; the others are only the grammar's levels.
_WHOLE = {name.removeprefix("_see_") for name in dir(Language) if name.startswith("_see_")} | {"command"}
_WHOLE -= {"array_literal_expression"}


def _operator(word: str) -> tuple[str, bool]:
    name = word[1:].lower()
    if name[:1] == "c" and name[1:] in {"eq", "ne", "match", "notmatch", "replace", "split"}:
        return name[1:], True
    return name, False


def _added(left: Any, right: Any) -> Any:
    if isinstance(left, list):
        return [*left, *(right if isinstance(right, list) else [right])]
    if isinstance(left, str):
        return str(left) + text(right)
    if isinstance(left, int) and not isinstance(left, bool):
        return left + number(right)
    raise UnknownError(f"{type(left).__name__} + {type(right).__name__}")


def _collapsed(values: list[Any]) -> Any:
    if not values:
        return None
    return values[0] if len(values) == 1 else values


def _get(target: Any, name: str) -> Any:
    if isinstance(target, Net):
        return target.get(name)
    if name.lower() in {"length", "count"} and isinstance(target, list | bytearray | str):
        return len(target)
    raise UnknownError(f"the property {name} of {type(target).__name__}")


def _call(target: Any, name: str, arguments: list[Any]) -> Any:
    if isinstance(target, Net):
        return target.call(name, arguments)
    if isinstance(target, str):
        if name.lower() == "substring" and len(arguments) == 2:
            return target[arguments[0] : arguments[0] + arguments[1]]
        if name.lower() == "contains" and len(arguments) == 1:
            return text(arguments[0]) in target
    raise UnknownError(f"the method {name} of {type(target).__name__}")


def _text(node: Node) -> str:
    return (node.text or b"").decode()


def _all(node: Node, kind: str) -> list[Node]:
    return [child for child in node.named_children if child.type == kind]


def _only(node: Node, kind: str) -> Node:
    found = _all(node, kind)
    if not found:
        raise UnknownError(f"{node.type} without {kind}: {_text(node)[:60]}")
    return found[0]


def _type_name(node: Node) -> str:
    return _plain(_text(node).strip("[] ") + ("[]" if _text(node).endswith("[]]") else ""))


def _plain(name: str) -> str:
    return name.lower().removeprefix("system.")


def _first_error(node: Node) -> str:
    for child in node.children:
        if child.type == "ERROR" or child.is_missing:
            return f"line {child.start_point[0] + 1}: {_text(child)[:60]}"
        if child.has_error:
            return _first_error(child)
    return f"line {node.start_point[0] + 1}"
