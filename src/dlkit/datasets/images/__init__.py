"""From image files to batches, one step per file; what any file needs is in `dlkit.datasets.files`.

============ =========================================================================================
`decoding`   one file to upright 8-bit pixels, at a reduced scale where that is enough
`settings`   what the caller can choose
`fetching`   rows to a batch: decode, crop, resize and normalise in threads
`dataset`    `ImageDataset`: all of this behind `__getitems__`
`folders`    `ImageFolder` and `ImageFiles`
`table`      `ImageTable`
`inspecting` `inspect_images`: what is in a folder, before training
============ =========================================================================================
"""
