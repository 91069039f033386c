// Prints every Gemini event once: its type, its id, its job. Reads Kafka.
//
// The broker remembers, under the name GROUP, the offsets that were committed. An offset is committed after its event
// was handled, so one that was under way when this process died comes again. One that does not match the schema ends
// the process and stays uncommitted: the bridge publishes no such event.

import { readFileSync } from "node:fs";
import { Ajv2020 } from "ajv/dist/2020.js";
import addFormats from "ajv-formats";
import { CloudEvent, Kafka as Binding } from "cloudevents";
import { Kafka, logLevel } from "kafkajs";

const { KAFKA_BROKERS = "127.0.0.1:9092", KAFKA_TOPIC = "gemini.events" } = process.env;
const EVENTS = Number(process.env.EVENTS ?? 0); // how many to read; 0: endless
const SCHEMA = process.env.SCHEMA ?? new URL("../../schemas/event.schema.json", import.meta.url);
const GROUP = "example-node";

const ajv = addFormats(new Ajv2020({ allErrors: true, strictSchema: false })); // strict, it knows no $anchor
const matchesSchema = ajv.compile(JSON.parse(readFileSync(SCHEMA, "utf8")));
// Ids of handled events. A real one is a table in your database, written in the transaction of what handle does.
const seen = new Set();

// Either content mode. The SDK's binding fails on a structured event without a time, so that mode goes past it.
function parse(message) {
  const headers = Object.fromEntries(Object.entries(message.headers).map(([name, value]) => [name, value.toString()]));
  const [key, value] = [message.key.toString(), message.value.toString()];
  const structured = headers["content-type"].startsWith("application/cloudevents+json");
  const event = structured ? new CloudEvent(JSON.parse(value)) : Binding.toEvent({ headers, key, value });
  if (!matchesSchema(event.toJSON())) throw new Error(ajv.errorsText(matchesSchema.errors));
  return event;
}

function handle(event) {
  console.log(event.type, event.id, event.data.job ?? "-");
}

const kafka = new Kafka({ brokers: KAFKA_BROKERS.split(","), logLevel: logLevel.WARN });
const consumer = kafka.consumer({ groupId: GROUP });
await consumer.connect();
await consumer.subscribe({ topic: KAFKA_TOPIC, fromBeginning: true });
let read = 0;
await new Promise((resolve, reject) => {
  const eachMessage = async ({ topic, partition, message }) => {
    if (EVENTS > 0 && read >= EVENTS) return;
    const event = parse(message);
    if (!seen.has(event.id)) {
      handle(event);
      seen.add(event.id);
    }
    await consumer.commitOffsets([{ topic, partition, offset: String(BigInt(message.offset) + 1n) }]);
    if (++read === EVENTS) resolve();
  };
  consumer.on(consumer.events.CRASH, ({ payload }) => reject(payload.error));
  consumer.run({ autoCommit: false, eachMessage: (m) => eachMessage(m).catch((err) => { reject(err); throw err; }) });
}).finally(() => consumer.disconnect());
