"""SQL from files."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

_INCLUDE = re.compile(r"^-- include (\w+)$", re.MULTILINE)
_PARAMETER = re.compile(r"{(\w+):")


@cache
def statement(package: str, folder: str, name: str, given: frozenset[str] | None = None) -> str:
    """The text of `folder`/`name`.sql of a package. A line `-- include NAME` stands for another file of the folder, and
    never for a value; if it is said what parameters are `given`, without the lines that name others."""

    def included(found: re.Match[str]) -> str:
        lines = statement(package, folder, found[1], given).splitlines()
        return "\n".join(line for line in lines if given is None or given.issuperset(_PARAMETER.findall(line)))

    return _INCLUDE.sub(included, files(package).joinpath(folder, f"{name}.sql").read_text())
