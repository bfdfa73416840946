"""How the site reads docstrings: what they tell of parameters as a list, and what follows `Example:` as a session at Python's prompt."""

from __future__ import annotations

import re
from typing import Any

import griffe


class HouseDocstrings(griffe.Extension):
    """Turn the house's docstrings into what Google's style and Markdown make lists and examples of."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Change the docstring of an object when it has been read with its members."""
        if obj.docstring is not None:
            obj.docstring.value = rewritten(obj.docstring.value, _names(obj))


def _names(obj: griffe.Object) -> list[str]:
    if isinstance(obj, griffe.Function):
        return [parameter.name for parameter in obj.parameters]
    return [name for name, member in obj.members.items() if member.is_attribute] if isinstance(obj, griffe.Class) else []


def rewritten(text: str, names: list[str]) -> str:
    """Return a docstring with an item for each sentence that begins with names, as in "data: ..." and "include, exclude: ..."."""
    text = re.sub(r"^Example:$", "Examples:", text, flags=re.MULTILINE)
    if not names:
        return text
    one = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
    start = re.compile(rf"(?:(?<=\A)|(?<=\. )|(?<=\) ))((?:{one})(?:, (?:{one}))*|(?:{one})=\w+)(?::| (?=\w))")
    return "\n\n".join(_as_list(paragraph, start) for paragraph in text.split("\n\n"))


def _as_list(paragraph: str, start: re.Pattern[str]) -> str:
    flat = " ".join(paragraph.split("\n"))
    parts = [match for match in start.finditer(flat) if match[0].endswith(":") or "=" in match[1]]
    if not parts or paragraph.startswith((" ", ">>>")):
        return paragraph
    ends = [match.start() for match in parts[1:]] + [len(flat)]
    items = [
        "- " + ", ".join(f"`{name}`" for name in match[1].split(", ")) + match[0][len(match[1]) :] + flat[match.end() : end].rstrip()
        for match, end in zip(parts, ends, strict=True)
    ]
    before = flat[: parts[0].start()].rstrip()
    return "\n".join([*([before, ""] if before else []), *items])
