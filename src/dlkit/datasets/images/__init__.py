"""From image files to batches, one step per file.

============ =========================================================================================
`decoding`   one file to upright 8-bit pixels, at a reduced scale where that is enough
`listing`    a folder to a list of files and classes, kept for the next time
`parallel`   the threads that work on one batch, and its memory
`journal`    what was unreadable, as all workers see it
`cache`      decoded pixels in one packed file, for later epochs and runs
`settings`   what the caller can choose
`profiling`  where the time goes
`dataset`    `ImageDataset`: all of this behind `__getitems__`
`folders`    `ImageFolder` and `ImageFiles`
`table`      `ImageTable`
`inspecting` `inspect`: what is in a folder, before training
============ =========================================================================================
"""
