"""How a table becomes tensors, one step per file; `dlkit.reading` reads it, `dlkit.specs` says what it means.

A table in memory is a stream of one block: the same steps, once.

=============== ======================================================================================
`_facts`        what one column looks like, gathered piece by piece
`_fitting`      facts to a spec
`_problems`     rows that cannot be used, gathered piece by piece
`_targets`      what is to be learnt: classes, numbers or labels
`_encoding`     a piece and a spec to arrays
`_images`       image files that rows point to
`_memory`       arrays to samples
`_settings`     what the caller may say
`_pipeline`     one pass over the pieces: facts, readings, problems
`_building`     passes until nothing contradicts them; tables in memory
`_describing`   what to look at before training
`_index`        the same for files larger than memory: which rows can be used
`lanes`         which blocks are read when, in which order
`_streaming`    samples from blocks
`unlabelled`    rows to predict for, each with its error
`dataset`       `CSVDataset`
=============== ======================================================================================
"""
