"""How a table becomes tensors, one step per file; `dlkit.datasets.tabular` puts them together.

=============== ======================================================================================
`cells`         one column as it was read: numbers, dates, or strings as codes into a pool
`source`        paths, URLs and archives to bytes; the encoding found and said
`dialect`       separator, quoting and header found and said
`reading`       bytes to cells: through Arrow where that is exact, cell by cell where it is not
`frames`        pandas and Arrow tables (Parquet) to cells
`parsing`       text cells to numbers, dates and booleans, in the ways people write them
`facts`         what one column looks like: counts, spread, values
`schema`        column kinds, target and their parameters; to and from JSON, as a table
`fitting`       facts to a schema
`targets`       what is to be learnt: classes, numbers or labels
`encoding`      cells and a schema to tensors
`blocks`        a big file as blocks that can be read one by one
`streaming`     order, cache and samples over blocks
`images`        image files that rows point to
`describing`    what to look at before training
=============== ======================================================================================
"""
