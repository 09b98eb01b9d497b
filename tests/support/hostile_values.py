"""Which values does a program that can write the file put into a column, and which tables are there?"""

from __future__ import annotations

import re
from pathlib import Path

TOOL = "egress-token-allow"
# All that the migrations make but the books on them, which decide whether the file is used at all.
TABLES = sorted(
    table
    for file in (Path(__file__).parents[2] / "migrations").glob("*/*.up.sql")
    for table in re.findall(r"^CREATE TABLE (\w+)", file.read_text(), re.M)
)
# By a name, as SQL.
HOSTILE = {
    "empty": "''",
    "not UTF-8": "CAST(x'ff00fe' AS TEXT)",
    "NUL": "'a' || char(0) || 'b'",
    "1 MiB": "hex(zeroblob(524288))",
    "reversed": "char(8238) || 'txt.exe'",
    "end of time": "'9999-12-31T23:59:59.999999Z'",
    "before time": "'-009999-01-01T00:00:00.000000Z'",
    "no number": "'NaN'",
    "none": "NULL",
    "largest": "9223372036854775807",
    "smallest": "-9223372036854775808",
    "minus one": "-1",
}
