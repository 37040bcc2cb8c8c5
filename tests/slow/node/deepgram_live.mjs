// Run by Node: `deepgram_live.mjs ADDRESS PCM` with 24 kHz audio. Prints the messages, one JSON object a line.
import { readFileSync } from "node:fs";
import { DeepgramClient } from "@deepgram/sdk";

const [address, path] = process.argv.slice(2);
const socket = address.replace("http", "ws");
const environment = { base: address, production: socket, agent: socket, agentRest: address };
const client = new DeepgramClient({ apiKey: "any", environment });
const asked = { model: "nova-3", encoding: "linear16", sample_rate: "24000", interim_results: "true" };
const connection = await client.listen.v1.connect(asked);

connection.on("error", (error) => {
  console.error(error);
  process.exit(1);
});
connection.on("message", (message) => {
  console.log(JSON.stringify(message));
  if (message.type === "Metadata") {
    process.exitCode = 0;
    connection.close();
  }
});
connection.connect();
await connection.waitForOpen();
const pcm = readFileSync(path);
for (let start = 0; start < pcm.length; start += 4800) {
  connection.sendMedia(pcm.subarray(start, start + 4800));
}
connection.sendKeepAlive({ type: "KeepAlive" });
connection.sendFinalize({ type: "Finalize" });
connection.sendCloseStream({ type: "CloseStream" });
