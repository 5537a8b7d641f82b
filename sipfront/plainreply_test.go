package sipfront

import (
	"testing"

	"pgregory.net/rapid"
)

const sampleReply = "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 192.0.2.2:5060;branch=z9hG4bK1.~passed~12345678\r\n" +
	"Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK2\r\nv: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bKp;rport=5060\r\n" +
	"Record-Route: <sip:abc@192.0.2.1:5060;lr>\r\nFrom: <sip:a@example.com>;tag=1\r\nTo: <sip:b@example.com>;tag=2\r\n" +
	"Call-ID: one@two\r\nCSeq: 7 INVITE\r\nX-Unknown: x\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\nbody"

// checkPlainReply holds what one pass has found against what the ordinary reading finds.
func checkPlainReply(t interface{ Fatalf(string, ...any) }, text string) bool {
	var r, any plainReply
	if !r.read(text) {
		return false
	}
	if !any.readAny(text) {
		t.Fatalf("plain, and not to be read: %q", text)
	}
	if r.status != any.status || r.top != any.top || r.next != any.next || r.callID != any.callID || r.method != any.method {
		t.Fatalf("read as %+v, and as %+v: %q", r, any, text)
	}
	if got, want := string(r.append(nil)), string(any.append(nil)); got != want {
		t.Fatalf("goes on as\n%q\nnot as\n%q", got, want)
	}
	return true
}

func TestPlainReply_AgreesWithTheOrdinaryWay(t *testing.T) {
	if !checkPlainReply(t, sampleReply) {
		t.Error("the sample is not plain")
	}
	rapid.Check(t, func(rt *rapid.T) {
		checkPlainReply(rt, edited(rt, sampleReply, 3))
	})
}

func FuzzPlainReply(f *testing.F) {
	f.Add(sampleReply)
	f.Add("SIP/2.0 180 Ringing\r\nVia: a, b\r\nvia : c\r\nCSeq:1 X\r\nI:2\r\nl: 0\r\n\r\n")
	f.Fuzz(func(t *testing.T, text string) { checkPlainReply(t, text) })
}

func BenchmarkReadReply(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		_, _, _ = readReply(sampleReply)
	}
}
