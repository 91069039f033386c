"""Prints every Gemini event once: its type, its id, its job. Reads NATS JetStream.

The server remembers, under the name DURABLE, which events were acknowledged. An event is acknowledged after it was
handled, so one that was under way when this process died comes again. One that does not match the schema ends the
process and stays unacknowledged: the bridge publishes no such event.
"""

import asyncio
import json
import os
import pathlib

import nats
from cloudevents.core.bindings.http import HTTPMessage, from_http
from cloudevents.core.formats.json import JSONFormat
from jsonschema import Draft202012Validator

URL = os.environ.get("NATS_URL", "nats://127.0.0.1:4222")
STREAM = os.environ.get("NATS_STREAM", "GEMINI")
EVENTS = int(os.environ.get("EVENTS", "0"))  # how many to read; 0: endless
SCHEMA = pathlib.Path(os.environ.get("SCHEMA", pathlib.Path(__file__).parents[2] / "schemas/event.schema.json"))
DURABLE = "example-python"
FORMATS = Draft202012Validator.FORMAT_CHECKER

schema = Draft202012Validator(json.loads(SCHEMA.read_text("utf-8")), format_checker=FORMATS)
# Ids of handled events. A real one is a table in your database, written in the transaction of what handle does.
seen = set()


def parse(msg):
    """Either content mode: with "ce-" headers, percent-encoded as in HTTP, it is binary mode."""
    event = from_http(HTTPMessage(msg.headers, msg.data), JSONFormat())
    schema.validate(json.loads(JSONFormat().write(event)))
    return event


def handle(event):
    print(event.get_type(), event.get_id(), event.get_data()["job"] or "-", flush=True)


async def main():
    async with await nats.connect(URL) as nc:
        consumer = await nc.jetstream().pull_subscribe("", durable=DURABLE, stream=STREAM)
        read = 0
        while EVENTS == 0 or read < EVENTS:
            try:
                [msg] = await consumer.fetch(1)
            except nats.errors.TimeoutError:  # nothing new
                continue
            event = parse(msg)
            if event.get_id() not in seen:
                handle(event)
                seen.add(event.get_id())
            await msg.ack_sync()
            read += 1


asyncio.run(main())
