package sipfront

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"

	"hereis/sipfront/transport"
)

// Two parts read a message: the transport's parser, by whose reading
// transactions are matched, and the core, by whose reading it is routed and
// authenticated. Where they read two messages, a peer could show a different
// one to each.
func FuzzParsersAgree(f *testing.F) {
	for _, raw := range tortureMessages(f) {
		f.Add(raw)
	}
	f.Add([]byte("BYE sip:a@b SIP/2.0\r\nv:SIP/2.0/UDP h;branch=z9hG4bK1,SIP/2.0/UDP g\r\nf:a <sip:a@b>;TAG=x\r\nt:<sip:a@b> ; tag = y\r\ni:1\r\nCSeq: 1\t BYE\r\n\r\n"))
	f.Add([]byte("sip/2.0 100\r\nV:SIP/2.0/0 0\r\nCAll-ID:0\r\nCSeq:0 0\r\nF:A:0\r\nt:<A:0>\r\n\r\n"))
	p := transport.NewParser(transport.DefaultLimits())
	f.Fuzz(func(t *testing.T, raw []byte) { parsersAgree(t, p, raw) })
}

func TestParsersAgree(t *testing.T) {
	corpus := tortureMessages(t)
	p := transport.NewParser(transport.DefaultLimits())
	r := rand.New(rand.NewPCG(3261, 4475))
	pieces := []string{"\x00", "\r", "\n", " ", "\t", ";", ",", "<", ">", "\"", "\\", "=", ":", "@", "?", ";tag=z", "\r\n x", ", <sip:y>", "\r\nVia: SIP/2.0/UDP q;branch=z9hG4bKq", "\r\nl: 0", "\r\nt: <sip:t@t>;tag=t"}
	for range 20_000 {
		b := bytes.Clone(corpus[r.IntN(len(corpus))])
		for range 1 + r.IntN(3) {
			at := r.IntN(len(b))
			piece := pieces[r.IntN(len(pieces))]
			switch r.IntN(3) {
			case 0:
				b = append(b[:at:at], append([]byte(piece), b[at:]...)...)
			case 1:
				b[at] = piece[0]
			case 2:
				b = append(b[:at:at], b[min(len(b), at+1+r.IntN(4)):]...)
			}
			if len(b) == 0 {
				b = []byte("\r\n")
			}
		}
		parsersAgree(t, p, b)
	}
}

func tortureMessages(t testing.TB) (all [][]byte) {
	files, err := filepath.Glob("transport/testdata/torture*/*.dat")
	if err != nil || len(files) < 40 {
		t.Fatal(len(files), err)
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, raw)
	}
	return all
}

func parsersAgree(t *testing.T, p *transport.Parser, raw []byte) {
	t.Helper()
	raw = bytes.TrimLeft(raw, "\r\n") // as the sockets do
	req, res, err := p.Parse(raw)
	if err != nil {
		return
	}
	if res != nil {
		r, next, err := readReply(string(raw))
		if err != nil {
			t.Fatalf("%q: an answer to one, %v to the other", raw, err)
		}
		if r.status != res.StatusCode {
			t.Fatalf("%q: status %d and %d", raw, res.StatusCode, r.status)
		}
		if vias := res.GetHeaders("via"); (len(vias) > 1) != (next != "") {
			t.Fatalf("%q: %d Vias, the next is %q", raw, len(vias), next)
		}
		return
	}
	r, err := parseRequest(&transport.Message{Raw: raw, Flow: &memFlow{network: "udp", remote: netip.MustParseAddrPort(alice)}})
	if r == nil || err != nil && err != errURI {
		t.Fatalf("%q: a request to one, %v to the other", raw, err)
	}
	same := func(what, a, b string) {
		t.Helper()
		if a != b {
			t.Fatalf("%q: %s is %q to the transactions, %q to the core", raw, what, a, b)
		}
	}
	tag := func(ps sip.HeaderParams) string {
		v, _ := ps.Get("tag")
		return strings.Trim(v, `"`)
	}
	same("method", string(req.Method), r.method)
	same("Call-ID", req.CallID().Value(), r.callID)
	same("From tag", tag(req.From().Params), strings.Trim(r.fromTag, `"`))
	same("To tag", tag(req.To().Params), strings.Trim(r.toTag, `"`))
	if got := len(req.GetHeaders("via")); got != len(r.vias) {
		t.Fatalf("%q: %d and %d Vias", raw, got, len(r.vias))
	}
	if got := len(req.GetHeaders("route")); got != len(r.routes) {
		t.Fatalf("%q: %d and %d Routes", raw, got, len(r.routes))
	}
	if req.CSeq().SeqNo != r.cseq {
		t.Fatalf("%q: CSeq %d and %d", raw, req.CSeq().SeqNo, r.cseq)
	}
	v, err := parseVia(r.vias[0])
	if err != nil {
		t.Fatalf("%q: top Via %q: %v", raw, r.vias[0], err)
	}
	branch, _ := req.Via().Params.Get("branch")
	ours, _ := param(v.params, "branch")
	same("branch", strings.Trim(branch, `"`), ours)
	same("sent-by", strings.Trim(strings.ToLower(req.Via().Host), "[]"), v.host)
	if len(req.Body()) != len(r.body) {
		t.Fatalf("%q: body of %d and %d bytes", raw, len(req.Body()), len(r.body))
	}
}

// A device that answers with anything at all hurts nobody else: the caller
// hears what the other device says, or that nobody answers in time.
func TestHostileDevice(t *testing.T) {
	p := transport.NewParser(transport.DefaultLimits())
	r := rand.New(rand.NewPCG(17, 6))
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.bobAt(here(phone1, 1000), here(phone2, 1000))
		taken := 0
		for i := range 10 {
			id := "hostile" + strconv.Itoa(i)
			n.recv(alice, invite("INVITE", "sip:bob@example.com", id))
			m.pump()
			for range 8 {
				status := []string{"100", "183", "199", "200", "302", "401", "430", "486", "503", "603", "699"}[r.IntN(11)]
				raw := []byte("SIP/2.0 " + status + " Any\r\n" + n.lastReq[phone1][strings.Index(n.lastReq[phone1], "Via:"):])
				for range r.IntN(3) {
					at := r.IntN(len(raw))
					raw = append(raw[:at:at], raw[min(len(raw), at+r.IntN(12)):]...)
				}
				req, res, err := p.Parse(raw)
				if err != nil || req != nil {
					continue
				}
				taken++
				n.layer.Receive(&transport.Message{Response: res, Raw: raw, Flow: n.net.flow(netip.MustParseAddrPort(phone1))})
			}
			n.answer(phone2, "486", "")
			time.Sleep(240 * time.Second) // a device may ring until Timer C, and be cancelled then
			got := m.got(alice)
			if !strings.Contains(got, "SIP/2.0 2") && !strings.Contains(got, "SIP/2.0 3") && !strings.Contains(got, "SIP/2.0 4") &&
				!strings.Contains(got, "SIP/2.0 5") && !strings.Contains(got, "SIP/2.0 6") {
				t.Fatalf("call %d had no final answer:\n%s", i, got)
			}
			m.inbox = map[string][]string{}
		}
		if taken < 25 {
			t.Errorf("only %d answers were well-formed enough to matter", taken)
		}
		m.nobodyElse(phone1, phone2)
	})
}
