"""From records to reports: pure functions that build tables once, for every format to punctuate.

`bench_report(run)` is one run's report, `comparison(runs)` several runs side by side, `frame(records)` a pandas
table for a notebook.
"""

from afftool.report.bench import bench_report
from afftool.report.comparison import comparison
from afftool.report.exact import frame
from afftool.tables import Bar, Chart, Column, Report, Table

__all__ = ["Bar", "Chart", "Column", "Report", "Table", "bench_report", "comparison", "frame"]
