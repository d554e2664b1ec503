"""What dlkit writes to disk: nothing half written is ever found.

========== ===================================================================================
`files`    files that are whole or not there, locks between processes, the cache folder
`identity` what tells one tensor, file or transform from another
`arrays`   long arrays, in memory or in a mapped file
`strings`  many strings as one block of bytes
========== ===================================================================================
"""
