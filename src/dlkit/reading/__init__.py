"""Any source to typed columns, every bad row named, one rule for targets and classes.

| file | what it answers |
|---|---|
| `cells` | one column as it was read |
| `parsing` | text to numbers, dates and truth values, in the ways people write them |
| `targets` | what a column of targets is: task, classes, their order |
"""
