package ingress_test

import (
	"fmt"
	"strings"
	"testing"
)

// rule is one thing that a delivery must fulfil: a genuine one that does, if only just, and hostile ones that do not.
type rule struct {
	name    string
	genuine attack
	hostile []attack
}

// attack is a request. The genuine ones have the same form.
type attack struct {
	name  string
	draft draft
	raw   string // the request as it is, instead of draft
	code  int    // 401 if 0
}

func of(d draft) attack { return attack{draft: d} }

func (a attack) text() string {
	if a.raw != "" {
		return a.raw
	}
	return a.draft.text()
}

// A corpus of hostile deliveries of all three forms: each is refused and reaches nothing, neither as an event nor as a
// dead letter; and for each rule a genuine delivery beside them is accepted.
func TestHostileDeliveries(t *testing.T) {
	rules := append(append(append(staticRules(), dynamicRules()...), jwtRules()...), wireRules()...)
	total := 0
	for _, rule := range rules {
		t.Run(rule.name, func(t *testing.T) {
			r := newDynamicRig(t).serve(t)
			for _, a := range rule.hostile {
				total++
				got := r.dial(t).send(t, a.text())
				want := a.code
				if want == 0 {
					want = 401
				}
				if got.code != want || want == 401 && got.body != unauthenticated {
					t.Errorf("%s: got %d %q, want %d", a.name, got.code, got.body, want)
				}
				if n := len(r.delivered()); n > 0 {
					t.Fatalf("%s: %d events or dead letters reached the Deliverer", a.name, n)
				}
			}
			if got := r.dial(t).send(t, rule.genuine.text()); got.code != 202 {
				t.Errorf("the genuine delivery: got %d, want 202: %s", got.code, r.log.String())
			}
			if e := r.one(t); e.Dead {
				t.Error("the genuine delivery became a dead letter")
			}
			if text := r.log.String(); strings.Contains(text, capability) {
				t.Error("the log holds a token")
			}
		})
	}
	if total < 150 {
		t.Errorf("%d hostile deliveries, want 150", total)
	}
}

const nowText = "1769083200"

func repeated(n int, entry string) string { return strings.Repeat(entry+" ", n) }

// forms are the ways to write a list of signatures wrong that hold for v1 and v1a. good is a good entry with its
// padding, bad is a well-formed one.
func forms(at func(signature string) draft, version, good, bad, padding string) []attack {
	encoded := good[len(version)+1:]
	bare := strings.TrimRight(encoded, "=")
	url := strings.NewReplacer("+", "-", "/", "_").Replace(encoded)
	if url == encoded {
		url = "-" + encoded[1:]
	}
	var all []attack
	for name, signature := range map[string]string{
		"forged":                     bad,
		"32 forged":                  strings.TrimSpace(repeated(32, bad)),
		"empty":                      "",
		"the version alone":          version + ",",
		"no version":                 encoded,
		"version in capitals":        strings.ToUpper(version) + "," + encoded,
		"version 2":                  "v2," + encoded,
		"colon for the comma":        version + ":" + encoded,
		"33 entries, the first good": good + " " + strings.TrimSpace(repeated(32, bad)),
		"1,000 entries":              repeated(1000, "v2,x") + good,
		"1,000 empty entries":        good + strings.Repeat(" ", 1000) + "v2,x",
		"9 KiB":                      good + " v2," + strings.Repeat("x", 9<<10),
		"base64url":                  version + "," + url,
		"base64 twice padded":        version + "," + bare + padding + "=",
		"base64 cut off":             version + "," + bare[:len(bare)-1],
		"a byte more":                version + "," + bare + "A",
		"bits of no byte":            version + "," + bare[:len(bare)-1] + nextDigit(bare[len(bare)-1]) + padding,
		"padding inside":             version + "," + bare[:10] + "=" + bare[11:],
		"hexadecimal":                version + "," + fmt.Sprintf("%x", encoded),
		"fullwidth letters":          version + ",Ａ" + encoded[1:],
		"comma-separated":            bad + "," + good,
		"two blanks between":         bad + "  " + good,
		"tab between":                bad + "\t" + good,
		"percent-encoded":            strings.ReplaceAll(good, ",", "%2C"),
		"in quotes":                  `"` + good + `"`,
		"zeros":                      version + "," + strings.Repeat("A", len(bare)),
	} {
		all = append(all, attack{name: name, draft: at(signature)})
	}
	return all
}

// nextDigit is a base64 digit with one more bit.
func nextDigit(digit byte) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	return string(alphabet[strings.IndexByte(alphabet, digit)|1])
}

// heads are headers that no delivery may have, of a form whose signature as makes.
func heads(as func(draft) draft) []attack {
	var all []attack
	add := func(name string, d draft) { all = append(all, attack{name: name, draft: as(d)}) }
	for name, timestamp := range map[string]string{
		"301 s old": "1769082899", "301 s ahead": "1769083501", "of the epoch": "0", "milliseconds": "1769083200000", "plus": "+1769083200",
		"leading zero": "01769083200", "negative": "-1769083200", "fraction": "1769083200.0", "exponent": "1.7690832e9", "hexadecimal": "0x69720c00",
		"fullwidth digits": "１７６９０８３２００", "arabic digits": "١٧٦٩٠٨٣٢٠٠", "RFC 3339": "2026-01-22T12:00:00Z", "overflow": "18446744075478634816",
	} {
		add("timestamp: "+name, draft{timestamp: timestamp, body: known})
	}
	for name, id := range map[string]string{
		"257 bytes": strings.Repeat("m", 257), "blank inside": "msg 1", "outside ASCII": "msg_é", "tab": "msg\t1",
	} {
		add("id: "+name, draft{id: id, body: known})
	}
	for _, line := range []string{
		"webhook-id: msg_1", "Webhook-Id: msg_2", "WEBHOOK-TIMESTAMP: " + nowText, "webhook-signature: v1,x", "webhook-signature:",
	} {
		add("repeated "+line, draft{body: known, lines: []string{line}})
	}
	add("no id", draft{id: "-", body: known})
	add("no timestamp", draft{timestamp: "-", body: known})
	add("no signature", draft{signature: "-", body: known})
	return all
}

func staticRules() []rule {
	good := sign("msg_1", nowText, known)
	at := func(signature string) draft { return draft{body: known, signature: orEmpty(signature)} }
	return []rule{
		{"v1, the list", of(draft{body: known, signature: "v2,x v1,x " + strings.TrimSuffix(good, "=") + " v1a,x"}), forms(at, "v1", good, sign("msg_2", nowText, known), "=")},
		{"v1, the headers", of(draft{body: known, timestamp: "1769082900"}), heads(func(d draft) draft { return d })},
		{"v1, what is signed", of(draft{body: known}), []attack{
			{name: "another id", draft: draft{id: "msg_2", body: known, signature: good}},
			{name: "another timestamp", draft: draft{timestamp: "1769083201", body: known, signature: good}},
			{name: "another job", draft: draft{body: strings.Replace(known, "batches/1", "batches/2", 1), signature: good}},
			{name: "a line break more", draft: draft{body: known + "\n", signature: good}},
			{name: "indented", draft: draft{body: strings.Replace(known, ",", ", ", 1), signature: good}},
			{name: "a byte order mark", draft: draft{body: "\ufeff" + known, signature: good}},
			{name: "no body", draft: draft{signature: good}},
			{name: "the timestamp moved into the id", draft: draft{id: "msg_1." + nowText, body: known, signature: good}},
			{name: "the timestamp moved into the body", draft: draft{body: nowText + "." + known, signature: good}},
			{name: "the form of another host", draft: draft{body: known, signature: "sha256=" + good[3:]}},
			{name: "as a parameter", draft: draft{target: path + "?webhook-signature=" + good, body: known, signature: "-"}},
		}},
		{"v1, the path", of(draft{target: path + "?token=" + capability, body: known}), []attack{
			{name: "at the path with a token", draft: draft{target: dynamic, body: known, signature: good}},
			{name: "with a wrong token", draft: draft{target: path + "/wrong", body: known, signature: good}},
			{name: "with an encoded slash", draft: draft{target: path + "%2f", body: known, signature: good}, code: 404},
			{name: "with a slash", draft: draft{target: path + "/", body: known, signature: good}, code: 404},
			{name: "doubled slash", draft: draft{target: "/" + path, body: known, signature: good}, code: 404},
			{name: "dots", draft: draft{target: "/x/.." + path, body: known, signature: good}, code: 404},
			{name: "capitals", draft: draft{target: strings.ToUpper(path), body: known, signature: good}, code: 404},
			{name: "parameters in the path", draft: draft{target: path + ";x", body: known, signature: good}, code: 404},
		}},
	}
}

// orEmpty sends an empty header where a draft would take "" for none given.
func orEmpty(signature string) string { return or(signature, " ") }

func dynamicRules() []rule {
	good := google().v1a("msg_1", nowText, known)
	at := func(signature string) draft {
		return draft{target: dynamic, body: known, signature: orEmpty(signature)}
	}
	mine := stranger().v1a("msg_1", nowText, known)
	with := func(d draft) draft { d.target, d.signature = or(d.target, dynamic), or(d.signature, good); return d }
	return []rule{
		{"v1a, the list", of(at("v2,x v1a,x " + strings.TrimRight(good, "=") + " v1,x")), forms(at, "v1a", good, mine, "==")},
		{"v1a, the headers", of(asV1A(draft{body: known, timestamp: "1769083500"})), heads(asV1A)},
		{"v1a, what is signed", of(asV1A(draft{body: known})), []attack{
			{name: "another id", draft: with(draft{id: "msg_2", body: known})},
			{name: "another timestamp", draft: with(draft{timestamp: "1769083201", body: known})},
			{name: "a foreign job", draft: with(draft{body: strings.Replace(known, "batches/1", "batches/9", 1)})},
			{name: "a line break more", draft: with(draft{body: known + "\r\n"})},
			{name: "no body", draft: with(draft{})},
			{name: "by a stranger", draft: with(draft{body: known, signature: mine})},
			{name: "a stranger's key beside", draft: with(draft{body: known, signature: mine, lines: []string{"jku: https://evil.example/jwks.json"}})},
			{name: "v1 by the secret", draft: with(draft{body: known, signature: sign("msg_1", nowText, known)})},
			{name: "v1 called v1a", draft: with(draft{body: known, signature: "v1a" + sign("msg_1", nowText, known)[2:]})},
		}},
		{"v1a, the token", of(asV1A(draft{body: known})), []attack{
			{name: "none: a foreign customer's delivery", draft: with(draft{target: path, body: known})},
			{name: "wrong", draft: with(draft{target: path + "/capability-token-of-an-operator-0002", body: known})},
			{name: "cut off", draft: with(draft{target: dynamic[:len(dynamic)-1], body: known})},
			{name: "longer", draft: with(draft{target: dynamic + "0", body: known})},
			{name: "in capitals", draft: with(draft{target: path + "/" + strings.ToUpper(capability), body: known})},
			{name: "percent-encoded", draft: with(draft{target: path + "/%63" + capability[1:], body: known})},
			{name: "as a parameter", draft: with(draft{target: path + "?token=" + capability, body: known})},
			{name: "in a header", draft: with(draft{target: path, body: known, lines: []string{"Authorization: Bearer " + capability}})},
			{name: "twice", draft: with(draft{target: dynamic + "/" + capability, body: known}), code: 404},
			{name: "NUL behind", draft: with(draft{target: dynamic + "%00", body: known})},
			{name: "a huge one", draft: with(draft{target: path + "/" + strings.Repeat("a", 8<<10), body: known})},
		}},
	}
}
