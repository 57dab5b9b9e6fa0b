"""SQL from files."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

_INCLUDE = re.compile(r"^-- include (\w+)$", re.MULTILINE)


@cache
def statement(package: str, folder: str, name: str) -> str:
    """The text of `folder`/`name`.sql of a package. A line `-- include NAME` stands for another file of the folder, and
    never for a value."""
    text = files(package).joinpath(folder, f"{name}.sql").read_text()
    return _INCLUDE.sub(lambda found: statement(package, folder, found[1]).rstrip("\n"), text)
