"""Many files, whatever is in them: listed, read by threads, kept, and handed over; images and audio are made of it.

============ =========================================================================================
`listing`    a folder to a list of files and classes, kept for the next time
`handover`   a worker's batches in shared memory that is used again
`parallel`   the threads that work on one batch, and its memory
`journal`    what was unreadable, as all workers see it
`policy`     what happens when something is unreadable: stop, or leave out and say so
`cachefile`  the two files of the cache, good whenever a writer is killed
`cache`      decoded arrays in one packed file, for later epochs and runs
`splitting`  what keeps files together, and the settings of each part
============ =========================================================================================
"""
