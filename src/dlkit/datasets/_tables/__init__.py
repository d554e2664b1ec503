"""How a table becomes tensors, one step per file; `dlkit.datasets.tabular` puts them together.

=============== ======================================================================================
`cells`         one column as it was read: numbers, dates, or strings as codes into a pool
`source`        paths, URLs and archives to bytes; the encoding found and said
`dialect`       separator, quoting and header found and said
`parsing`       text cells to numbers, dates and booleans, in the ways people write them
`frames`        pandas and Arrow tables to cells
`options`       how to read, as the caller says it
`textual`       text to cells: through Arrow where that is exact, cell by cell where it is not
`reading`       any source to a table
`facts`         what one column looks like: counts, spread, values
`fitting`       facts to a schema
`targets`       what is to be learnt: classes, numbers or labels
`encoding`      a table and a schema to arrays
`images`        image files that rows point to
`memory`        arrays to samples
`building`      all of this in order
`describing`    what to look at before training
=============== ======================================================================================
"""
