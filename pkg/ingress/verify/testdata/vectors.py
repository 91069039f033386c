"""Deliveries signed by Python's standardwebhooks, as JSON on standard output.

The output is the same at every run. To make vectors.json anew:

    python3 -m venv /tmp/vectors
    /tmp/vectors/bin/pip install -r requirements.txt
    /tmp/vectors/bin/python vectors.py > vectors.json
"""

import base64
import json
from datetime import datetime, timezone

from standardwebhooks import Webhook

KEY_24 = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
KEY_32 = base64.b64encode(bytes(range(100, 132))).decode()
KEY_33 = base64.b64encode(bytes(range(33))).decode()
KEY_64 = base64.b64encode(bytes(range(64))).decode()
KEY_65 = base64.b64encode(bytes(range(65))).decode()  # longer than a block of SHA-256

SECRETS = {
    "24 bytes": "whsec_" + KEY_24,
    "24 bytes without prefix": KEY_24,
    "32 bytes padded": "whsec_" + KEY_32,
    "32 bytes unpadded": "whsec_" + KEY_32.rstrip("="),
    "32 bytes unpadded without prefix": KEY_32.rstrip("="),
    "33 bytes": "whsec_" + KEY_33,
    "64 bytes padded": "whsec_" + KEY_64,
    "65 bytes unpadded": "whsec_" + KEY_65.rstrip("="),
}

BODIES = {
    "published": '{"test": 2432232314}',
    "empty": "",
    "event": '{"type":"batch.succeeded","version":"v1","timestamp":"2026-01-22T12:00:00Z",'
    '"data":{"id":"batch_123456","output_file_uri":"gs://my-bucket/results.jsonl"}}',
    "white space": ' \r\n\t{ "type" :\n"batch.failed" }\r\n\n',
    "unicode": '{"t":"gr\u00fc\u00dfe \u4e16\u754c \U0001f680 e\u0301 \u202e"}',
    "escapes": '{"t":"\\u0000\\ud83d\\ude80\\/\\n","n":1e999999,"m":10.00}',
    "control characters": "".join(map(chr, range(32))) + "\x7f\x80\xff\u2028",
    "not JSON": "a.b.c v1,=",
    "8 KiB": "0123456789abcdef" * 512,
}

IDS = {
    "published": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "uuid": "msg_3f0c9a52-7d1e-4b60-9a35-0e2c7b1f8d44",
    "shortest": "!",
    "dots and punctuation": "a.1614265330.~{}\"\\,;=",
    "longest": "i" * 256,
}

TIMES = [1614265330, 1, 946684800, 4102444800, 2147483648]


def vector(name, secret, msg_id, seconds, body):
    moment = datetime.fromtimestamp(seconds, tz=timezone.utc)
    return {
        "name": name,
        "secret": secret,
        "id": msg_id,
        "timestamp": str(seconds),
        "body": base64.b64encode(body.encode()).decode(),
        "signature": Webhook(secret).sign(msg_id, moment, body),
    }


def vectors():
    default = ("whsec_" + KEY_24, IDS["published"], TIMES[0], BODIES["published"])
    for name, secret in SECRETS.items():
        yield vector("secret: " + name, secret, *default[1:])
    for name, msg_id in IDS.items():
        yield vector("id: " + name, default[0], msg_id, *default[2:])
    for seconds in TIMES:
        yield vector(f"timestamp: {seconds}", *default[:2], seconds, default[3])
    for name, body in BODIES.items():
        yield vector("body: " + name, *default[:3], body)


print(json.dumps({"signed_by": "standardwebhooks (Python)", "vectors": list(vectors())}, indent=1))
