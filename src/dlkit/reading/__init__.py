"""Any source to typed columns, every bad row named, one rule for targets and classes.

| file | what it answers |
|---|---|
| `policy` | how to read, and what becomes of bad rows |
| `_bytes` | a path, address or archive to bytes |
| `_excel` | a sheet of a workbook to the CSV text of the same table |
| `_plain` | any of these to UTF-8 text |
| `_headers` | its first rows: titles, header or none |
| `_decimals` | the one decimal mark of a file |
| `_delimited` | separator and quotes |
| `_text_rows` | its rows to cells: through Arrow where that is exact, else one by one |
| `frames` | pandas, Arrow and other frames to cells |
| `_columnar` | Parquet and Arrow files |
| `reader` | any source to a table of cells |
| `blocks` | a big file in pieces that can be read one by one |
| `cells` | one column as it was read |
| `parsing` | text to numbers, dates and truth values, in the ways people write them |
| `typed` | what the cells of a column are, and the cells as that |
| `targets` | what a column of targets is: task, the names and the order of its classes |
"""
