"""Reports of a run: report.json for programs, frames.csv for tables, report.html for people."""
