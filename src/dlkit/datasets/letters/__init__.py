"""Small grey letters that live in one packed file: notMNIST from the network, and glyphs of the fonts at hand.

============ =========================================================================================
`packfile`   the file of pixels: written once, opened by memory map
`packed`     `PackedImages`: the dataset over such a file, with its splits
`files`      from an archive's PNG files to pixels, and what was unreadable
`notmnist`   `NotMNIST`
`glyphs`     `Glyphs`
============ =========================================================================================
"""
