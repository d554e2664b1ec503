"""From image files to batches, one step per file.

============ =========================================================================================
`decoding`   one file to upright 8-bit pixels, at a reduced scale where that is enough
`classes`    the order of classes: stated, or checked against a model's
`listing`    a folder to a list of files and classes, kept for the next time
`handover`   a worker's batches in shared memory that is used again
`parallel`   the threads that work on one batch, and its memory
`journal`    what was unreadable, as all workers see it
`policy`     what happens when something is unreadable: stop, or leave out and say so
`pixelfile`  the two files of the cache, good whenever a writer is killed
`cache`      decoded pixels in one packed file, for later epochs and runs
`settings`   what the caller can choose
`fetching`   rows to a batch: the threads at work on the above
`splitting`  what keeps files together, and the settings of each part
`profiling`  where the time goes
`dataset`    `ImageDataset`: all of this behind `__getitems__`
`folders`    `ImageFolder` and `ImageFiles`
`table`      `ImageTable`
`inspecting` `inspect`: what is in a folder, before training
============ =========================================================================================
"""
