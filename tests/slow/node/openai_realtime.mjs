// Run by Node: `openai_realtime.mjs ADDRESS PCM` with 24 kHz audio. Prints the events of a session, one JSON object a line.
import { readFileSync } from "node:fs";
import OpenAI from "openai";
import { OpenAIRealtimeWS } from "openai/realtime/ws";

const [address, path] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${address}/v1`, apiKey: "any" });
const session = new OpenAIRealtimeWS({ intent: "transcription" }, client);
const audio = { format: { type: "audio/pcm", rate: 24000 }, turn_detection: null };

session.on("error", (error) => {
  console.error(error);
  process.exit(1);
});
session.on("event", (event) => console.log(JSON.stringify(event)));
session.on("session.created", () => session.send({
  type: "session.update",
  session: { type: "transcription", audio: { input: audio } },
}));
session.on("session.updated", () => {
  const pcm = readFileSync(path);
  for (let start = 0; start < pcm.length; start += 4800) {
    session.send({
      type: "input_audio_buffer.append",
      audio: pcm.subarray(start, start + 4800).toString("base64"),
    });
  }
  session.send({ type: "input_audio_buffer.commit" });
});
session.on("conversation.item.input_audio_transcription.completed", () => session.close());
