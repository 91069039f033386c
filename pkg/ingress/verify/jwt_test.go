package verify_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gembridge/bridge/pkg/ingress/verify"
)

// byRSA signs the good claims under another header.
func byRSA(header string) string {
	return signJWT(rsaPrivate(rsaKey), header, "{"+jwtTimes+jwtEvent+"}")
}

// byHMAC signs with HMAC-SHA256, header and all.
func byHMAC(key []byte, header string) string {
	signed := part(header) + "." + part("{"+jwtTimes+jwtEvent+"}")
	h := hmac.New(sha256.New, key)
	h.Write([]byte(signed))
	return signed + "." + part(string(h.Sum(nil)))
}

func TestJWTForms(t *testing.T) {
	good := goodJWT()
	parts := strings.Split(good, ".")
	public, err := x509.MarshalPKIXPublicKey(&rsaPrivate(rsaKey).PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	asPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})
	stranger := func(header string) string {
		return signJWT(strangersRSA(), header, "{"+jwtTimes+jwtEvent+"}")
	}
	for name, tc := range map[string]struct {
		jwt  string
		want verify.Reason
	}{
		"good":                            {good, ""},
		"header in another order":         {byRSA(`{ "typ":"JWT","kid" : "rsa-2048-kid1", "alg": "RS256"}`), ""},
		"header with x5t":                 {byRSA(`{"alg":"RS256","kid":"rsa-2048-kid1","x5t":"x","cty":"json"}`), ""},
		"the other key under its own kid": {signJWT(rsaPrivate(rsaLarge), `{"alg":"RS256","kid":"rsa-3072-kid2"}`, "{"+jwtTimes+jwtEvent+"}"), ""},

		"none":                     {part(`{"alg":"none","kid":"rsa-2048-kid1"}`) + "." + parts[1] + ".", verify.JWTAlgorithm},
		"None":                     {part(`{"alg":"None","kid":"rsa-2048-kid1"}`) + "." + parts[1] + ".", verify.JWTAlgorithm},
		"none, with the signature": {part(`{"alg":"none","kid":"rsa-2048-kid1"}`) + "." + parts[1] + "." + parts[2], verify.JWTAlgorithm},
		"no signature":             {parts[0] + "." + parts[1] + ".", verify.SignatureMismatch},
		"HS256 with the PEM":       {byHMAC(asPEM, `{"alg":"HS256","kid":"rsa-2048-kid1"}`), verify.JWTAlgorithm},
		"HS256 with the DER":       {byHMAC(public, `{"alg":"HS256","kid":"rsa-2048-kid1"}`), verify.JWTAlgorithm},
		"HS256 with nothing":       {byHMAC(nil, `{"alg":"HS256","kid":"rsa-2048-kid1"}`), verify.JWTAlgorithm},
		"HMAC called RS256":        {byHMAC(asPEM, jwtHeader), verify.SignatureMismatch},
		"RS384":                    {byRSA(`{"alg":"RS384","kid":"rsa-2048-kid1"}`), verify.JWTAlgorithm},
		"PS256":                    {byRSA(`{"alg":"PS256","kid":"rsa-2048-kid1"}`), verify.JWTAlgorithm},
		"ES256":                    {byRSA(`{"alg":"ES256","kid":"rsa-2048-kid1"}`), verify.JWTAlgorithm},
		"EdDSA":                    {byRSA(`{"alg":"EdDSA","kid":"ed-published-0001"}`), verify.JWTAlgorithm},
		"rs256":                    {byRSA(`{"alg":"rs256","kid":"rsa-2048-kid1"}`), verify.JWTAlgorithm},
		"alg twice, none last":     {byRSA(`{"alg":"RS256","kid":"rsa-2048-kid1","alg":"none"}`), verify.JWTAlgorithm},
		"alg a list":               {byRSA(`{"alg":["RS256"],"kid":"rsa-2048-kid1"}`), verify.JWTAlgorithm},
		"no alg":                   {byRSA(`{"kid":"rsa-2048-kid1"}`), verify.JWTAlgorithm},
		"ALG":                      {byRSA(`{"ALG":"RS256","kid":"rsa-2048-kid1"}`), verify.JWTAlgorithm},
		"header null":              {byRSA(`null`), verify.JWTAlgorithm},

		"no kid":           {byRSA(`{"alg":"RS256"}`), verify.JWTHeader},
		"empty kid":        {byRSA(`{"alg":"RS256","kid":""}`), verify.JWTHeader},
		"kid a number":     {byRSA(`{"alg":"RS256","kid":1}`), verify.JWTHeader},
		"KID":              {byRSA(`{"alg":"RS256","KID":"rsa-2048-kid1"}`), verify.JWTHeader},
		"crit":             {byRSA(`{"alg":"RS256","kid":"rsa-2048-kid1","crit":["exp"]}`), verify.JWTHeader},
		"crit, empty":      {byRSA(`{"alg":"RS256","kid":"rsa-2048-kid1","crit":[]}`), verify.JWTHeader},
		"crit with b64":    {byRSA(`{"alg":"RS256","kid":"rsa-2048-kid1","b64":false,"crit":["b64"]}`), verify.JWTHeader},
		"jku":              {byRSA(`{"alg":"RS256","kid":"rsa-2048-kid1","jku":"https://evil.example/"}`), verify.JWTHeader},
		"jku, a stranger":  {stranger(`{"alg":"RS256","kid":"mine","jku":"https://evil.example/"}`), verify.JWTHeader},
		"jwk, a stranger":  {stranger(`{"alg":"RS256","kid":"rsa-2048-kid1","jwk":` + string(toJSON(rsaJWK(rsaLarge))) + `}`), verify.JWTHeader},
		"x5u":              {stranger(`{"alg":"RS256","kid":"rsa-2048-kid1","x5u":"https://evil.example/"}`), verify.JWTHeader},
		"x5c":              {stranger(`{"alg":"RS256","kid":"rsa-2048-kid1","x5c":["MII"]}`), verify.JWTHeader},
		"kid unknown":      {byRSA(`{"alg":"RS256","kid":"rsa-2048-kid"}`), verify.KeyUnknown},
		"kid a path":       {byRSA(`{"alg":"RS256","kid":"../../dev/null"}`), verify.KeyUnknown},
		"kid of an OKP":    {byRSA(`{"alg":"RS256","kid":"ed-published-0001"}`), verify.KeyUnknown},
		"another's kid":    {byRSA(`{"alg":"RS256","kid":"rsa-3072-kid2"}`), verify.SignatureMismatch},
		"a stranger's":     {stranger(jwtHeader), verify.SignatureMismatch},
		"other claims":     {parts[0] + "." + part("{"+jwtTimes+strings.Replace(jwtEvent, "succeeded", "failed", 1)+"}") + "." + parts[2], verify.SignatureMismatch},
		"another header":   {part(jwtHeader+" ") + "." + parts[1] + "." + parts[2], verify.SignatureMismatch},
		"a bit of the end": {good[:len(good)-8] + "AAAAAAAA", verify.SignatureMismatch},

		"two parts":             {parts[0] + "." + parts[1], verify.JWTMalformed},
		"four parts":            {good + ".x", verify.JWTMalformed},
		"five parts, a JWE":     {good + ".x.y", verify.JWTMalformed},
		"dots only":             {"..", verify.JWTMalformed},
		"1000 dots":             {strings.Repeat(".", 1000), verify.JWTMalformed},
		"padding":               {good + "=", verify.JWTMalformed},
		"trailing bits":         {trailing(good), verify.JWTMalformed},
		"base64, not base64url": {part(jwtHeader) + "." + parts[1] + ".+/+/", verify.JWTMalformed},
		"header no JSON":        {byRSA(`{`), verify.JWTMalformed},
		"header a list":         {byRSA(`[]`), verify.JWTMalformed},
		"header with a tail":    {byRSA(jwtHeader + "{}"), verify.JWTMalformed},
		"Bearer before":         {"Bearer " + good, verify.NoV1Signature},
		"in a list":             {good + " " + good, verify.NoV1Signature},
		"called v1a":            {"v1a," + good, verify.SignatureMalformed},
		"over 12 KiB":           {good + strings.Repeat("A", 12<<10), verify.SignatureTooLong},
		"line break":            {parts[0] + "." + parts[1] + "\n." + parts[2], verify.SignatureMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			v := newDynamic(t, dynamicAt, pinned(t, allKeys()))
			timestamp := ""
			if tc.want == verify.NoV1Signature || strings.HasPrefix(tc.jwt, "v1a") {
				timestamp = "1769083200"
			}
			wantDynamic(t, v, tokenA, "msg_1", timestamp, tc.jwt, "", tc.want)
		})
	}
}

// trailing changes the bits of the last character that belong to no byte.
func trailing(token string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := strings.IndexByte(alphabet, token[len(token)-1])
	return token[:len(token)-1] + string(alphabet[last|1])
}

func TestClaims(t *testing.T) {
	claims := func(times string) string { return "{" + times + jwtEvent + "}" }
	for name, tc := range map[string]struct {
		claims string
		want   verify.Reason
	}{
		"good":                   {claims(jwtTimes), ""},
		"aud in a list":          {claims(`"aud":["x","my-audience"],"iat":1769083190,"exp":1769083500,`), ""},
		"aud twice in a list":    {claims(`"aud":["my-audience","my-audience"],"exp":1769083500,`), ""},
		"fractions":              {claims(`"aud":"my-audience","iat":1.7690831905e9,"exp":1769083200.5,`), ""},
		"no iat":                 {claims(`"aud":"my-audience","exp":1769083500,`), ""},
		"iat in 300 s":           {claims(`"aud":"my-audience","iat":1769083500,"exp":1769083600,`), ""},
		"nbf in 300 s":           {claims(`"aud":"my-audience","nbf":1769083500,"exp":1769083600,`), ""},
		"24 h 55 min old":        {claims(`"aud":"my-audience","iat":1768993500,"exp":1769083201,`), ""},
		"no iat, 24 h 55 min":    {strings.Replace(claims(`"aud":"my-audience","exp":1769083500,`), "2026-01-22T12:00:00Z", "2026-01-21T11:05:00Z", 1), ""},
		"no iat, in 300 s":       {strings.Replace(claims(`"aud":"my-audience","exp":1769083600,`), "2026-01-22T12:00:00Z", "2026-01-22T12:05:00Z", 1), ""},
		"128 deep":               {claims(jwtTimes + `"x":` + strings.Repeat("[", 127) + strings.Repeat("]", 127) + ","), ""},
		"brackets in strings":    {claims(jwtTimes + `"x":"` + strings.Repeat(`[\"{\\`, 200) + `",`), ""},
		"exp in a far future":    {claims(`"aud":"my-audience","exp":1e300,`), ""},
		"escapes in names":       {strings.Replace(claims(jwtTimes), `"type"`, `"typ\u0065"`, 1), ""},
		"aud with escapes":       {strings.Replace(claims(jwtTimes), `my-audience`, `my\u002daudience`, 1), ""},
		"other claims beside":    {claims(jwtTimes + `"Type":"x","iss":{},"TYPE":1,`), ""},
		"user_metadata":          {claims(jwtTimes + `"user_metadata":{"a":[1]},`), ""},
		"data with anything":     {claims(jwtTimes + `"user_metadata":null,`), ""},
		"version a number":       {strings.Replace(claims(jwtTimes), `"v1"`, `1`, 1), ""}, // authentic, and no event: a dead letter
		"no aud":                 {claims(`"iat":1769083190,"exp":1769083500,`), verify.JWTAudience},
		"aud of another":         {claims(`"aud":"your-audience","exp":1769083500,`), verify.JWTAudience},
		"aud that begins so":     {claims(`"aud":"my-audience2","exp":1769083500,`), verify.JWTAudience},
		"aud in capitals":        {claims(`"aud":"MY-AUDIENCE","exp":1769083500,`), verify.JWTAudience},
		"aud empty":              {claims(`"aud":"","exp":1769083500,`), verify.JWTAudience},
		"aud an empty list":      {claims(`"aud":[],"exp":1769083500,`), verify.JWTAudience},
		"AUD":                    {claims(`"AUD":"my-audience","exp":1769083500,`), verify.JWTAudience},
		"aud null":               {claims(`"aud":null,"exp":1769083500,`), verify.JWTClaims},
		"aud a number":           {claims(`"aud":1,"exp":1769083500,`), verify.JWTClaims},
		"aud an object":          {claims(`"aud":{"my-audience":1},"exp":1769083500,`), verify.JWTClaims},
		"aud a list of mixture":  {claims(`"aud":["my-audience",1],"exp":1769083500,`), verify.JWTClaims},
		"aud a list of lists":    {claims(`"aud":[["my-audience"]],"exp":1769083500,`), verify.JWTClaims},
		"expired":                {claims(`"aud":"my-audience","exp":1769083199,`), verify.JWTExpired},
		"expired this moment":    {claims(`"aud":"my-audience","exp":1769083200,`), verify.JWTExpired},
		"expired long ago":       {claims(`"aud":"my-audience","exp":-1e300,`), verify.JWTExpired},
		"no exp":                 {claims(`"aud":"my-audience",`), verify.JWTClaims},
		"exp a string":           {claims(`"aud":"my-audience","exp":"1769083500",`), verify.JWTClaims},
		"exp null":               {claims(`"aud":"my-audience","exp":null,`), verify.JWTClaims},
		"exp infinite":           {claims(`"aud":"my-audience","exp":1e999,`), verify.JWTClaims},
		"EXP":                    {claims(`"aud":"my-audience","EXP":1769083500,`), verify.JWTClaims},
		"iat in 301 s":           {claims(`"aud":"my-audience","iat":1769083501,"exp":1769083600,`), verify.JWTTooNew},
		"iat in milliseconds":    {claims(`"aud":"my-audience","iat":1769083190000,"exp":1769083600,`), verify.JWTTooNew},
		"nbf in 301 s":           {claims(`"aud":"my-audience","iat":1769083190,"nbf":1769083501,"exp":1769083600,`), verify.JWTTooNew},
		"iat a string":           {claims(`"aud":"my-audience","iat":"1","exp":1769083600,`), verify.JWTClaims},
		"nbf true":               {claims(`"aud":"my-audience","nbf":true,"exp":1769083600,`), verify.JWTClaims},
		"over 24 h 55 min old":   {claims(`"aud":"my-audience","iat":1768993499,"exp":1769083500,`), verify.JWTTooOld},
		"iat of the epoch":       {claims(`"aud":"my-audience","iat":0,"exp":1769083500,`), verify.JWTTooOld},
		"no iat, stale":          {strings.Replace(claims(`"aud":"my-audience","exp":1769083500,`), "2026-01-22T12:00:00Z", "2026-01-21T11:04:59Z", 1), verify.JWTTooOld},
		"no iat, in 301 s":       {strings.Replace(claims(`"aud":"my-audience","exp":1769083600,`), "2026-01-22T12:00:00Z", "2026-01-22T12:05:01Z", 1), verify.JWTTooNew},
		"no iat, in 10 years":    {strings.Replace(claims(`"aud":"my-audience","exp":1e10,`), "2026-01-22", "2036-01-22", 1), verify.JWTTooNew},
		"no iat, no time":        {strings.Replace(claims(`"aud":"my-audience","exp":1769083500,`), `"2026-01-22T12:00:00Z"`, "1769083190", 1), verify.JWTClaims},
		"iat, timestamp no time": {strings.Replace(claims(jwtTimes), `"2026-01-22T12:00:00Z"`, `"yesterday"`, 1), ""},

		"no type":             {strings.Replace(claims(jwtTimes), `"type"`, `"Type"`, 1), verify.JWTClaims},
		"no version":          {strings.Replace(claims(jwtTimes), `"version"`, `"ver"`, 1), verify.JWTClaims},
		"no timestamp":        {strings.Replace(claims(jwtTimes), `"timestamp"`, `"time"`, 1), verify.JWTClaims},
		"no data":             {strings.Replace(claims(jwtTimes), `"data"`, `"Data"`, 1), verify.JWTClaims},
		"an ID token":         {"{" + strings.TrimSuffix(jwtTimes, ",") + `,"iss":"https://accounts.google.com","sub":"1"}`, verify.JWTClaims},
		"type twice":          {claims(jwtTimes + `"type":"batch.failed",`), verify.JWTClaims},
		"exp twice":           {claims(jwtTimes + `"exp":1e10,`), verify.JWTClaims},
		"aud twice":           {claims(jwtTimes + `"aud":"x",`), verify.JWTClaims},
		"type twice, escaped": {claims(jwtTimes + `"\u0074ype":"batch.failed",`), verify.JWTClaims},
		"data.id twice":       {strings.Replace(claims(jwtTimes), `{"id"`, `{"id":"foreign","id"`, 1), verify.JWTClaims},
		"invalid UTF-8":       {claims(jwtTimes + "\"x\":\"\xff\","), verify.JWTClaims},
		"a lone surrogate":    {claims(jwtTimes + `"x":"\ud800",`), verify.JWTClaims},
		"129 deep":            {claims(jwtTimes + `"x":` + strings.Repeat(`[{"a":`, 64) + "1" + strings.Repeat("}]", 64) + ","), verify.JWTClaims},
		"129 deep, in data":   {strings.Replace(claims(jwtTimes), `"data":{`, `"data":{"x":`+strings.Repeat("[", 127)+strings.Repeat("]", 127)+",", 1), verify.JWTClaims},
		"null":                {"null", verify.JWTClaims},
		"a list":              {"[]", verify.JWTClaims},
		"a string":            {`"x"`, verify.JWTClaims},
		"an empty object":     {"{}", verify.JWTClaims},
		"a byte order mark":   {"\ufeff" + claims(jwtTimes), verify.JWTMalformed},
		"two objects":         {claims(jwtTimes) + "{}", verify.JWTMalformed},
		"nothing":             {"", verify.JWTMalformed},
		"no JSON":             {"{'a':1}", verify.JWTMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			v := newDynamic(t, dynamicAt, pinned(t, allKeys()))
			wantDynamic(t, v, tokenA, "msg_1", "", signJWT(rsaPrivate(rsaKey), jwtHeader, tc.claims), "", tc.want)
		})
	}
}

func TestBodyBesideJWT(t *testing.T) {
	claims := `{` + jwtTimes + `"type":"t","version":"v1","timestamp":"2026-01-22T12:00:00Z","data":{"id":"a/b","n":9007199254740993,"m":10.00,"l":[1,{"x":null}]}}`
	jwt := signJWT(rsaPrivate(rsaKey), jwtHeader, claims)
	for name, tc := range map[string]struct {
		body string
		want verify.Reason
	}{
		"empty":                      {"", ""},
		"the claims":                 {claims, ""},
		"an empty object":            {"{}", ""},
		"one member":                 {`{"type":"t"}`, ""},
		"another order, form, space": {` { "data" : {"l":[ 1, {"x":null}],"m":1e1,"n":9007199254740993,"id":"a\/\u0062"},"type":"\u0074"} `, ""},
		"others beside":              {`{"type":"t","x":1,"aud":"y","Type":"u"}`, ""},
		"128 deep":                   {`{"type":"t","x":` + strings.Repeat("[", 127) + strings.Repeat("]", 127) + "}", ""},
		"brackets in strings":        {`{"x":"` + strings.Repeat(`[{\"\\`, 200) + `"}`, ""},
		"129 deep":                   {`{"type":"t","x":` + strings.Repeat("[", 128) + strings.Repeat("]", 128) + "}", verify.BodyDisagrees},
		"129 deep behind a string":   {`{"y":"\\","x":` + strings.Repeat(`[{"a":`, 64) + "1" + strings.Repeat("}]", 64) + "}", verify.BodyDisagrees},
		"10,000 deep":                {`{"data":` + strings.Repeat(`{"b":`, 10_000) + `1` + strings.Repeat(`,"a":"x"}`, 10_000) + `}`, verify.BodyDisagrees},
		"another type":               {`{"type":"u"}`, verify.BodyDisagrees},
		"another version":            {`{"version":"v2"}`, verify.BodyDisagrees},
		"another timestamp":          {`{"timestamp":"2026-01-22T12:00:00.0Z"}`, verify.BodyDisagrees},
		"a foreign job":              {strings.Replace(claims, "a/b", "a/c", 1), verify.BodyDisagrees},
		"data with a member more":    {strings.Replace(claims, `"id"`, `"x":1,"id"`, 1), verify.BodyDisagrees},
		"data with a member less":    {strings.Replace(claims, `"id":"a/b",`, ``, 1), verify.BodyDisagrees},
		"a list in another order":    {strings.Replace(claims, `[1,{"x":null}]`, `[{"x":null},1]`, 1), verify.BodyDisagrees},
		"the next number":            {strings.Replace(claims, "9007199254740993", "9007199254740992", 1), verify.BodyDisagrees},
		"a string for a number":      {strings.Replace(claims, "9007199254740993", `"9007199254740993"`, 1), verify.BodyDisagrees},
		"user_metadata that is none": {`{"user_metadata":null}`, verify.BodyDisagrees},
		"type null":                  {`{"type":null}`, verify.BodyDisagrees},
		"type twice":                 {`{"type":"t","type":"t"}`, verify.BodyDisagrees},
		"type twice, escaped":        {`{"type":"t","typ\u0065":"u"}`, verify.BodyDisagrees},
		"id twice within":            {strings.Replace(claims, `"id":"a/b"`, `"id":"a/b","id":"a/b"`, 1), verify.BodyDisagrees},
		"a list":                     {`[{"type":"t"}]`, verify.BodyDisagrees},
		"null":                       {`null`, verify.BodyDisagrees},
		"a string":                   {`"t"`, verify.BodyDisagrees},
		"blanks":                     {` `, verify.BodyDisagrees},
		"no JSON":                    {`type=t`, verify.BodyDisagrees},
		"two objects":                {`{"type":"t"}{"type":"u"}`, verify.BodyDisagrees},
		"cut off":                    {`{"type":"t"`, verify.BodyDisagrees},
		"cut off, in a name":         {`{"type":"t","ty`, verify.BodyDisagrees},
		"invalid UTF-8":              {"{\"x\":\"\xff\"}", verify.BodyDisagrees},
	} {
		t.Run(name, func(t *testing.T) {
			v := newDynamic(t, dynamicAt, pinned(t, allKeys()))
			delivery := wantDynamic(t, v, tokenA, "msg_1", "1", jwt, tc.body, tc.want)
			if tc.want == "" && string(delivery.Event([]byte(tc.body))) != "{"+strings.TrimPrefix(claims, "{"+jwtTimes) {
				t.Errorf("got event %s", delivery.Event([]byte(tc.body)))
			}
		})
	}
}

// The id is the event's: neither the headers nor what else the token holds makes another one.
func TestJWTID(t *testing.T) {
	v := newDynamic(t, dynamicAt, pinned(t, allKeys()))
	id := func(webhookID, claims string) string {
		t.Helper()
		return wantDynamic(t, v, tokenA, webhookID, "", signJWT(rsaPrivate(rsaKey), jwtHeader, claims), "", "").ID
	}
	event := `"type":"t","version":"v1","timestamp":"2026-01-22T12:00:00Z","data":{"id":"1"}`
	want := id("msg_1", "{"+jwtTimes+event+"}")
	sum := sha256.New()
	for _, raw := range []string{`"t"`, `"v1"`, `"2026-01-22T12:00:00Z"`, `{"id":"1"}`, ""} {
		fmt.Fprintf(sum, "\x00\x00\x00\x00\x00\x00\x00%c%s", len(raw), raw)
	}
	if sum := fmt.Sprintf("jwt_%x", sum.Sum(nil)[:16]); want != sum {
		t.Errorf("got %s, want %s", want, sum)
	}
	for name, got := range map[string]string{
		"another webhook-id": id("msg_2", "{"+jwtTimes+event+"}"),
		"another exp":        id("msg_1", `{"aud":"my-audience","exp":1769083900,`+event+"}"),
		"more claims":        id("msg_1", "{"+jwtTimes+`"jti":"x",`+event+"}"),
		"another order":      id("msg_1", `{"data":{"id":"1"},`+jwtTimes+`"timestamp":"2026-01-22T12:00:00Z","version":"v1","type":"t"}`),
		"white space":        id("msg_1", "{"+jwtTimes+strings.NewReplacer(":", " : ", ",", "\n,\t").Replace(`"type":"t","version":"v1"`)+strings.TrimPrefix(event, `"type":"t","version":"v1"`)+"}"),
		"escapes":            id("msg_1", "{"+jwtTimes+strings.NewReplacer(`"t"`, `"\u0074"`, `"id"`, `"i\u0064"`, `"1"`, `"\u0031"`).Replace(event)+"}"),
	} {
		if got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
	for name, got := range map[string]string{
		"another job":   id("msg_1", "{"+jwtTimes+strings.Replace(event, `"1"`, `"2"`, 1)+"}"),
		"user_metadata": id("msg_1", "{"+jwtTimes+event+`,"user_metadata":{}}`),
		"moved bytes":   id("msg_1", "{"+jwtTimes+strings.Replace(event, `"t"`, `"tt"`, 1)+"}"),
	} {
		if got == want {
			t.Errorf("%s: the id is the same", name)
		}
	}
}

func TestNoAudience(t *testing.T) {
	v, err := verify.New(verify.Config{Tokens: texts(tokenA), JWKS: pinned(t, allKeys()), Now: func() time.Time { return dynamicAt }})
	if err != nil {
		t.Fatal(err)
	}
	empty := signJWT(rsaPrivate(rsaKey), jwtHeader, `{"aud":"","exp":1769083500,`+jwtEvent+"}")
	for _, jwt := range []string{goodJWT(), empty} {
		_, err := opened(t, v).Head(headers("msg_1", "1", jwt))
		wantFailure(t, err, verify.JWTAudience)
	}
	at := "1769083200"
	wantDynamic(t, v, tokenA, "msg_1", at, signV1A(edPrivate(edKey), "msg_1", at, "{}"), "{}", "")
}

// The headers beside a JWT: nobody has signed them, and yet two readers must not see two deliveries.
func TestHeadersBesideJWT(t *testing.T) {
	v := newDynamic(t, dynamicAt, pinned(t, allKeys()))
	for name, tc := range map[string]struct {
		id, timestamp string
		want          verify.Reason
	}{
		"any timestamp":   {"msg_1", "1", ""},
		"no timestamp":    {"msg_1", "", ""},
		"a malformed one": {"msg_1", "+1", verify.TimestampMalformed},
		"no id":           {"", "", verify.IDMalformed},
	} {
		t.Run(name, func(t *testing.T) { wantDynamic(t, v, tokenA, tc.id, tc.timestamp, goodJWT(), "", tc.want) })
	}
	h := headers("msg_1", "1", goodJWT())
	h.Add("webhook-timestamp", "1")
	_, err := opened(t, v).Head(h)
	wantFailure(t, err, verify.HeaderRepeated)
}

// From the first moment that a JWT is accepted to the last is MaxAge at most, and no later time in it makes that longer.
func TestMaxAge(t *testing.T) {
	iat, stamp := fmt.Sprintf(`"iat":%d,`, dynamicAt.Unix()), ""
	for name, tc := range map[string]struct {
		maxAge   time.Duration
		times    string
		from, to time.Duration // since iat
	}{
		"25 h":         {0, iat, -5 * time.Minute, 25*time.Hour - 5*time.Minute},
		"10 min":       {10 * time.Minute, iat, -5 * time.Minute, 5 * time.Minute},
		"9 min":        {9 * time.Minute, iat, -270 * time.Second, 270 * time.Second},
		"2 s":          {2 * time.Second, iat, -time.Second, time.Second},
		"25 h, no iat": {0, stamp, -5 * time.Minute, 25*time.Hour - 5*time.Minute},
		"2 s, no iat":  {2 * time.Second, stamp, -time.Second, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			jwt := signJWT(rsaPrivate(rsaKey), jwtHeader, `{"aud":"my-audience","exp":1e11,`+tc.times+jwtEvent+"}")
			var now time.Time
			v, err := verify.New(verify.Config{
				Tokens: texts(tokenA), JWKS: pinned(t, allKeys()), Audience: myAud, MaxAge: tc.maxAge, Now: func() time.Time { return now },
			})
			if err != nil {
				t.Fatal(err)
			}
			for since, want := range map[time.Duration]verify.Reason{
				tc.from - time.Second: verify.JWTTooNew, tc.from: "", 0: "", tc.to: "", tc.to + time.Second: verify.JWTTooOld,
			} {
				now = dynamicAt.Add(since)
				wantDynamic(t, v, tokenA, "msg_1", "", jwt, "", want)
			}
		})
	}
}

// The whole event stands in a header: a JWT may have 12 KiB, a list 8.
func TestLongJWT(t *testing.T) {
	v := newDynamic(t, dynamicAt, pinned(t, allKeys()))
	of := func(n int) string {
		return signJWT(rsaPrivate(rsaKey), jwtHeader, "{"+jwtTimes+`"user_metadata":{"a":"`+strings.Repeat("x", n)+`"},`+jwtEvent+"}")
	}
	fits := 6000 + (12<<10-len(of(6000)))*3/4
	for _, n := range []int{6000, fits} {
		if delivery := wantDynamic(t, v, tokenA, "msg_1", "", of(n), "", ""); !strings.Contains(string(delivery.Event(nil)), strings.Repeat("x", n)) {
			t.Errorf("%d bytes: the event has not all of them", n)
		}
	}
	wantDynamic(t, v, tokenA, "msg_1", "", of(fits+3), "", verify.SignatureTooLong)
}

// A JWT that has not three parts is refused before its body is read.
func TestJWTPartsAreCountedByTheHead(t *testing.T) {
	v := newDynamic(t, dynamicAt, pinned(t, allKeys()))
	for _, jwt := range []string{"a.b", ".", goodJWT() + ".", goodJWT() + ".x.y"} {
		_, err := opened(t, v).Head(headers("msg_1", "1", jwt))
		wantFailure(t, err, verify.JWTMalformed)
	}
	if _, err := opened(t, v).Head(headers("msg_1", "1", "..")); err != nil {
		t.Errorf("three parts: %v", err)
	}
}
