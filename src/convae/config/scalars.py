"""The values of YAML without quotes: those of YAML 1.2's core schema, and no others.

PyYAML reads YAML 1.1, in which 010 is 8, 1:30 is 90, 1_000 is 1000, 1e-3 is a text, `no` is false
and 2024-01-01 is a date. Here they are 010: refused; 1:30, 1_000, no, 2024-01-01: texts, which the
schema refuses where it needs a number; and 1e-3: a number.
"""

from __future__ import annotations

import math
import re
from typing import Any

import yaml

CONSTANTS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), math.inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
}
INTEGER = re.compile(r"[-+]?[0-9]+")
OCTAL_OR_HEXADECIMAL = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
OLD_BOOLEANS = {"y", "yes", "n", "no", "on", "off"}  # of YAML 1.1
MAX_DIGITS = 20  # more than 64 bits have


def resolve(text: str) -> Any:
    """Return the value of a text without quotes: None, a bool, int, float, or the text itself.

    Raises:
        ValueError: A whole number has leading zeros, or more than 64 bits.

    >>> [resolve(text) for text in ("1e-3", "0x10", "no", "1:30")]
    [0.001, 16, 'no', '1:30']
    """
    if text in CONSTANTS:
        return CONSTANTS[text]
    if INTEGER.fullmatch(text):
        digits = text.lstrip("+-")
        number = int(text) if len(digits) <= MAX_DIGITS else 2**63
        if digits != "0" and digits.startswith("0"):
            meant = f"{number} for the number, or " if len(digits) <= MAX_DIGITS else ""
            raise ValueError(
                f"leading zeros are refused, because they make a number octal elsewhere. Write "
                f"{meant}{_quoted(text)} for a text"
            )
    elif OCTAL_OR_HEXADECIMAL.fullmatch(text):
        number = int(text, 0) if len(text) <= 2 + 2 * MAX_DIGITS else 2**63
    else:
        return float(text) if FLOAT.fullmatch(text) else text
    if abs(number) >= 2**63:
        raise ValueError("a whole number of more than 64 bits is refused")
    return number


def is_text(text: str) -> bool:
    """Return whether a text without quotes is a text."""
    try:
        return isinstance(resolve(text), str)
    except ValueError:
        return False


def guess(value: Any, kind: str) -> str:
    """Return what to write instead of `value` where a value of `kind` is needed, or "".

    Args:
        value: what was received.
        kind: pydantic's name of an error, such as "int_type".

    >>> guess("1_000", "int_type"), guess("no", "bool_type")
    ('write 1000', 'write false')
    """
    if kind == "string_type" and isinstance(value, bool | int | float):
        text = str(value).lower() if isinstance(value, bool) else str(value)
        return f"write {_quoted(text)}"
    if kind.startswith("int") and isinstance(value, float) and value.is_integer():
        return f"write {int(value)}"
    if not isinstance(value, str):
        return ""
    if kind == "model_attributes_type":  # of a section with a type
        return f"write {{type: {value:.40}}}"
    text = value.strip()
    if kind.startswith("bool") and text.lower() in OLD_BOOLEANS | {"true", "false"}:
        return f"write {'true' if text.lower() in {'y', 'yes', 'on', 'true'} else 'false'}"
    if not kind.startswith(("int", "float")):
        return ""
    joined = text.replace("_", "")
    if re.fullmatch(r"[-+]?0[bB][01]+", joined):
        return f"write {int(joined, 2)}"
    if re.fullmatch(r"[0-9]{1,6}(:[0-5]?[0-9]){1,4}", joined):  # base 60, such as minutes:seconds
        places = enumerate(reversed(joined.split(":")))
        return f"write {sum(int(part) * 60**place for place, part in places)}, if that is meant"
    if FLOAT.fullmatch(joined):
        return f"write {joined}" if joined != value else f"write {joined} without quotes"
    if re.fullmatch(r"[-+]?[0-9]+,[0-9]+", joined):
        return f"write {joined.replace(',', '.')} with a point, or no comma"
    return ""


def _quoted(text: str) -> str:
    return f'"{text:.40}" in quotes (in a shell \'"{text:.40}"\')'


class _Dumper(yaml.SafeDumper):
    """A dumper that puts a text in quotes wherever YAML 1.1 or 1.2 would read something else."""

    def represent_text(self, text: str) -> yaml.Node:
        style = None if is_text(text) else "'"
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _Dumper.represent_text)


def dump(tree: Any, **options: Any) -> str:
    """Return a tree as YAML, in which every text is read again as the same text."""
    return str(yaml.dump(tree, Dumper=_Dumper, sort_keys=False, **options))


def explain(error: yaml.MarkedYAMLError) -> str:
    """Return what is wrong with a text that is not YAML, and what to write instead."""
    problem = str(error.problem or error.context)
    if "escape" in problem and "double-quoted" in str(error.context):
        return (
            f"{problem}. In double quotes a backslash begins an escape. Write paths in 'single "
            "quotes' or with /"
        )
    if r"'\t'" in problem:
        return "a tab: indent with spaces"
    if "cannot start any token" in problem:
        return f"{problem}. Write the text in quotes"
    return problem
