"""How a table becomes tensors, one step per file; `dlkit.reading` reads it.

=============== ======================================================================================
`columns`       one column: its kind and what was fitted
`_decoding`     JSON from anywhere to dataclasses, checked field by field
`schema`        what each column is and how it becomes numbers
`_facts`        what one column looks like: counts, spread, values
`_fitting`      facts to a schema
`_targets`      what is to be learnt: classes, numbers or labels
`_encoding`     a table and a schema to arrays
`_images`       image files that rows point to
`_memory`       arrays to samples
`_unlabelled`   rows to predict for, each with its error
`_building`     all of this in order
`_tallies`      facts of blocks put together
`_survey`       where the rows of such a file are, and which can be used
`_first_pass`   the pass over it that finds this out, and fits the schema
`_lanes`        which blocks are read when, by whom, in which order
`_streaming`    samples from blocks
`dataset`       `CSVDataset`
`_describing`   what to look at before training
=============== ======================================================================================
"""
