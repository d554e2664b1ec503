"""The parts of `TextDataset`: reading files, packing rows, coding targets, encoding once."""
