"""Voices: espeak-ng through its library, which reports when each word begins; flite and festival as commands.

espeak-ng reads its data from a folder of our own, which holds its voices and the invented accents (`accents.py`).
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import shutil
import subprocess
import tempfile
import wave
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import accents
import numpy as np
import soxr

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from numpy.typing import NDArray

SAMPLE_RATE = 16000
UNKNOWN = -1  # a word whose first sample is not known

ACCENTS = ["en-us", "en", "en-gb-x-rp", "en-gb-scotland", "en-us-nyc", "en-gb-x-gbclan"]
# The variants in most recordings, with a wide choice of throats, so that the model also recognises new ones.
USUAL = ["", *(f"+m{i}" for i in range(1, 9)), *(f"+f{i}" for i in range(1, 6))]
RARE = [
    "+" + name
    for name in (
        "adam Alex Alicia Andy Annie antonio aunty benjamin boris caleb david Denis Diogo ed edward Gene gustave "
        "Henrique Hugo iven iven3 Jacky john klatt klatt2 klatt4 Lee marcelo Marco Mario max Michael michel miguel Mr "
        "Nguyen norbert Pablo pedro quincy rob robert sandro shelby steph2 Storm travis Tweaky victor zac "
        "grandpa grandma"
    ).split()
]
FLITE = {"kal": 1, "awb": 3, "rms": 3, "slt": 3, "kal16": 2}  # weights
FESTIVAL = {"kal_diphone": 2, "cmu_us_slt_arctic_hts": 1}  # two of flite's speakers in another synthesizer
MADE_UP = 2000  # accents
OWN_PITCH = 50

# Never in training: two accents, throats of their own, and a speaker who is in no other synthesizer.
UNHEARD_ACCENTS = ["en-029", "en-gb-x-gbcwmd"]
UNHEARD_VARIANTS = ["+Andrea", "+belinda", "+linda", "+Mike", "+paul", "+anika", "+steph", "+klatt5"]
UNHEARD_FESTIVAL = "ked_diphone"


@dataclass(frozen=True)
class Utterance:
    """`samples`: int16 mono 16 kHz, trimmed to the speech. `starts`: each word's first sample or `UNKNOWN`."""

    samples: NDArray[np.int16]
    starts: list[int]


@dataclass(frozen=True, kw_only=True)
class Voice:
    """One way to say things.

    `rate`: words a minute. `pitch`: 0 to 99, `OWN_PITCH` being the speaker's own. `gap` between words in 10 ms
    (espeak-ng only). `liveliness`: how far a recorded speaker's pitch moves, in Hz, if it is not its own.
    """

    name: str
    rate: int = 170
    pitch: int = OWN_PITCH
    gap: int = 0
    liveliness: int = 14

    def say(self, words: list[str]) -> Utterance:
        if self.name.startswith("flite-"):
            return _recorded(self._flite, words)
        if self.name.startswith("festival-"):
            return _recorded(self._festival, words)
        library, folder = _espeak()
        accent = self.name.partition("+")[0]
        if accent.startswith(_ACCENT):
            (folder / "voices" / accent).write_text(accents.voice_file(int(accent.removeprefix(_ACCENT))))
        if library.espeak_SetVoiceByName(self.name.encode()):
            raise LookupError(f"espeak-ng has no voice {self.name}")
        for parameter, value in ((1, self.rate), (3, self.pitch), (7, self.gap)):
            library.espeak_SetParameter(parameter, value, 0)
        text = " ".join(words).encode()
        _heard.clear()
        _begun.clear()
        library.espeak_Synth(text, len(text) + 1, 0, 1, 0, 1, None, None)
        return _trimmed(np.concatenate(_heard), _RATES["espeak"], _by_word(words, dict(_begun)))

    def _flite(self, text: str, path: str) -> None:
        settings = ["--setf", f"duration_stretch={170 / self.rate:.2f}"]
        if self.pitch != OWN_PITCH:
            settings += ["--setf", f"int_f0_target_mean={self._hertz}"]
            settings += ["--setf", f"int_f0_target_stddev={self.liveliness}"]
        _run("flite", "-voice", self.name.removeprefix("flite-"), *settings, "-t", text, "-o", path)

    def _festival(self, text: str, path: str) -> None:
        choose = f"(voice_{self.name.removeprefix('festival-')})"
        settings = f"(Parameter.set 'Duration_Stretch {170 / self.rate:.2f})"
        if self.pitch != OWN_PITCH:  # of a diphone voice; festvox/kal_diphone.scm has the model's mean and deviation
            wanted = f"(target_f0_mean {self._hertz}) (target_f0_std {self.liveliness})"
            settings += f"(set! int_lr_params '({wanted} (model_f0_mean 170) (model_f0_std 34)))"
        _run("text2wave", "-eval", choose, "-eval", f"(begin {settings})", "-o", path, "-", text=text)

    @property
    def _hertz(self) -> int:
        return 75 + 2 * self.pitch


def heard_voice(r: Random) -> Voice:
    """A voice for training: 50 in 100 espeak-ng (two in three with a made-up accent), 36 flite, 14 festival."""
    chance = r.random()
    if chance < 0.5:
        variant = r.choice(USUAL if r.random() < 0.5 else RARE)
        accent = r.choice(ACCENTS) if r.random() < 0.33 else f"{_ACCENT}{r.randrange(MADE_UP)}"
        return Voice(name=accent + variant, rate=r.randint(115, 220), pitch=r.randint(15, 85), gap=r.randint(0, 4))
    pitch, liveliness = r.randint(5, 75) if r.random() < 0.6 else OWN_PITCH, r.randint(5, 35)
    if chance < 0.86:
        name = "flite-" + r.choices(list(FLITE), list(FLITE.values()))[0]
    else:
        name = "festival-" + r.choices(list(FESTIVAL), list(FESTIVAL.values()))[0]
    return Voice(
        name=name, rate=r.randint(135, 215), pitch=OWN_PITCH if "hts" in name else pitch, liveliness=liveliness
    )


def unheard_voice(r: Random) -> Voice:
    """A voice that is never in training: half of the time festival's speaker, else one of espeak-ng's."""
    if r.random() < 0.5:
        return Voice(name="festival-" + UNHEARD_FESTIVAL, rate=r.randint(150, 190))
    return Voice(
        name=r.choice(UNHEARD_ACCENTS) + r.choice(UNHEARD_VARIANTS), rate=r.randint(120, 210), pitch=r.randint(25, 75)
    )


def _run(*command: str, text: str | None = None) -> None:
    subprocess.run(command, input=text, text=True, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _recorded(speak: Callable[[str, str], None], words: list[str]) -> Utterance:
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "said.wav")
        speak(" ".join(words), path)
        with wave.open(path) as file:
            rate, pcm = file.getframerate(), np.frombuffer(file.readframes(file.getnframes()), np.int16)
    return _trimmed(pcm, rate, [UNKNOWN] * len(words))


def _trimmed(pcm: NDArray[np.int16], rate: int, seconds: list[float]) -> Utterance:
    """Resample to 16 kHz and cut off what is more than 10 ms before and 30 ms after the speech."""
    x = soxr.resample(pcm.astype(np.float32), rate, SAMPLE_RATE, quality="HQ")
    loud = np.nonzero(np.abs(x) > np.abs(x).max() * 0.01)[0]
    first, end = max(0, int(loud[0]) - 160), int(loud[-1]) + 480
    starts = [UNKNOWN if s < 0 else max(0, round(s * SAMPLE_RATE) - first) for s in seconds]
    return Utterance(np.clip(x[first:end], -32768, 32767).astype(np.int16), starts)


def _by_word(words: list[str], begun: dict[int, float]) -> list[float]:
    """Seconds at which each word begins, from seconds by character. Some words have no event of their own."""
    seconds, position = [], 1
    for word in words:
        seconds.append(begun.get(position, UNKNOWN))
        position += len(word) + 1
    return seconds


class _Event(ctypes.Structure):
    """espeak_EVENT of speak_lib.h."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    )


_ACCENT = "accent-"
_WORD = 1  # espeakEVENT_WORD
_RATES: dict[str, int] = {}
_heard: list[NDArray[np.int16]] = []
_begun: list[tuple[int, float]] = []


def _take(pcm: Any, count: int, events: Any) -> int:  # noqa: ANN401 - pointers, whose types ctypes makes as it runs
    if pcm and count:
        _heard.append(np.ctypeslib.as_array(pcm, (count,)).copy())
    k = 0
    while events[k].type:
        if events[k].type == _WORD:
            _begun.append((events[k].text_position, events[k].audio_position / 1000))
        k += 1
    return 0


_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))(_take)


@functools.cache
def _espeak() -> tuple[ctypes.CDLL, Path]:
    """Return the library and the folder of its data, to which voices may be added."""
    library = ctypes.CDLL("libespeak-ng.so.1")
    library.espeak_Info.restype = ctypes.c_char_p
    library.espeak_Initialize(2, 0, None, 0)  # AUDIO_OUTPUT_SYNCHRONOUS
    path = ctypes.c_char_p()
    library.espeak_Info(ctypes.byref(path))
    if path.value is None:
        raise RuntimeError("espeak-ng does not say where its data is")
    folder = Path(tempfile.mkdtemp(), "espeak-ng-data")
    atexit.register(shutil.rmtree, folder.parent)
    (folder / "voices").mkdir(parents=True)
    for entry in Path(path.value.decode()).iterdir():
        if entry.name != "voices":
            (folder / entry.name).symlink_to(entry)
    for entry in Path(path.value.decode(), "voices").iterdir():
        (folder / "voices" / entry.name).symlink_to(entry)
    _RATES["espeak"] = library.espeak_Initialize(2, 0, str(folder).encode(), 0)
    library.espeak_SetSynthCallback(_CALLBACK)
    return library, folder
