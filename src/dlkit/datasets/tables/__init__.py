"""How a table becomes tensors, one step per file.

=============== ======================================================================================
`columns`       one column: its kind and what was fitted
`_decoding`     JSON from anywhere to dataclasses, checked field by field
`schema`        what each column is and how it becomes numbers
`_cells`        one column as it was read: numbers, dates, or strings as codes into a pool
`_source`       paths, URLs and archives to bytes; the encoding found and said
`_dialect`      separator, quoting and header found and said
`_parsing`      text cells to numbers, dates and booleans, in the ways people write them
`_frames`       pandas and Arrow tables to cells
`_options`      how to read, as the caller says it
`_textual`      text to cells: through Arrow where that is exact, cell by cell where it is not
`_reading`      any source to a table
`_facts`        what one column looks like: counts, spread, values
`_fitting`      facts to a schema
`_targets`      what is to be learnt: classes, numbers or labels
`_encoding`     a table and a schema to arrays
`_images`       image files that rows point to
`_memory`       arrays to samples
`_building`     all of this in order
`_blocks`       pieces of a file bigger than memory that can be read on their own
`_tallies`      facts of blocks put together
`_survey`       where the rows of such a file are, and which can be used
`_first_pass`   the pass over it that finds this out, and fits the schema
`_lanes`        which blocks are read when, by whom, in which order
`_ranks`        that order spread over processes that train together
`_streaming`    samples from blocks
`dataset`       `CSVDataset`
`_describing`   what to look at before training
=============== ======================================================================================
"""
