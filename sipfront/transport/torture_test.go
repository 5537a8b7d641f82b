package transport

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"hereis/messages"
)

// recordFlow is a flow that keeps what is sent.
type recordFlow struct {
	remote netip.AddrPort
	sent   [][]byte
}

func (f *recordFlow) ID() *messages.FlowID   { return &messages.FlowID{Counter: 1} }
func (f *recordFlow) Transport() string      { return "udp" }
func (f *recordFlow) Reliable() bool         { return false }
func (f *recordFlow) Local() netip.AddrPort  { return netip.MustParseAddrPort("192.0.2.100:5060") }
func (f *recordFlow) Remote() netip.AddrPort { return f.remote }
func (f *recordFlow) Send(b []byte) error {
	f.sent = append(f.sent, bytes.Clone(b))
	return nil
}

// idleTransport has no sockets; its handler is h.
func idleTransport(t testing.TB, h Handler) *Transport {
	t.Helper()
	cfg := DefaultConfig()
	cfg.UDP = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}
	tr, err := New(cfg, h, func(bool) *messages.FlowID { return &messages.FlowID{} }, discard())
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// receiveRaw sends raw through guard, parser and validation; it returns the
// message that reached the handler, or the answer that was sent instead.
func receiveRaw(t testing.TB, raw []byte) (*Message, string) {
	t.Helper()
	var got *Message
	tr := idleTransport(t, func(m *Message) { got = m })
	flow := &recordFlow{remote: netip.MustParseAddrPort("192.0.2.200:40000")}
	tr.receive(&Message{Raw: raw, Flow: flow, Reply: flow})
	if len(flow.sent) == 0 {
		return got, ""
	}
	return got, string(flow.sent[0])
}

// outcome is what the transport does with a message: "METHOD" or "status" when it
// goes up, "->status" when it is answered here, "dropped".
func outcome(t *testing.T, raw []byte) string {
	t.Helper()
	m, answer := receiveRaw(t, raw)
	switch {
	case m != nil && m.Head().Method != "":
		return m.Head().Method
	case m != nil:
		return fmt.Sprint(m.Head().Status)
	case answer != "":
		return "->" + strings.Fields(answer)[1]
	}
	return "dropped"
}

// What goes up in spite of a flaw is the core's to answer: bext01 420, unkscm
// and novelsc 416, zeromf 483, bcast (a Via that is not ours) to drop.
func TestRFC4475_3(t *testing.T) {
	want := map[string]string{
		// 3.1.1 valid
		"wsinv": "INVITE", "intmeth": "!interesting-Method0123456789_*+`.%indeed'~", "esc01": "INVITE",
		"escnull": "REGISTER", "esc02": "RE%47IST%45R", "lwsdisp": "OPTIONS", "longreq": "INVITE",
		"dblreq": "REGISTER", "semiuri": "OPTIONS", "transports": "OPTIONS", "mpart01": "MESSAGE",
		"unreason": "200", "noreason": "100",
		// 3.1.2 invalid
		"badinv01": "->400", "clerr": "->400", "ncl": "->400", "scalar02": "->400", "scalarlg": "dropped",
		"quotbal": "->400", "ltgtruri": "->400", "lwsruri": "->400", "lwsstart": "->400", "trws": "->400",
		"escruri": "->400", "baddate": "INVITE", "regbadct": "->400", "badaspec": "->400", "baddn": "->400",
		"badvers": "->505", "mismatch01": "->400", "mismatch02": "->400", "bigcode": "dropped",
		// 3.2 and 3.3
		"badbranch": "OPTIONS", "insuf": "->400", "unkscm": "OPTIONS", "novelsc": "OPTIONS", "unksm2": "REGISTER",
		"bext01": "OPTIONS", "invut": "INVITE", "regaut01": "REGISTER", "multi01": "->400", "mcl01": "->400",
		"bcast": "200", "zeromf": "OPTIONS", "cparam01": "REGISTER", "cparam02": "REGISTER",
		"regescrt": "REGISTER", "sdp01": "INVITE",
		// 3.4
		"inv2543": "INVITE",
	}
	checkOutcomes(t, "testdata/torture", want)
}

func TestRFC5118_4(t *testing.T) {
	checkOutcomes(t, "testdata/torture5118", map[string]string{
		"01-ipv6-good": "REGISTER", "02-ipv6-bad": "->400", "03-port-ambiguous": "REGISTER",
		"04-port-unambiguous": "REGISTER", "05-via-received-param-with-delim": "BYE",
		"06-via-received-param-no-delim": "OPTIONS", "07-ipv6-in-sdp": "INVITE", "08-mult-ip-in-header": "BYE",
		"09-mult-ip-in-sdp": "INVITE", "10-ipv4-mapped-ipv6": "INVITE", "11-ipv6-bug-abnf-3-colons": "OPTIONS",
		"12-ipv6-correct-abnf-2-colons": "OPTIONS",
	})
}

func checkOutcomes(t *testing.T, dir string, want map[string]string) {
	files, err := filepath.Glob(filepath.Join(dir, "*.dat"))
	if err != nil || len(files) != len(want) {
		t.Fatalf("got %d files (%v), want %d", len(files), err, len(want))
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".dat")
		t.Run(name, func(t *testing.T) {
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if got := outcome(t, raw); got != want[name] {
				t.Errorf("got %q, want %q", got, want[name])
			}
			checkStable(t, raw)
		})
	}
}

// stableParser is made once: its table of names costs more than a message.
var stableParser = sync.OnceValue(func() *Parser {
	return NewParser(Limits{Datagram: 1 << 16, HeaderLine: 1 << 16, Headers: 1 << 10, Params: 1 << 10})
})

// checkStable: what the parser makes of a message, written out, means the same
// to the parser again.
func checkStable(t testing.TB, raw []byte) {
	t.Helper()
	// Spelt in full a message may pass a limit that it kept when it came.
	p := stableParser()
	text := func(raw []byte) (string, error) {
		req, res, err := p.Parse(raw)
		switch {
		case err != nil:
			return "", err
		case req != nil:
			return req.String(), nil
		}
		return res.String(), nil
	}
	once, err := text(raw)
	if err != nil {
		return
	}
	twice, err := text([]byte(once))
	if err != nil {
		t.Fatalf("own output refused: %v\n%q", err, once)
	}
	if twice != once {
		t.Fatalf("not stable:\n%q\n%q", once, twice)
	}
}

func TestRFC4475_3_1_1_1_WsinvMeansWhatItSays(t *testing.T) {
	raw, err := os.ReadFile("testdata/torture/wsinv.dat")
	if err != nil {
		t.Fatal(err)
	}
	req, _, err := NewParser(DefaultLimits()).Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	tag, _ := req.To().Params.Get("tag")
	from, _ := req.From().Params.Get("tag")
	var vias, routes []string
	for _, h := range req.GetHeaders("via") {
		vias = append(vias, h.Value())
	}
	for _, h := range req.GetHeaders("route") {
		routes = append(routes, h.Value())
	}
	got := fmt.Sprint(tag, " ", from, " ", req.MaxForwards().Val(), " ", req.Contact().Value(), "\n", strings.Join(vias, "\n"), "\n", strings.Join(routes, "\n"))
	want := `1918181833n 98asjd8 68 "Quoted string \"\"" <sip:jdrosen@example.com>;newparam=newvalue;secondparam;q=0.33
SIP/2.0/UDP 192.0.2.2;branch=390skdjuw
SIP/2.0/TCP spindle.example.com;branch=z9hG4bK9ikj8
SIP/2.0/UDP 192.168.255.111;branch=z9hG4bK30239
<sip:services.example.com;lr;unknownwith=value;unknown-no-value>`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
