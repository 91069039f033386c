// Prints every Gemini event once: its type, its id, its job. Reads NATS JetStream.
//
// The server remembers, under the name DURABLE, which events were acknowledged. An event is acknowledged after it was
// handled, so one that was under way when this process died comes again. One that does not match the schema ends the
// process and stays unacknowledged: the bridge publishes no such event.

import { readFileSync } from "node:fs";
import { AckPolicy, jetstreamManager } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";
import { Ajv2020 } from "ajv/dist/2020.js";
import addFormats from "ajv-formats";
import { CloudEvent, HTTP } from "cloudevents";

const { NATS_URL = "nats://127.0.0.1:4222", NATS_STREAM = "GEMINI" } = process.env;
const EVENTS = Number(process.env.EVENTS ?? 0); // how many to read; 0: endless
const SCHEMA = process.env.SCHEMA ?? new URL("../../schemas/event.schema.json", import.meta.url);
const DURABLE = "example-node";

const ajv = addFormats(new Ajv2020({ allErrors: true, strictSchema: false })); // strict, it knows no $anchor
const matchesSchema = ajv.compile(JSON.parse(readFileSync(SCHEMA, "utf8")));
// Ids of handled events. A real one is a table in your database, written in the transaction of what handle does.
const seen = new Set();

// Either content mode. In binary mode attributes are in "ce-" headers, percent-encoded, which the SDK leaves so.
function parse(msg) {
  const headers = {};
  for (const [name, [value]] of msg.headers) {
    headers[name.toLowerCase()] = name.startsWith("ce-") ? decodeURIComponent(value) : value;
  }
  const structured = headers["content-type"].startsWith("application/cloudevents+json");
  const event = structured ? new CloudEvent(msg.json()) : HTTP.toEvent({ headers, body: msg.string() });
  if (!matchesSchema(event.toJSON())) throw new Error(ajv.errorsText(matchesSchema.errors));
  return event;
}

function handle(event) {
  console.log(event.type, event.id, event.data.job ?? "-");
}

const nc = await connect({ servers: NATS_URL });
try {
  const jsm = await jetstreamManager(nc, { checkAPI: false });
  await jsm.consumers.add(NATS_STREAM, { durable_name: DURABLE, ack_policy: AckPolicy.Explicit });
  const consumer = await jsm.jetstream().consumers.get(NATS_STREAM, DURABLE);
  for (let read = 0; EVENTS === 0 || read < EVENTS; ) {
    const msg = await consumer.next().catch((err) => { if (err.message !== "server shutdown") throw err; });
    if (!msg) continue; // nothing new, or the server restarts
    const event = parse(msg);
    if (!seen.has(event.id)) {
      handle(event);
      seen.add(event.id);
    }
    await msg.ackAck();
    read++;
  }
} finally {
  await nc.close();
}
