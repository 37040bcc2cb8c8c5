"""The model under training and its losses.

Two things make so short a run sufficient. One is a connectionist temporal classification loss (Graves et al. 2006) on
the encoder's output, which teaches the alignment; it is dropped at export. The other is a softmax over the whole
vocabulary at the cost of the used part. It is exact, because all unused tokens share one embedding row.

At the first token of a word, a small part of the probability belongs to the timestamps, from which whisper.cpp reads
word times. Where the time is known, the right timestamp has a loss of its own. The usual loss teaches next to nothing
about so small a part.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812 - as PyTorch calls it
from sentences import VOCABULARY
from targets import (
    ANYWHEN,
    EOT,
    IGNORE,
    NO_SPEECH,
    NO_TIMESTAMPS,
    POSITIONS,
    PREV,
    SOT,
    TIME0,
    TOKENIZER,
    UNTIMED,
    Targets,
)
from torch import Tensor, nn
from whisper.model import ModelDimensions, Whisper

TOKENS = 51864
WIDTH, ENCODER_LAYERS, DECODER_LAYERS = 128, 4, 3  # not 2 in the decoder: whisper.cpp then forces no timestamps
TIME_SHARE = 0.02  # of the likeliest word's probability, for timestamps; whisper.cpp uses them from 0.01 on
CLEARLY = 30  # times likelier is the likeliest word, while there are words, than an end of any kind


class Trainee(nn.Module):  # type: ignore[misc] # PyTorch is not installed for type checks
    """The model under training, with embeddings for the tokens that are used and one row for all others."""

    def __init__(self) -> None:
        super().__init__()
        heads = WIDTH // 64
        self.dims = ModelDimensions(
            80, POSITIONS, WIDTH, heads, ENCODER_LAYERS, TOKENS, 448, WIDTH, heads, DECODER_LAYERS
        )
        self.model = Whisper(self.dims)
        del self.model.decoder.token_embedding
        nn.init.normal_(self.model.decoder.positional_embedding, std=0.01)
        text = sorted({token for word in VOCABULARY for token in TOKENIZER.encode(" " + word)})
        self.used = [*text, SOT, EOT, PREV, NO_SPEECH, NO_TIMESTAMPS, *range(TIME0, TIME0 + POSITIONS + 1)]
        self.index = {token: k for k, token in enumerate(self.used)}
        self.embedding = nn.Parameter(torch.randn(len(self.used), WIDTH) * 0.02)
        self.other = nn.Parameter(torch.randn(WIDTH) * 0.02)
        self.alignment = nn.Linear(WIDTH, len(text) + 1)
        self.padding = 0  # positions after the audio, visible to attention
        heeding = [block.attn for block in self.model.encoder.blocks]
        heeding += [block.cross_attn for block in self.model.decoder.blocks]
        for attention in heeding:
            for projection in (attention.key, attention.value):
                projection.register_forward_hook(lambda _, __, output: F.pad(output, (0, 0, 0, self.padding)))

    def encode(self, mel: Tensor) -> Tensor:
        encoder = self.model.encoder
        x = F.gelu(encoder.conv2(F.gelu(encoder.conv1(mel)))).permute(0, 2, 1)
        x = x + encoder.positional_embedding[: x.shape[1]]
        for block in encoder.blocks:
            x = block(x)
        return encoder.ln_post(x)

    def decode(self, inputs: Tensor, audio: Tensor) -> Tensor:
        decoder = self.model.decoder
        x = self.embedding[inputs] + decoder.positional_embedding[: inputs.shape[1]]
        for block in decoder.blocks:
            x = block(x, audio, mask=decoder.mask)
        return decoder.ln(x)

    def logits(self, x: Tensor) -> Tensor:
        """Return the logits of the used tokens and, last, the logarithm of all others' sum."""
        rest = (x @ self.other)[..., None] + math.log(TOKENS - len(self.used))
        return torch.cat([x @ self.embedding.T, rest], -1)

    def entropy(self, logits: Tensor, batch: list[Targets]) -> Tensor:
        """Mean cross entropy of a batch's targets."""
        shape = logits.shape[:2]
        targets, times = torch.full(shape, IGNORE), torch.full(shape, -1)
        anywhen, untimed, garbled = torch.zeros(3, *shape, dtype=torch.bool)
        for k, one in enumerate(batch):
            garbled[k] = one.garbled
            for j, (target, stamp) in enumerate(zip(one.targets, one.times, strict=True)):
                targets[k, j] = self.index.get(target, IGNORE)
                anywhen[k, j], untimed[k, j] = stamp == ANYWHEN, stamp == UNTIMED
                times[k, j] = self.index.get(stamp, -1)
        stamps = slice(self.index[TIME0], len(self.used))
        logits = logits.clone()
        logits[:, :, stamps] = logits[:, :, stamps].masked_fill(untimed[..., None], -1e4)
        logs = logits.log_softmax(-1)
        right = logs.gather(-1, targets.clamp(min=0)[..., None])[..., 0]
        stamped = logs[:, :, stamps].logsumexp(-1)  # of all timestamps together
        likeliest = logs[:, :, : self.index[SOT]].amax(-1)
        known = times >= 0
        when = stamped - logs.gather(-1, times.clamp(min=0)[..., None])[..., 0]
        faint = (likeliest.detach() + math.log(TIME_SHARE) - stamped).relu()
        # whisper.cpp ends the text where all timestamps together outweigh the likeliest word: never amid speech.
        early = (torch.logaddexp(stamped, logs[:, :, self.index[EOT]]) + math.log(CLEARLY) - likeliest).relu()
        loss = torch.where(known, 0.2 * when, 0.0) + torch.where(known | anywhen, 0.3 * faint, 0.0) - right
        word = targets < self.index[SOT]
        loss = torch.where(word & garbled, early, loss + torch.where(word, 0.5 * early, 0.0))
        trained = targets >= 0
        return loss[trained].mean()

    def alignment_loss(self, audio: Tensor, batch: list[Targets]) -> Tensor:
        """Connectionist temporal classification loss, per token of intelligible speech."""
        lengths = torch.tensor([len(one.text) for one in batch])
        labels = torch.tensor([self.index[token] + 1 for one in batch for token in one.text])
        logs = self.alignment(audio).log_softmax(-1).transpose(0, 1)
        positions = torch.full((len(batch),), audio.shape[1])
        loss = F.ctc_loss(logs, labels, positions, lengths, zero_infinity=True, reduction="none")
        understood = torch.tensor([not one.garbled for one in batch])
        return loss[understood].sum() / max(1, int(lengths[understood].sum()))
