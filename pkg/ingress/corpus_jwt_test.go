package ingress_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"strings"
)

func jwtRules() []rule {
	raw := base64.RawURLEncoding.EncodeToString
	good := google().jwt(goodHeader, goodClaims)
	parts := strings.Split(good, ".")
	public, err := x509.MarshalPKIXPublicKey(&google().rsa.PublicKey)
	if err != nil {
		panic(err)
	}
	hmacBy := func(key []byte, header string) string {
		signed := raw([]byte(header)) + "." + parts[1]
		h := hmac.New(sha256.New, key)
		h.Write([]byte(signed))
		return signed + "." + raw(h.Sum(nil))
	}
	asPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})
	header := func(name, header string) attack {
		return attack{name: name, draft: asJWT("", draft{signature: google().jwt(header, goodClaims)})}
	}
	mine := func(name, header string) attack {
		return attack{name: name, draft: asJWT("", draft{signature: stranger().jwt(header, goodClaims)})}
	}
	token := func(name, token string) attack { return attack{name: name, draft: asJWT("", draft{signature: token})} }
	claims := func(name, claims string) attack { return attack{name: name, draft: asJWT(claims, draft{})} }
	change := func(name, old, new string) attack {
		changed := strings.Replace(goodClaims, old, new, 1)
		if changed == goodClaims {
			panic(name + " changes nothing")
		}
		return claims(name, changed)
	}
	body := func(name, body string) attack { return attack{name: name, draft: asJWT(goodClaims, draft{body: body})} }
	as := func(header string) string { return raw([]byte(header)) + "." + parts[1] + "." }
	genuine := of(asJWT(goodClaims, draft{}))

	return []rule{
		{"JWT, the algorithm", genuine, []attack{
			token("none", as(`{"alg":"none","kid":"rsa-key"}`)),
			token("None", as(`{"alg":"None","kid":"rsa-key"}`)),
			token("nOnE", as(`{"alg":"nOnE","kid":"rsa-key"}`)),
			token("none without kid", as(`{"alg":"none"}`)),
			token("none with the good signature", as(`{"alg":"none","kid":"rsa-key"}`)+parts[2]),
			token("HS256 with the PEM", hmacBy(asPEM, `{"alg":"HS256","kid":"rsa-key"}`)),
			token("HS256 with the DER", hmacBy(public, `{"alg":"HS256","kid":"rsa-key"}`)),
			token("HS256 with the modulus", hmacBy(google().rsa.N.Bytes(), `{"alg":"HS256","kid":"rsa-key"}`)),
			token("HS256 with nothing", hmacBy(nil, `{"alg":"HS256","kid":"rsa-key"}`)),
			token("HS256 with the kid of the Ed25519 key", hmacBy([]byte(google().ed[32:]), `{"alg":"HS256","kid":"ed-key"}`)),
			token("an HMAC called RS256", hmacBy(asPEM, goodHeader)),
			header("RS512", `{"alg":"RS512","kid":"rsa-key"}`),
			header("PS256", `{"alg":"PS256","kid":"rsa-key"}`),
			header("ES256", `{"alg":"ES256","kid":"rsa-key"}`),
			header("EdDSA", `{"alg":"EdDSA","kid":"ed-key"}`),
			header("rs256", `{"alg":"rs256","kid":"rsa-key"}`),
			header("none behind RS256", `{"alg":"RS256","kid":"rsa-key","alg":"none"}`),
			header("a list", `{"alg":["RS256"],"kid":"rsa-key"}`),
			header("absent", `{"kid":"rsa-key"}`),
		}},
		{"JWT, the key", genuine, []attack{
			mine("by a stranger", goodHeader),
			mine("jwk", `{"alg":"RS256","kid":"rsa-key","jwk":{"kty":"RSA","n":"`+raw(stranger().rsa.N.Bytes())+`","e":"AQAB"}}`),
			mine("jku", `{"alg":"RS256","kid":"mine","jku":"https://evil.example/jwks.json"}`),
			mine("jku to loopback", `{"alg":"RS256","kid":"mine","jku":"http://127.0.0.1:1/jwks.json"}`),
			mine("x5u", `{"alg":"RS256","kid":"mine","x5u":"https://evil.example/cert.pem"}`),
			mine("x5c", `{"alg":"RS256","kid":"rsa-key","x5c":["`+base64.StdEncoding.EncodeToString(public)+`"]}`),
			mine("unknown kid", `{"alg":"RS256","kid":"mine"}`),
			mine("kid of the Ed25519 key", `{"alg":"RS256","kid":"ed-key"}`),
			mine("kid as a path", `{"alg":"RS256","kid":"../../../dev/null"}`),
			mine("kid as SQL", `{"alg":"RS256","kid":"' OR 1=1 --"}`),
			mine("no kid", `{"alg":"RS256"}`),
			header("no kid, by Google", `{"alg":"RS256"}`),
			header("kid null, by Google", `{"alg":"RS256","kid":null}`),
			header("crit, by Google", `{"alg":"RS256","kid":"rsa-key","crit":["exp"],"exp":1}`),
			header("crit b64, by Google", `{"alg":"RS256","kid":"rsa-key","crit":["b64"],"b64":false}`),
			header("crit of another type, by Google", `{"alg":"RS256","kid":"rsa-key","crit":true}`),
			header("jku, by Google", `{"alg":"RS256","kid":"rsa-key","jku":"https://evil.example/"}`),
		}},
		{"JWT, the form", genuine, []attack{
			token("no signature", parts[0]+"."+parts[1]+"."),
			token("two parts", parts[0]+"."+parts[1]),
			token("four parts", good+"."+parts[2]),
			token("five parts", good+".."),
			token("4,000 dots", strings.Repeat(".", 4000)),
			token("padding", good+"=="),
			token("base64", strings.NewReplacer("-", "+", "_", "/").Replace(good)+"/"),
			token("other claims under the signature", parts[0]+"."+raw([]byte(strings.Replace(goodClaims, "batches/1", "batches/9", 1)))+"."+parts[2]),
			token("another header under the signature", raw([]byte(`{"kid":"rsa-key","alg":"RS256"}`))+"."+parts[1]+"."+parts[2]),
			token("as an entry of v1", "v1,"+good),
			token("as an entry of v1a", "v1a,"+good),
			token("Bearer", "Bearer "+good),
			token("twice", good+" "+good),
			token("nested", google().jwt(goodHeader, `"`+good+`"`)),
			token("header null", google().jwt("null", goodClaims)),
			token("header cut off", google().jwt(`{"alg":"RS256"`, goodClaims)),
			token("over 12 KiB", good+strings.Repeat("A", 12<<10)),
			token("in a list over 8 KiB", good+" v2,"+strings.Repeat("A", 8<<10)),
			{name: "in JSON form", draft: asJWT("", draft{signature: `{"payload":"` + parts[1] + `","protected":"` + parts[0] + `","signature":"` + parts[2] + `"}`})},
			{name: "in the body", draft: draft{target: dynamic, signature: "-", body: good}},
			{name: "in Authorization", draft: draft{target: dynamic, signature: "-", lines: []string{"Authorization: Bearer " + good}, body: known}},
			{name: "at the path without a token", draft: asJWT(goodClaims, draft{target: path})},
			{name: "with a wrong token", draft: asJWT(goodClaims, draft{target: dynamic + "x"})},
			{name: "in two lines", draft: asJWT(goodClaims, draft{lines: []string{"webhook-signature: " + good}})},
			{name: "two timestamps", draft: asJWT(goodClaims, draft{timestamp: nowText, lines: []string{"webhook-timestamp: " + nowText}})},
			{name: "no id", draft: asJWT(goodClaims, draft{id: "-"})},
		}},
		{"JWT, the audience", claims("", strings.Replace(goodClaims, `"an-audience"`, `["x","an-audience"]`, 1)), []attack{
			change("of another", audience, "another"),
			change("that begins so", audience, audience+"2"),
			change("in capitals", audience, "AN-AUDIENCE"),
			change("absent", `"aud":"an-audience",`, ""),
			change("empty", `"an-audience"`, `""`),
			change("an empty list", `"an-audience"`, `[]`),
			change("null", `"an-audience"`, `null`),
			change("a list of others", `"an-audience"`, `["another","x"]`),
			change("a list of lists", `"an-audience"`, `[["an-audience"]]`),
			change("an object", `"an-audience"`, `{"an-audience":true}`),
			change("AUD", `"aud"`, `"AUD"`),
			change("twice", `"aud":`, `"aud":"another","aud":`),
		}},
		{"JWT, the times", claims("", strings.Replace(goodClaims, "1769083190", "1769083500", 1)), []attack{
			change("expired", "1769083500", "1769083199"),
			change("expired this second", "1769083500", "1769083200"),
			change("no exp", `,"exp":1769083500`, ""),
			change("exp null", "1769083500", "null"),
			change("exp a string", "1769083500", `"1769083500"`),
			change("exp infinite", "1769083500", "1e999"),
			change("EXP", `"exp"`, `"EXP"`),
			change("exp twice", `"exp":`, `"exp":99999999999,"exp":`),
			change("iat in 301 s", "1769083190", "1769083501"),
			change("iat 26 h ago, exp to come: a replay", "1769083190", "1768989600"),
			change("iat of the epoch", "1769083190", "0"),
			change("iat a string", "1769083190", `"x"`),
			change("nbf in 301 s", `"iat"`, `"nbf":1769083501,"iat"`),
			claims("no iat, an old timestamp", strings.Replace(strings.Replace(goodClaims, `"iat":1769083190,`, "", 1), "2026-01-22T12", "2026-01-20T12", 1)),
			claims("no iat, no time", strings.Replace(strings.Replace(goodClaims, `"iat":1769083190,`, "", 1), "2026-01-22T12:00:00Z", "now", 1)),
		}},
		{"JWT, the claims", claims("", strings.Replace(goodClaims, `"type"`, `"Type":1,"type"`, 1)), []attack{
			change("no type", `"type"`, `"kind"`),
			change("no version", `"version"`, `"Version"`),
			change("no timestamp", `"timestamp"`, `"time"`),
			change("no data", `"data"`, `"payload"`),
			claims("an ID token", `{"iss":"https://accounts.google.com",`+goodTimes+`"sub":"1"}`),
			change("type twice", `"type":`, `"type":"batch.failed","type":`),
			change("type twice, escaped", `"type":`, `"\u0074ype":"batch.failed","type":`),
			change("data twice", `"data":`, `"data":{"id":"batches/9"},"data":`),
			change("data.id twice: a foreign job", `{"id":`, `{"id":"batches/9","id":`),
			change("invalid UTF-8", `batches/1`, "batches/\xff"),
			change("a lone surrogate", `batches/1`, `\ud800`),
			claims("null", "null"),
			claims("a list", "["+goodClaims+"]"),
			claims("a string", `"x"`),
			claims("two objects", goodClaims+goodClaims),
			claims("a form", "type=batch.succeeded&exp=1769083500"),
			claims("nothing", ""),
			change("a comment", "{", "{/**/"),
			change("a trailing comma", `"batches/1"}}`, `"batches/1"},}`),
		}},
		{"JWT, the body", of(asJWT(goodClaims, draft{body: ` {"data":{"id":"batches\/1"},"other":1} `})), []attack{
			body("another type", `{"type":"batch.failed"}`),
			body("another version", `{"version":"v2"}`),
			body("another timestamp", `{"timestamp":"2026-01-22T12:00:01Z"}`),
			body("a foreign job", strings.Replace(known, "batches/1", "batches/9", 1)),
			body("a member more in data", strings.Replace(known, `{"id"`, `{"x":1,"id"`, 1)),
			body("data null", `{"data":null}`),
			body("user_metadata", `{"user_metadata":{"tenant":"mine"}}`),
			body("type twice", `{"type":"batch.succeeded","type":"batch.succeeded"}`),
			body("a list", "["+known+"]"),
			body("a string", `"batch.succeeded"`),
			body("null", "null"),
			body("no JSON", "batch.succeeded"),
			body("two objects", known+known),
			body("blanks", " \n"),
			body("cut off", known[:40]),
			body("a byte order mark", "\ufeff"+known),
		}},
	}
}
