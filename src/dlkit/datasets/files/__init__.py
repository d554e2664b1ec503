"""Many files of one kind: listed, decoded by threads, kept, and handed over. Images use it, and so can any other kind.

============ =========================================================================================
`decoder`    `Decoder`: what a kind of file is
`settings`   what the caller can choose
`listing`    a folder to a list of files and classes, kept for the next time
`handover`   a worker's batches in shared memory that is used again
`memory`     batch memory that is used again
`journal`    what was unreadable, as all workers see it, and what is said of it
`cache`      decoded arrays in one packed file, for later epochs and runs
`fetching`   rows to a batch: the threads at work on the above
`content`    files of equal content, which a split keeps together
`dataset`    `FileDataset`: all of this behind `__getitems__`
`folders`    `FileFolder`
`inspecting` `look`: every file of a dataset measured once, and what is told of it
============ =========================================================================================
"""
