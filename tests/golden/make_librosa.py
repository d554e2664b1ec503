"""Log-mel spectrograms and MFCC of librosa 0.11, for tests/test_audio_transforms.py. librosa is no dependency of dlkit:

python -m venv /elsewhere && /elsewhere/bin/pip install librosa==0.11.0
/elsewhere/bin/python tests/golden/make_librosa.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

SETTINGS: list[dict[str, Any]] = [
    {"sample_rate": 8000, "num_mels": 20, "window": 256, "hop": 100, "low": 0.0, "high": 4000.0, "top_db": 80.0},
    {"sample_rate": 16000, "num_mels": 32, "window": 400, "hop": 160, "low": 50.0, "high": 7000.0, "top_db": None},
    {"sample_rate": 22050, "num_mels": 12, "window": 551, "hop": 220, "low": 20.0, "high": 11025.0, "top_db": 60.0},
]


def sound(rate: int) -> np.ndarray[Any, Any]:
    """A sweep under a beat, and silence behind: float32 [2000], the same on every machine but for the last bit."""
    time = np.arange(2000) / rate
    wave = 0.5 * np.sin(2 * np.pi * (200 + 4000 * time) * time) * np.cos(30 * time) + 0.1 * np.sin(9000 * time)
    return np.where(np.arange(2000) < 1600, wave, 0).astype(np.float32)


def main() -> None:
    import librosa

    found = []
    for each in SETTINGS:
        rate, window = each["sample_rate"], each["window"]
        power = librosa.feature.melspectrogram(
            y=sound(rate), sr=rate, n_fft=window, hop_length=each["hop"], n_mels=each["num_mels"],
            fmin=each["low"], fmax=each["high"], center=True, pad_mode="constant",
        )  # fmt: skip
        levels = librosa.power_to_db(power, ref=1.0, amin=1e-10, top_db=each["top_db"])
        cepstrum = librosa.feature.mfcc(S=levels, n_mfcc=8)
        found.append({"settings": each, "log_mel": rounded(levels), "mfcc": rounded(cepstrum)})
    Path(__file__).with_name("librosa-0.11.json").write_text(json.dumps(found), encoding="utf-8")


def rounded(values: np.ndarray[Any, Any]) -> Any:
    return np.round(values.astype(np.float64), 3).tolist()


if __name__ == "__main__":
    main()
