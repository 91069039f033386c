// The deliveries of dynamic_cases.json, signed by Node's crypto and by jose, as JSON on standard output.
//
// The output is the same at every run. To make dynamic_javascript.json anew:
//
//     npm install --prefix /tmp/vectors jose@6.2.18
//     cp dynamic.mjs dynamic_cases.json /tmp/vectors && node /tmp/vectors/dynamic.mjs > dynamic_javascript.json

import { createPrivateKey, createPublicKey, sign } from "node:crypto";
import { readFileSync } from "node:fs";
import { exportJWK, importJWK, SignJWT } from "jose";

const cases = JSON.parse(readFileSync(new URL("dynamic_cases.json", import.meta.url)));

// A seed becomes a private key by the PKCS #8 prefix of RFC 8410.
const prefix = Buffer.from("302e020100300506032b657004220420", "hex");
const ed25519 = cases.keys.ed25519.map((k) =>
  createPrivateKey({ key: Buffer.concat([prefix, Buffer.from(k.d, "base64url")]), format: "der", type: "pkcs8" }),
);
const rsa = await Promise.all(cases.keys.rsa.map((k) => importJWK(k, "RS256", { extractable: true })));

const keys = [];
for (const [i, k] of ed25519.entries()) {
  const { kid } = cases.keys.ed25519[i];
  keys.push({ ...(await exportJWK(createPublicKey(k))), ...(kid && { kid }), use: "sig", alg: "EdDSA" });
}
for (const { kty, n, e, kid } of cases.keys.rsa) {
  const key = await importJWK({ kty, n, e }, "RS256", { extractable: true });
  keys.push({ ...(await exportJWK(key)), kid, use: "sig", alg: "RS256" });
}

const v1a = cases.v1a.map(({ name, key, id, timestamp, body }) => {
  const signature = sign(null, Buffer.from(`${id}.${timestamp}.${body}`), ed25519[key]);
  const encoded = Buffer.from(body).toString("base64");
  return { name, id, timestamp, body: encoded, signature: "v1a," + signature.toString("base64") };
});

const jwt = await Promise.all(
  cases.jwt.map(async ({ name, key, claims, body }) => ({
    name,
    claims,
    body: Buffer.from(body).toString("base64"),
    signature: await new SignJWT(claims)
      .setProtectedHeader({ alg: "RS256", kid: cases.keys.rsa[key].kid, typ: "JWT" })
      .sign(rsa[key]),
  })),
);

console.log(JSON.stringify({ signed_by: "crypto and jose (JavaScript)", jwks: { keys }, v1a, jwt }, null, 1));
