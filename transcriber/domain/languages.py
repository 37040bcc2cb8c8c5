"""Maps language codes and tags to Whisper's codes. Pure."""

from __future__ import annotations

import re

AUTO = "auto"  # Whisper detects the language

# Whisper's own codes, in its order: https://github.com/openai/whisper/blob/main/whisper/tokenizer.py
_WHISPER = """
en zh de es ru ko fr ja pt tr pl ca nl ar sv it id hi fi vi he uk el ms cs ro da hu ta no th ur hr bg lt la mi ml cy
sk te fa lv bn sr az sl kn et mk br eu is hy ne mn bs kk sq sw gl mr pa si km sn yo so af oc ka be tg sd gu am yi lo
uz fo ht ps tk nn mt sa lb my bo tl mg as tt haw ln ha ba jw su yue
"""
WHISPER_ORDER = tuple(_WHISPER.split())
WHISPER = frozenset(WHISPER_ORDER)

# English names of the same languages, in the same order.
_ENGLISH = """
english chinese german spanish russian korean french japanese portuguese turkish polish catalan dutch arabic swedish
italian indonesian hindi finnish vietnamese hebrew ukrainian greek malay czech romanian danish hungarian tamil norwegian
thai urdu croatian bulgarian lithuanian latin maori malayalam welsh slovak telugu persian latvian bengali serbian
azerbaijani slovenian kannada estonian macedonian breton basque icelandic armenian nepali mongolian bosnian kazakh
albanian swahili galician marathi punjabi sinhala khmer shona yoruba somali afrikaans occitan georgian belarusian tajik
sindhi gujarati amharic yiddish lao uzbek faroese haitian_creole pashto turkmen nynorsk maltese sanskrit luxembourgish
burmese tibetan tagalog malagasy assamese tatar hawaiian lingala hausa bashkir javanese sundanese cantonese
"""
_NAMES = dict(zip(WHISPER_ORDER, (name.replace("_", " ") for name in _ENGLISH.split()), strict=True))

# Other codes of the same languages. ISO 639-1: what was renamed, and Javanese, which Whisper writes in its own way.
# ISO 639-2 and -3: both codes, where the bibliographic one differs from the terminological one. Last come languages
# that ISO takes for several, with the single one that people mean (cmn is the Mandarin of zh).
_SAME = """
iw=he in=id ji=yi jv=jw mo=ro nb=no fil=tl
afr=af amh=am ara=ar asm=as aze=az bak=ba bel=be ben=bn bod=bo tib=bo bos=bs bre=br bul=bg cat=ca ces=cs cze=cs
cym=cy wel=cy dan=da deu=de ger=de ell=el gre=el eng=en est=et eus=eu baq=eu fao=fo fas=fa per=fa fin=fi fra=fr
fre=fr glg=gl guj=gu hat=ht hau=ha heb=he hin=hi hrv=hr hun=hu hye=hy arm=hy ind=id isl=is ice=is ita=it jav=jw
jpn=ja kan=kn kat=ka geo=ka kaz=kk khm=km kor=ko lao=lo lat=la lav=lv lin=ln lit=lt ltz=lb mal=ml mar=mr mkd=mk
mac=mk mlg=mg mlt=mt mon=mn mri=mi mao=mi msa=ms may=ms mya=my bur=my nep=ne nld=nl dut=nl nno=nn nob=no nor=no
oci=oc pan=pa pol=pl por=pt pus=ps ron=ro rum=ro rus=ru san=sa sin=si slk=sk slo=sk slv=sl sna=sn snd=sd som=so
spa=es sqi=sq alb=sq srp=sr sun=su swa=sw swe=sv tam=ta tat=tt tel=te tgk=tg tgl=tl tha=th tuk=tk tur=tr ukr=uk
urd=ur uzb=uz vie=vi yid=yi yor=yo zho=zh chi=zh
arb=ar azj=az cmn=zh ekk=et khk=mn lvs=lv npi=ne pes=fa plt=mg swh=sw uzn=uz ydd=yi zsm=ms
"""
_OTHERS = dict(pair.split("=") for pair in _SAME.split())

# A language tag as in RFC 5646, or with underscores as POSIX writes it: the language, then script, region and such.
_TAG = re.compile(r"([a-z]{2,3})(?:[-_]([a-z0-9]{1,8}))?(?:[-_][a-z0-9]{1,8})*")

ALLOWED = "auto, or the ISO 639 code of a language that Whisper knows, with or without a region (en, de-DE, deu, yue)"


def code(text: str) -> str | None:
    """Return Whisper's code of a language, or `auto`; None if Whisper does not know the language.

    `text` is an ISO 639-1, 639-2 or 639-3 code in any case, alone or at the beginning of a tag such as `de-DE`.
    """
    if len(text) > 64:  # noqa: PLR2004 - no tag is that long, and a header may be as long as a message
        return None
    lower = text.strip().lower()
    if lower == AUTO:
        return AUTO
    tag = _TAG.fullmatch(lower)
    if tag is None:
        return None
    language, extended = tag.groups()
    if language == "zh" and extended in WHISPER:  # Cantonese is also written zh-yue
        language = extended
    return language if language in WHISPER else _OTHERS.get(language)


def name(whispers: str) -> str:
    """Return the English name of one of Whisper's codes, in lower case; any other text as it is."""
    return _NAMES.get(whispers, whispers)
