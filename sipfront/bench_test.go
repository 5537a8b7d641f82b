package sipfront

import (
	"bytes"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"hereis/sipfront/transport"
)

// A forwarded INVITE: request in, 100 out, copy out; 180 and 200 in and out.
// The layer's own work is part of it, sockets are not.
func BenchmarkForwardInvite(b *testing.B) {
	r := newRig(b)
	r.net.quiet = true
	r.loc.set("sip:bob@example.com", `{"targets":[{"contact":"sip:bob@192.0.2.20:5060","q":1000,"edge":"n1","edgeLive":true,"transport":"udp","local":"192.0.2.1:5060","remote":"192.0.2.20:5060"}],"final":true}`, b)
	text := strings.ReplaceAll(invite("INVITE", "sip:bob@example.com", "CALLID", "User-Agent: x", "Allow: INVITE, ACK, BYE", "Supported: replaces"), "\n", "\r\n")
	p := transport.NewParser(transport.DefaultLimits())
	flow := r.net.flow(netip.MustParseAddrPort(alice))
	out := r.net.flow(netip.MustParseAddrPort("192.0.2.20:5060"))
	sentTo := make(chan []byte, 1)
	out.tap = func(raw []byte) { sentTo <- raw }
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		n++
		receive := func(raw []byte, flow transport.Flow) {
			msg, err := p.Message(raw)
			if err != nil {
				b.Fatal(err)
			}
			msg.Flow, msg.At = flow, time.Now()
			r.layer.Receive(msg)
		}
		receive([]byte(strings.ReplaceAll(text, "CALLID", "b"+strconv.Itoa(n))), flow)
		got := <-sentTo
		for _, status := range []string{"180 Ringing", "200 OK"} {
			receive(answerTo(got, status), out)
		}
	}
	if st := r.srv.Stats(); st.Answers[2] != uint64(n) {
		b.Fatalf("%+v", st)
	}
}

// A call through this node: INVITE, 180, 200, ACK, BYE, 200. The layer's own work
// is part of it, sockets are not, nor what the peers do.
func BenchmarkCall(b *testing.B) {
	r := newRig(b)
	r.net.quiet = true
	r.loc.set("sip:bob@example.com", `{"targets":[{"contact":"sip:bob@192.0.2.20:5060","q":1000,"edge":"n1","edgeLive":true,"transport":"udp","local":"192.0.2.1:5060","remote":"192.0.2.20:5060"}],"final":true}`, b)
	p := transport.NewParser(transport.DefaultLimits())
	in, out := r.net.flow(netip.MustParseAddrPort(alice)), r.net.flow(netip.MustParseAddrPort("192.0.2.20:5060"))
	// The messages of one call, from which those of the others are made by their Call-ID.
	var sent, came []byte
	out.tap = func(raw []byte) { sent = raw }
	in.tap = func(raw []byte) { came = raw }
	receive := func(raw []byte, flow transport.Flow) {
		msg, err := p.Message(raw)
		if err != nil {
			b.Fatal(err)
		}
		msg.Flow, msg.At = flow, time.Now()
		r.layer.Receive(msg)
	}
	var ok []byte
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		n++
		b.StopTimer()
		id := "b" + strconv.Itoa(n)
		text := invite("INVITE", "sip:bob@example.com", id, "User-Agent: x", "Allow: INVITE, ACK, BYE", "Supported: replaces")
		raw := []byte(strings.ReplaceAll(text, "\n", "\r\n"))
		b.StartTimer()
		receive(raw, in)
		for _, status := range []string{"180 Ringing", "200 OK"} {
			b.StopTimer()
			ok = answerTo(sent, status)
			b.StartTimer()
			receive(ok, out)
		}
		for _, method := range []string{"ACK", "BYE"} {
			b.StopTimer()
			text := invite(method, "sip:bob@192.0.2.20:5060", id)
			text = strings.Replace(text, "\nTo: <sip:bob@example.com>", "\n"+routeSet(string(came), true)+"To: <sip:bob@example.com>;tag=bob", 1)
			raw := []byte(strings.ReplaceAll(text, "\n", "\r\n"))
			b.StartTimer()
			receive(raw, in)
		}
		b.StopTimer()
		ok = bytes.Replace(answerTo(sent, "200 OK"), []byte(";tag=bob"), nil, 1)
		b.StartTimer()
		receive(ok, out)
	}
	if st := r.srv.Stats(); st.Answers[2] != 2*uint64(n) || st.Acks != uint64(n) {
		b.Fatalf("%+v", st)
	}
}

// A REGISTER that refreshes one binding; the user's state is a list.
func BenchmarkRegister(b *testing.B) {
	r := newRig(b)
	text := strings.ReplaceAll(strings.Replace(invite("REGISTER", "sip:example.com", "CALLID", "Expires: 3600", "User-Agent: x"),
		"To: <sip:bob@", "To: <sip:alice@", 1), "\n", "\r\n")
	p := transport.NewParser(transport.DefaultLimits())
	flow := r.net.flow(netip.MustParseAddrPort(alice))
	answered := make(chan []byte, 1)
	flow.tap = func(raw []byte) { answered <- raw }
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		n++
		raw := []byte(strings.ReplaceAll(text, "CALLID", "r"+strconv.Itoa(n)))
		req, _, err := p.Parse(raw)
		if err != nil {
			b.Fatal(err)
		}
		r.layer.Receive(&transport.Message{Request: req, Raw: raw, Flow: flow, At: time.Now()})
		if got := <-answered; !strings.HasPrefix(string(got), "SIP/2.0 200 ") {
			b.Fatalf("%s", got)
		}
	}
}

// answerTo answers a request, keeping what an answer keeps.
func answerTo(raw []byte, status string) []byte {
	_, headers, _, _ := splitMessage(string(raw))
	b := []byte("SIP/2.0 " + status + "\r\n")
	for _, h := range headers {
		switch h.name {
		case "To":
			b = appendHeader(b, h.name, h.value+";tag=bob")
		case "Via", "From", "Call-ID", "CSeq", "Record-Route":
			b = appendHeader(b, h.name, h.value)
		}
	}
	return append(b, "Content-Length: 0\r\n\r\n"...)
}

func BenchmarkParseRequest(b *testing.B) {
	raw := []byte(strings.ReplaceAll(invite("INVITE", "sip:bob@example.com", "c", "User-Agent: x"), "\n", "\r\n"))
	msg := &transport.Message{Raw: raw}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := parseRequest(msg); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkFlowToken(b *testing.B) {
	tok := sampleTokens()[2]
	key := newMACKey(testKeys().FlowToken)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := tok.seal(key, "call").open(key, "call"); err != nil {
			b.Fatal(err)
		}
	}
}
