"""Prints every Gemini event once: its type, its id, its job. Reads Kafka.

The broker remembers, under the name GROUP, the offsets that were committed. An offset is committed after its event was
handled, so one that was under way when this process died comes again. One that does not match the schema ends the
process and stays uncommitted: the bridge publishes no such event.
"""

import json
import os
import pathlib

from cloudevents.core.bindings.kafka import KafkaMessage, from_kafka
from cloudevents.core.formats.json import JSONFormat
from confluent_kafka import Consumer, KafkaException
from jsonschema import Draft202012Validator

BROKERS = os.environ.get("KAFKA_BROKERS", "127.0.0.1:9092")
TOPIC = os.environ.get("KAFKA_TOPIC", "gemini.events")
EVENTS = int(os.environ.get("EVENTS", "0"))  # how many to read; 0: endless
SCHEMA = pathlib.Path(os.environ.get("SCHEMA", pathlib.Path(__file__).parents[2] / "schemas/event.schema.json"))
GROUP = "example-python"
FORMATS = Draft202012Validator.FORMAT_CHECKER

schema = Draft202012Validator(json.loads(SCHEMA.read_text("utf-8")), format_checker=FORMATS)
# Ids of handled events. A real one is a table in your database, written in the transaction of what handle does.
seen = set()


def parse(msg):
    """Either content mode: with "ce_" headers it is binary mode."""
    event = from_kafka(KafkaMessage(dict(msg.headers()), msg.key(), msg.value()), JSONFormat())
    schema.validate(json.loads(JSONFormat().write(event)))
    return event


def handle(event):
    print(event.get_type(), event.get_id(), event.get_data()["job"] or "-", flush=True)


settings = {"group.id": GROUP, "enable.auto.commit": False, "auto.offset.reset": "earliest"}
consumer = Consumer({"bootstrap.servers": BROKERS, **settings})
consumer.subscribe([TOPIC])
try:
    read = 0
    while EVENTS == 0 or read < EVENTS:
        msg = consumer.poll(1)
        if msg is None:  # nothing new
            continue
        if msg.error():
            raise KafkaException(msg.error())
        event = parse(msg)
        if event.get_id() not in seen:
            handle(event)
            seen.add(event.get_id())
        consumer.commit(msg, asynchronous=False)
        read += 1
finally:
    consumer.close()
