package sipfront

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"

	"hereis/sipfront/transport"
)

// What the transport lets through of RFC 4475 and RFC 5118, the core reads,
// and answers or passes on: nothing is left without an answer but an ACK.
func TestRFC4475_WhatIsLetThroughIsAnswered(t *testing.T) {
	files, err := filepath.Glob("transport/testdata/torture*/*.dat")
	if err != nil || len(files) < 40 {
		t.Fatal(len(files), err)
	}
	want := map[string]string{
		"bext01.dat": "SIP/2.0 420 Bad Extension", "novelsc.dat": "SIP/2.0 416 Unsupported URI Scheme",
		"unkscm.dat": "SIP/2.0 416 Unsupported URI Scheme", "unksm2.dat": "SIP/2.0 400 Bad URI",
		"zeromf.dat": "SIP/2.0 200 OK", "cparam01.dat": "SIP/2.0 200 OK", "cparam02.dat": "SIP/2.0 200 OK",
		"regescrt.dat": "SIP/2.0 200 OK", "escnull.dat": "SIP/2.0 200 OK", "wsinv.dat": "SIP/2.0 403 Domain Not Served",
	}
	p := transport.NewParser(transport.DefaultLimits())
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		req, _, err := p.Parse(raw)
		if err != nil || req == nil {
			continue
		}
		t.Run(filepath.Base(file), func(t *testing.T) {
			alone(t, func(t *testing.T, m *mesh, n *rig) {
				flow := n.net.flow(netip.MustParseAddrPort(alice))
				if _, err := parseRequest(&transport.Message{Raw: raw, Flow: flow}); err != nil {
					t.Errorf("the transport takes it, the core says %v", err)
				}
				n.layer.Receive(&transport.Message{Request: req, Raw: raw, Flow: flow, At: time.Now()})
				got := m.got(alice)
				if got == "" && req.Method != sip.ACK && req.Method != sip.CANCEL {
					t.Error("no answer")
				}
				if w, ok := want[filepath.Base(file)]; ok && got != w {
					t.Errorf("got %q, want %q", got, w)
				}
			})
		})
	}
}
