"""From sound files to batches of waveforms; what any file needs is in `dlkit.datasets.files`.

============ =========================================================================================
`mp3`        whether the length of an MP3 is known
`readers`    libsndfile and torchcodec: any run of samples as a file stores them
`decoding`   one file, or a part of it, to a float32 waveform at any sample rate
`settings`   what the caller can choose
`fetching`   rows to a batch: seek, decode, mix and resample in threads
`dataset`    `AudioDataset`: all of this behind `__getitems__`, and the lengths of the recordings
`folders`    `AudioFolder` and `AudioFiles`
`table`      `AudioTable`
`inspecting` `inspect_sounds`: what is in a folder, before training
============ =========================================================================================
"""
