"use strict";
// Runs on the browser's audio thread: gathers a tenth of a second of the microphone and hands it over as 16-bit PCM.
const CHUNK_SECS = 0.1;

class Taker extends AudioWorkletProcessor {
  constructor() {
    super();
    this.pcm = new Int16Array(Math.round(sampleRate * CHUNK_SECS));
    this.filled = 0;
    this.peak = 0;
  }

  process([[samples]]) {
    if (!samples) return true;  // the microphone has not begun
    for (const sample of samples) {
      const bounded = Math.max(-1, Math.min(1, sample));
      this.peak = Math.max(this.peak, Math.abs(bounded));
      this.pcm[this.filled++] = Math.round(bounded * 32767);
      if (this.filled === this.pcm.length) this.hand_over();
    }
    return true;
  }

  hand_over() {
    const pcm = this.pcm.slice().buffer;
    this.port.postMessage({ pcm, peak: this.peak }, [pcm]);
    this.filled = 0;
    this.peak = 0;
  }
}

registerProcessor("taker", Taker);
