"""What Whisper writes where nobody speaks: names of sounds, and sign-offs from subtitles. Pure."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transcriber.domain.results import Segment, Word

# `[BLANK_AUDIO]`, `(upbeat music)`, `*crying*`, notes around lyrics. The window's end may cut off the closing mark.
_BRACKETS = (("[", "]"), ("(", ")"), ("\uff08", "\uff09"), ("\u3010", "\u3011"), ("*", "*"))  # two from East Asia
_NOTES = "\u266a\u266b\u266c"
_SOUND = re.compile(
    "|".join(
        [rf"{re.escape(a)}[^{re.escape(z)}]*(?:{re.escape(z)}|$)" for a, z in _BRACKETS]
        + [f"[{_NOTES}]+[^{_NOTES}]*[{_NOTES}]+", f"[{_NOTES}]+"]
    )
)
_SPACES = re.compile(r"\s+")

# From the subtitles that Whisper was trained on, as reported by language in
# openai/whisper's discussions 679 and 928, and as seen here.
SIGN_OFFS = frozenset(
    {
        # English
        "bye",
        "bye bye",
        "goodbye",
        "i'll see you next time",
        "i'll see you in the next video",
        "please subscribe",
        "please subscribe to my channel",
        "see you next time",
        "see you in the next video",
        "subscribe",
        "subtitles by the amaraorg community",
        "thank you",
        "thank you for watching",
        "thank you so much for watching",
        "thank you very much",
        "thanks",
        "thanks for listening",
        "thanks for watching",
        "you",
        # German
        "bis zum nächsten mal",
        "copyright wdr 2021",
        "danke",
        "danke fürs zuschauen",
        "tschüss",
        "untertitel der amaraorgcommunity",
        "untertitel im auftrag des zdf für funk 2017",
        "untertitelung des zdf 2020",
        "vielen dank",
        "vielen dank für die aufmerksamkeit",
        "vielen dank fürs zuschauen",
        # French
        "abonnezvous",
        "merci",
        "merci à tous",
        "merci d'avoir regardé cette vidéo",
        "merci d'avoir regardé la vidéo",
        "soustitrage société radiocanada",
        "soustitres par la communauté d'amaraorg",
        "soustitres réalisés par la communauté d'amaraorg",
        # Spanish
        "gracias",
        "gracias por ver",
        "gracias por ver el video",
        "gracias por ver el vídeo",
        "hasta la próxima",
        "subtítulos por la comunidad de amaraorg",
        "subtítulos realizados por la comunidad de amaraorg",
        "suscríbete",
        "suscríbete al canal",
        # Italian
        "grazie",
        "grazie a tutti",
        "grazie per aver guardato il video",
        "sottotitoli creati dalla comunità amaraorg",
        "sottotitoli e revisione a cura di qtss",
        # Portuguese
        "até a próxima",
        "inscrevase no canal",
        "legendas pela comunidade amaraorg",
        "obrigado",
        "obrigado por assistir",
        # Dutch, Danish, Norwegian, Swedish
        "bedankt voor het kijken",
        "ondertitels ingediend door de amaraorg gemeenschap",
        "ondertiteld door de amaraorg gemeenschap",
        "dansk tekstning",
        "tak for at se med",
        "tak fordi du så med",
        "takk for att du så på",
        "teksting av nicolai winther",
        "tack för att ni tittade",
        "tack för att du tittade",
        "undertexter från amaraorggemenskapen",
        # Polish, Czech, Slovak, Hungarian, Romanian, Turkish, Finnish, Greek
        "dziękuję za oglądanie",
        "dziękuję za uwagę",
        "napisy stworzone przez społeczność amaraorg",
        "děkujeme za pozornost",
        "titulky vytvořil johnyx",
        "ďakujem za pozornosť",
        "köszönöm a figyelmet",
        "köszönöm hogy megnézted",
        "mulțumesc pentru vizionare",
        "să vă mulțumim pentru vizionare",
        "altyazı mk",  # noqa: RUF001 - Turkish
        "izlediğiniz için teşekkür ederim",
        "izlediğiniz için teşekkürler",
        "kiitos",
        "kiitos kun katsoit",
        "ευχαριστώ που παρακολουθήσατε",
        "υπότιτλοι authorwave",
        # Russian, Ukrainian
        "до новых встреч",
        "подписывайтесь на канал",
        "продолжение следует",
        "редактор субтитров асемкин корректор аегорова",
        "спасибо",
        "спасибо за внимание",
        "спасибо за просмотр",
        "субтитры делал dimatorzok",
        "субтитры подогнал симон",
        "субтитры сделал dimatorzok",
        "субтитры создавал dimatorzok",
        "дякую за перегляд",
        "дякую за увагу",
        # Arabic, Hebrew, Persian, Hindi
        "اشتركوا في القناة",
        "شكرا للمشاهدة",
        "شكرا على المشاهدة",
        "ترجمة نانسي قنقر",
        "תודה על הצפייה",
        "תודה רבה",
        "با تشکر از تماشای شما",
        "धन्यवाद",
        "देखने के लिए धन्यवाद",
        # Chinese, Japanese, Korean, Vietnamese, Thai, Indonesian
        "字幕由amaraorg社区提供",
        "请不吝点赞订阅转发打赏支持明镜与点点栏目",
        "謝謝觀看",
        "谢谢观看",
        "谢谢大家",
        "ご視聴ありがとうございました",
        "ご清聴ありがとうございました",
        "おやすみなさい",
        "チャンネル登録をお願いいたします",
        "시청해주셔서 감사합니다",
        "시청해 주셔서 감사합니다",
        "감사합니다",
        "구독과 좋아요 부탁드립니다",
        "cảm ơn các bạn đã theo dõi",
        "hãy subscribe cho kênh để không bỏ lỡ những video hấp dẫn",
        "hẹn gặp lại các bạn trong những video tiếp theo",
        "ขอบคุณที่รับชม",
        "ขอบคุณครับ",
        "terima kasih",
        "terima kasih telah menonton",
    }
)


def is_sign_off(text: str) -> bool:
    """Whether the whole text is a sign-off from subtitles, whatever its capitals, punctuation and spaces."""
    return _bare(text) in _BARE_SIGN_OFFS


def _bare(text: str) -> str:
    """The text's letters, their combining marks and its digits, in lower case."""
    return "".join(c for c in text.lower() if unicodedata.category(c)[0] in "LMN")


_BARE_SIGN_OFFS = frozenset(map(_bare, SIGN_OFFS))


def without_sounds(segment: Segment) -> tuple[Segment | None, list[Segment]]:
    """Return the segment without names of sounds, None if nothing else is in it, and each name as a segment."""
    found = [match.group() for match in _SOUND.finditer(segment.text)]
    if not found:
        return segment, []
    text = _SPACES.sub(" ", _SOUND.sub(" ", segment.text)).strip()
    sounds = [replace(segment, text=sound.strip(), words=()) for sound in found]
    if not any(c.isalnum() for c in text):
        return None, [replace(segment, words=())]
    return replace(segment, text=text, words=_spoken(segment)), sounds


def _spoken(segment: Segment) -> tuple[Word, ...]:
    """The words outside all names of sounds."""
    joined, spans = "", []
    for word in segment.words:
        joined += " " if joined else ""
        spans.append((len(joined), len(joined) + len(word.text), word))
        joined += word.text
    sounds = [match.span() for match in _SOUND.finditer(joined)]
    return tuple([word for start, end, word in spans if not any(a < end and start < b for a, b in sounds)])
