from __future__ import annotations

from compress.report.markdown import render_markdown
from compress.report.table import Cell, Row, Table, build_table
from tests.gate.samples import ENVIRONMENT
from tests.report.samples import verdicts

EXPECTED = """\
compared with the same model in baselines/digits.json, counts and bytes held exactly

| criterion            |     dense | structured                         | int8                            |
| -------------------- | --------: | ---------------------------------- | ------------------------------- |
| parameters           | 6,402,564 | 4,089,523 (-36.1 %) ok             | not run                         |
| top-1 error          |    2.00 % | 3.20 % (+1.20 pt) inconclusive [1] | 2.10 % (+0.10 pt) ok            |
| runtime memory, CPU  |   58.7 MB | not run                            | 47.0 MB (-19.9 %) not gated [2] |
| time per image, CPU  |   5.00 ms | 4.10 ms (x0.78) ok                 | 6.00 ms (x1.20) REGRESSED [3]   |
| time per image, CUDA |           | NOT MEASURED [4]                   | NOT MEASURED [4]                |

- workload: digits
- environment: Python 3.11.9, torch 2.15.0, Test CPU (cpu-avx2-1t)
- verdicts: 1 REGRESSED, 2 NOT MEASURED, 1 inconclusive, 3 ok, 1 not gated, 2 not run
- [1] inconclusive: top-1 error (structured): limit: at most dense + 1.00 pt = 3.00 % (r.toml): +1.20 pt, 32 lost \
and 20 gained of 1,000 examples, p = 0.063: beyond the margin, but chance may explain it; 1,000 examples cannot tell \
it from chance: the minimum detectable effect at 5.2 % flips is 1.79 pt
- [2] not gated: runtime memory, CPU (int8): held against nothing, only reported: there is no limit, and no \
baseline to compare with
- [3] REGRESSED: time per image, CPU (int8): limit: at most 1 x dense (r.toml): exceeded, all of the interval lies \
above it
- [4] NOT MEASURED: time per image, CUDA (structured, int8): there is no CUDA device
"""


def test_whole_table(tmp_path):
    """Aligned in its source, and everything that did not pass is explained below."""
    table = build_table(verdicts(tmp_path), workload="digits", environment=ENVIRONMENT)
    assert render_markdown(table) == EXPECTED


def test_text_is_never_markup():
    """A pipe, an asterisk or a tag in a name or note stays what it is."""
    cell = Cell(value="1", change="", mark="ok", note=1)
    row = Row(title="parameters", dense="2", cells=(cell,))
    table = Table(recipes=("a|b*`",), rows=(row,), notes=("see <b> & \\ \n end",))
    assert render_markdown(table) == (
        "| criterion  | dense | a\\|b\\*\\` |\n"
        "| ---------- | ----: | -------- |\n"
        "| parameters |     2 | 1 ok [1] |\n"
        "\n"
        "- [1] see &lt;b> &amp; \\\\ end\n"
    )


def test_empty_table_has_its_head():
    """Without verdicts the head stands alone."""
    assert render_markdown(Table(recipes=(), rows=())) == "| criterion | dense |\n| --------- | ----: |\n"
