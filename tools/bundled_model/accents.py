"""Makes invented accents: espeak-ng's English with sounds, rhythm and formants changed at random.

A model trained on six accents recognises a seventh badly, however many throats each had in training. Trained on very
many accents, it recognises new ones too. Each is a voice file (espeak-ng's docs/voices.md) made from its number.
"""

from __future__ import annotations

from random import Random

# Phoneme tables of the accents that are trained on, with their own vowels.
_TABLES = ["en-us", "en", "en-rp", "en-sc", "en-n", "en-us-nyc"]

# What a sound may become, in espeak-ng's mnemonics: neighbours among the vowels, and consonants as accents change them.
_VOWELS = {
    "a": "aa E a# A: V",
    "E": "e I a eI 3",
    "I": "i I2 @ E e i:",
    "I2": "I i @",
    "i": "I I2 e i:",
    "i:": "i I eI e@",
    "0": "A: O aa V oU",
    "V": "U a @ 0 aa",
    "U": "u: V u",
    "u:": "U u oU o",
    "@": "V a# E I2 a 3",
    "3": "a# @ V E a",
    "3:": "V E O: e@ o",
    "A:": "a aa O: 0",
    "O:": "O o oU A: 0",
    "eI": "e: e E aI i:",
    "aI": "OI a A: V eI",
    "aU": "oU a A: u:",
    "oU": "o o: O: aU V 0 u:",
    "OI": "aI O: oU",
    "A@": "a A: aa O:",
    "O@": "O: o oU A@",
    "o@": "O@ oU O: o",
    "e@": "E e: i@ eI",
    "i@": "i: e@ I i",
}
_CONSONANTS = {
    "T": "t t[ f s",
    "D": "d d[ v z",
    "N": "n",
    "h": "NULL x",
    "r": "R * w",
    "t": "t[ d",
    "d": "d[ t",
    "z": "s",
    "v": "w b f",
    "w": "v",
    "S": "s s.",
}


def voice_file(number: int) -> str:
    """Return the text of accent `number`'s voice file."""
    r = Random(f"accent {number}")
    lines = [f"name accent-{number}", f"language en-x-{number}", f"phonemes {r.choice(_TABLES)}"]
    rules = sorted(r.sample(range(2, 9), r.randint(0, 3)))
    if rules:
        lines.append("dictrules " + " ".join(map(str, rules)))
    changed = [*r.sample(list(_VOWELS), r.randint(2, 8)), *r.sample(list(_CONSONANTS), r.randint(0, 3))]
    lines += [f"replace 00 {sound} {r.choice((_VOWELS | _CONSONANTS)[sound].split())}" for sound in changed]
    lines += [f"formant {k} {r.randint(92, 108)} {r.randint(85, 115)} {r.randint(85, 115)}" for k in range(1, 5)]
    unstressed, stressed = r.randint(120, 190), r.randint(180, 270)
    lines.append(f"stressLength {unstressed} {unstressed} {stressed} {stressed} 0 0 {stressed + 40} {stressed + 60}")
    lines.append(f"intonation {r.randint(1, 4)}")
    return "\n".join(lines) + "\n"
