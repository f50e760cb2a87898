"""The paper's experiments, one module each, named as on the command line: each has `TITLE` and `run(request)`.

A new one is a module here and its name in `NAMES`.
"""

from __future__ import annotations

NAMES = ("table1", "table2", "table3", "table4", "table5", "figure3", "personalisation", "privacy")
