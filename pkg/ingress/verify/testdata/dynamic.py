"""The deliveries of dynamic_cases.json, signed by Python's cryptography and PyJWT, as JSON on standard output.

The output is the same at every run. To make dynamic_python.json anew:

    python3 -m venv /tmp/vectors
    /tmp/vectors/bin/pip install -r requirements.txt
    /tmp/vectors/bin/python dynamic.py > dynamic_python.json
"""

import base64
import json
import pathlib

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.algorithms import OKPAlgorithm, RSAAlgorithm

cases = json.loads((pathlib.Path(__file__).parent / "dynamic_cases.json").read_text())


def unbase64url(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


ed25519 = [Ed25519PrivateKey.from_private_bytes(unbase64url(k["d"])) for k in cases["keys"]["ed25519"]]
rsa = [RSAAlgorithm.from_jwk(k) for k in cases["keys"]["rsa"]]


def public(algorithm, key, kid):
    jwk = json.loads(algorithm.to_jwk(key.public_key()))
    return jwk | ({"kid": kid} if kid else {})


jwks = {
    "keys": [public(OKPAlgorithm, k, c["kid"]) for k, c in zip(ed25519, cases["keys"]["ed25519"])]
    + [public(RSAAlgorithm, k, c["kid"]) for k, c in zip(rsa, cases["keys"]["rsa"])]
}


def v1a(case):
    body = case["body"].encode()
    signature = ed25519[case["key"]].sign(f"{case['id']}.{case['timestamp']}.".encode() + body)
    return {
        "name": case["name"],
        "id": case["id"],
        "timestamp": case["timestamp"],
        "body": base64.b64encode(body).decode(),
        "signature": "v1a," + base64.b64encode(signature).decode(),
    }


def token(case):
    kid = cases["keys"]["rsa"][case["key"]]["kid"]
    return {
        "name": case["name"],
        "claims": case["claims"],
        "body": base64.b64encode(case["body"].encode()).decode(),
        "signature": jwt.encode(case["claims"], rsa[case["key"]], "RS256", headers={"kid": kid}),
    }


print(
    json.dumps(
        {
            "signed_by": "cryptography and PyJWT (Python)",
            "jwks": jwks,
            "v1a": [v1a(c) for c in cases["v1a"]],
            "jwt": [token(c) for c in cases["jwt"]],
        },
        indent=1,
    )
)
