"""From text files to encoded rows, one step per file.

=========== ==========================================================================================
`packed`    `PackedTextDataset`: numbers of all texts in one array, with offsets
`_records`  CSV, TSV, JSON lines and Parquet to records
`_sources`  files, folders, lines and memory to texts
`_rows`     texts and targets of a source, packed
`_targets`  classes and numbers to be learnt
`_encoding` texts to numbers, once, kept for the next time
`dataset`   `TextDataset`
=========== ==========================================================================================
"""
