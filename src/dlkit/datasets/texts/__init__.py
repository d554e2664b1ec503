"""From text files to encoded rows, one step per file.

=========== ==========================================================================================
`packed`    `PackedTextDataset`: numbers of all texts in one array, with offsets
`sources`   any source to tables of its columns: by `dlkit.reading`; lines, JSON, folders and lists by itself
`rows`      texts and targets of a source, packed
`targets`   classes and numbers to be learnt
`_encoding` texts to numbers, once, kept for the next time
`dataset`   `TextDataset`
=========== ==========================================================================================
"""
