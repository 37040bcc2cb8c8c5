"""Train a small Whisper (OpenAI's architecture and English tokenizer) on what synthesize.py wrote.

    python train.py --data WORK --out WORK/model.pt [--steps 12000] [--seed 1] [--processes 2]

Stopped, it resumes from --out: every step draws from its own number, so that a resumed run equals an unbroken one.

Two things let so small a run suffice: a connectionist temporal classification loss (Graves et al. 2006) on the
encoder's output, from which the alignment emerges (it is dropped at export); and a softmax that is exact over the whole
vocabulary at the cost of the used part, as all unused tokens share one embedding row. And at the first token of a word
a small part of the probability belongs to the timestamps, where whisper.cpp reads word times: which one it is, where
the time is known, is a loss of its own, as within so small a part the usual one teaches next to nothing.
"""

from __future__ import annotations

import argparse
import math
import os
import tempfile
import time
from pathlib import Path
from random import Random

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F  # noqa: N812 - as PyTorch calls it
from sentences import VOCABULARY
from torch import Tensor, nn
from voices import UNKNOWN
from whisper.audio import mel_filters
from whisper.model import ModelDimensions, Whisper, disable_sdpa
from whisper.tokenizer import get_tokenizer
from windows import Corpus, Window, silent, spoken

TOKENIZER = get_tokenizer(multilingual=False)
SOT, EOT, PREV = TOKENIZER.sot, TOKENIZER.eot, TOKENIZER.sot_prev
NO_SPEECH, NO_TIMESTAMPS, TIME0 = TOKENIZER.no_speech, TOKENIZER.no_timestamps, TOKENIZER.timestamp_begin
TOKENS = 51864
POSITION = 320  # samples of an encoder position, 20 ms; also the step of the timestamps
POSITIONS = 1500

WIDTH, ENCODER_LAYERS, DECODER_LAYERS = 128, 4, 3  # not 2 in the decoder: whisper.cpp then forces no timestamps
TIME_SHARE = 0.03  # of the likeliest word's probability, for timestamps; whisper.cpp heeds them from 0.01 on
CLEARLY = 4  # times likelier is the likeliest word, while there are words, than an end of any kind
IGNORE = -100
# In place of the timestamp that shares a target: it may be any, or there are none, as when none are asked for.
ANYWHEN, UNTIMED = -1, -2
HALF_WIDTH = "avx512_bf16" in Path("/proc/cpuinfo").read_text()  # elsewhere bfloat16 is slower than float32


class Targets:
    """Decoder input and targets of one window.

    `targets` are tokens or `IGNORE`; `times` the timestamp that shares a target, `ANYWHEN`, `UNTIMED`, or None.
    """

    def __init__(self, window: Window, r: Random) -> None:
        self.inputs: list[int] = [SOT]
        self.targets: list[int] = []
        self.times: list[int | None] = []
        self.text: list[int] = []
        if window.speech is None:
            self._nothing(r)
        else:
            self._spoken(window, window.speech.words, window.speech.starts, r)

    def _next(self, target: int, stamp: int | None = None, *, fed: int | None = None) -> None:
        self.targets.append(target)
        self.times.append(stamp)
        self.inputs.append(target if fed is None else fed)

    def _nothing(self, r: Random) -> None:
        """Nothing was said: whatever timestamp whisper.cpp then takes first, the text ends there."""
        self._next(NO_SPEECH, fed=NO_TIMESTAMPS if r.random() < 0.3 else TIME0 + r.randint(0, 50))
        self._next(EOT)
        self.inputs.pop()

    def _spoken(self, window: Window, words: list[str], starts: list[int], r: Random) -> None:
        if r.random() < 0.15:  # earlier text, not trained; now and then the same text, which must not be skipped
            earlier = words if r.random() < 0.2 else r.choices(VOCABULARY, k=r.randint(1, 12))
            self.inputs = [PREV, *TOKENIZER.encode(" " + " ".join(earlier)), SOT]
            self.targets = [IGNORE] * (len(self.inputs) - 1)
            self.times = [None] * len(self.targets)
        timed = r.random() < 0.6
        if timed:
            self._next(TIME0 + round(window.first / POSITION))
        else:
            self._next(IGNORE, fed=NO_TIMESTAMPS)
        for word, start in zip(words, starts, strict=True):
            stamp = UNTIMED if not timed else ANYWHEN if start == UNKNOWN else TIME0 + round(start / POSITION)
            first, *rest = TOKENIZER.encode(" " + word)
            self._next(first, stamp if self.text or not timed else None)
            for token in rest:
                self._next(token, None if timed else UNTIMED)
            self.text += [first, *rest]
        if timed:
            self._next(TIME0 + min(math.ceil(window.end / POSITION), POSITIONS))
        self._next(EOT)
        self.inputs.pop()


class Mel:
    """Log-mel features as Whisper computes them, for many throats and microphones."""

    def __init__(self) -> None:
        self._plain = mel_filters("cpu", 80)
        self._hann = torch.hann_window(400)

    def __call__(self, samples: Tensor, r: Random) -> Tensor:
        """(batch, samples) at 16 kHz to (batch, 80, frames)."""
        frames = samples.shape[1] // 160
        spectrum = torch.stft(F.pad(samples, (0, 400)), 400, 160, window=self._hann, return_complex=True)[..., :frames]
        power = torch.view_as_real(spectrum).square().sum(-1)
        filters = torch.stack([self._throat(r) if r.random() < 0.6 else self._plain for _ in samples])
        colours = torch.stack([_colour(r) if r.random() < 0.5 else torch.zeros(80) for _ in samples])
        mel = (filters @ power).clamp(min=1e-10).log10() + colours[..., None]
        return (torch.maximum(mel, mel.amax((1, 2), keepdim=True) - 8.0) + 4) / 4

    def _throat(self, r: Random) -> Tensor:
        """Filters that hear another vocal tract length (Jaitly and Hinton 2013), and each formant somewhere else."""
        hertz = torch.linspace(0, 8000, 201)
        moved = hertz * r.uniform(0.85, 1.18)
        for formant in (500, 1500, 2700):
            nearness = torch.exp(-(((hertz.clamp(min=1) / formant).log2() / 0.6) ** 2))
            moved = moved * (1 + r.uniform(-0.13, 0.13) * nearness)
        at = (moved / 40).clamp(max=200.0)
        low = at.floor().long().clamp(max=199)
        share = at - low
        return self._plain[:, low] * (1 - share) + self._plain[:, low + 1] * share


def _colour(r: Random) -> Tensor:
    """What a microphone or another voice adds to each band, in powers of ten: slopes of up to 20 dB, in waves."""
    bands = torch.linspace(0, math.pi, 80)
    return sum(r.uniform(-0.5, 0.5) * torch.cos(k * bands + r.uniform(0, math.pi)) / k for k in (1, 2, 3))


class Trainee(nn.Module):
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
        """Return those of the used tokens and, last, the log of all others' sum; float32."""
        x = x.float()
        rest = (x @ self.other)[..., None] + math.log(TOKENS - len(self.used))
        return torch.cat([x @ self.embedding.T, rest], -1)

    def entropy(self, logits: Tensor, batch: list[Targets]) -> Tensor:
        """Mean cross entropy of a batch's targets."""
        shape = logits.shape[:2]
        targets, times = torch.full(shape, IGNORE), torch.full(shape, -1)
        anywhen, untimed = torch.zeros(2, *shape, dtype=torch.bool)
        for k, one in enumerate(batch):
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
        loss = loss + torch.where(targets < self.index[SOT], 0.5 * early, 0.0)
        trained = targets >= 0
        return loss[trained].mean()

    def alignment_loss(self, audio: Tensor, batch: list[Targets]) -> Tensor:
        """Connectionist temporal classification, a token."""
        lengths = torch.tensor([len(one.text) for one in batch])
        labels = torch.tensor([self.index[token] + 1 for one in batch for token in one.text])
        logs = self.alignment(audio.float()).log_softmax(-1).transpose(0, 1)
        positions = torch.full((len(batch),), audio.shape[1])
        loss = F.ctc_loss(logs, labels, positions, lengths, zero_infinity=True, reduction="sum")
        return loss / max(1, int(lengths.sum()))


def shape(progress: float, r: Random, processes: int) -> tuple[int, int]:
    """Encoder positions and each process's share of the batch: from words to sentences, then longer contexts.

    A short context holds more speech for the same computation.
    """
    if progress < 0.05:
        positions = 96
    elif progress < 0.15:
        positions = r.choice([96, 176])
    else:
        kinds = [(100, 192), (256, 256), (193, 384), (512, 512), (385, 640), (POSITIONS, POSITIONS)]
        weights = [45, 25, 15, 10, 4, 1] if progress < 0.5 else [20, 30, 21, 18, 8, 3]
        positions = r.randint(*r.choices(kinds, weights)[0])
    return positions, max(2, round(5500 / positions / processes))


def batch_of(corpus: Corpus, mel: Mel, positions: int, size: int, r: Random) -> tuple[Tensor, list[Targets]]:
    """Features (batch, 80, frames) and targets."""
    g = np.random.default_rng(r.getrandbits(64))
    samples = positions * POSITION
    windows = [silent(samples, r, g) if r.random() < 0.08 else spoken(corpus, samples, r, g) for _ in range(size)]
    features = mel(torch.from_numpy(np.stack([w.samples for w in windows])), r)
    for feature in features:
        _mask(feature, r)
    return features, [Targets(window, r) for window in windows]


def _mask(feature: Tensor, r: Random) -> None:
    """Hide bands and moments (SpecAugment, Park et al. 2019): what cannot be heard is no reason to end."""
    blank = feature.mean()
    for _ in range(r.choice([0, 0, 1, 2])):
        band = r.randint(0, 70)
        feature[band : band + r.randint(1, 10)] = blank
    for _ in range(r.choice([0, 0, 0, 1, 2])):
        moment = r.randint(0, feature.shape[1])
        feature[:, moment : moment + r.randint(4, 20)] = blank


def losses_of(trainee: Trainee, features: Tensor, batch: list[Targets]) -> tuple[Tensor, Tensor]:
    """Cross entropy and alignment loss of one batch."""
    inputs = torch.full((len(batch), max(len(one.inputs) for one in batch)), trainee.index[EOT])
    for k, one in enumerate(batch):
        inputs[k, : len(one.inputs)] = torch.tensor([trainee.index[token] for token in one.inputs])
    with torch.autocast("cpu", torch.bfloat16, enabled=HALF_WIDTH), disable_sdpa():  # its backward pass is slow on CPUs
        audio = trainee.encode(features)
        decoded = trainee.decode(inputs, audio)
    return trainee.entropy(trainee.logits(decoded), batch), trainee.alignment_loss(audio, batch)


def rate(progress: float, number: int) -> float:
    """Learning rate: a short warm-up, then half a cosine."""
    return 2e-3 * min(1, (number + 1) / 300) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


def run(rank: int, options: argparse.Namespace, meeting: str) -> None:
    """One of the processes that share every batch and average their gradients."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=options.processes)
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    trainee, mel, corpus = Trainee(), Mel(), Corpus(options.data)
    parameters = list(trainee.parameters())
    optimizer = torch.optim.AdamW(parameters, betas=(0.9, 0.98), weight_decay=0.01)
    first, seconds = resume(options.out, trainee, optimizer)
    begin, losses = time.monotonic(), []
    for number in range(first, options.steps):
        progress = number / options.steps
        optimizer.param_groups[0]["lr"] = rate(progress, number)
        positions, size = shape(progress, Random(f"{options.seed} {number}"), options.processes)
        features, batch = batch_of(corpus, mel, positions, size, Random(f"{options.seed} {number} {rank}"))
        entropy, alignment = losses_of(trainee, features, batch)
        optimizer.zero_grad()
        (entropy + (1.0 if progress < 0.5 else 0.3) * alignment).backward()
        gradients = nn.utils.parameters_to_vector([p.grad for p in parameters])
        dist.all_reduce(gradients)
        for p, g in zip(parameters, gradients.split([p.numel() for p in parameters]), strict=True):
            p.grad = g.view_as(p) / options.processes
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        losses.append((entropy.item(), alignment.item()))
        if rank == 0 and ((number + 1) % options.save_every == 0 or number + 1 == options.steps):
            spent = seconds + time.monotonic() - begin
            save(options.out, trainee, optimizer, number + 1, spent)
            e, a = np.mean(losses, 0)
            print(f"step {number + 1}, {spent / 60:.1f} min: cross entropy {e:.3f}, alignment {a:.3f}", flush=True)
            losses = []
    dist.destroy_process_group()


def follow(number: int, options: argparse.Namespace, meeting: str) -> None:
    run(number + 1, options, meeting)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a small Whisper.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=12000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--save-every", type=int, default=100, help="steps that a stop may cost")
    parser.add_argument("--processes", type=int, default=2, help="one a core; another number gives another model")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        meeting = f"{folder}/meeting"
        # When this one ends, however it ends, the others fail in their next exchange.
        mp.start_processes(follow, (options, meeting), options.processes - 1, start_method="spawn", join=False)
        run(0, options, meeting)


def resume(path: Path, trainee: Trainee, optimizer: torch.optim.Optimizer) -> tuple[int, float]:
    """Steps done and seconds spent so far."""
    if not path.exists():
        return 0, 0.0
    saved = torch.load(path, weights_only=False)
    trainee.load_state_dict(saved["trainee"])
    optimizer.load_state_dict(saved["optimizer"])
    return saved["step"], saved["seconds"]


def save(path: Path, trainee: Trainee, optimizer: torch.optim.Optimizer, number: int, seconds: float) -> None:
    state = {
        "dims": vars(trainee.dims),
        "used": trainee.used,
        "trainee": trainee.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": number,
        "seconds": seconds,
    }
    part = path.with_suffix(".part")
    torch.save(state, part)
    part.replace(path)


if __name__ == "__main__":
    main()
