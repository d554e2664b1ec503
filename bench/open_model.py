"""How long it takes until a model file can predict, beyond `import torch`: ResNet-18, in fresh processes, in turn.

    python bench/open_model.py [--rounds 5]

"torchvision.models" is the import that the architecture itself needs, whoever builds it; the rest is dlkit's: reading
the head, building the model twice (once without memory, to check the file's claims), its weights, and the stored
example computed again.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

import dlkit

PROGRAM = "import time, torch; began = time.perf_counter(); {}; print(time.perf_counter() - began)"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        lines = {"import torchvision.models": "import torchvision.models"}
        for library in ("torchvision", "timm"):
            model = dlkit.transfer.create_model(f"{library}/resnet18", classes=["ant", "bee"], pretrained=False)
            path = str(dlkit.save(model, Path(folder) / f"{library}.safetensors"))
            lines[f"dlkit.load, {library}'s resnet18"] = f"import dlkit; dlkit.load({path!r})"
            second = f"import dlkit; dlkit.load({path!r}); began = time.perf_counter(); dlkit.load({path!r})"
            lines[f"the same once more, {library}'s"] = second
        times: dict[str, list[float]] = {name: [] for name in lines}
        for number in range(rounds + 1):
            for name, line in lines.items():
                done = subprocess.run([sys.executable, "-c", PROGRAM.format(line)], capture_output=True, check=True)
                if number:  # the first round fills the file cache
                    times[name].append(float(done.stdout))
    print(f"torch {torch.__version__}, {os.cpu_count()} cores, median of {rounds} fresh processes")
    for name, seconds in times.items():
        print(f"  {name:36} {statistics.median(seconds):6.2f} s")


if __name__ == "__main__":
    main()
