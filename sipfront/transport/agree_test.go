package transport

import (
	"fmt"
	"strings"
	"testing"

	"github.com/emiago/sipgo/sip"
	"pgregory.net/rapid"
)

// TestParser_AgreesWithSipgo holds our reading of plain requests to that of
// sipgo's parser, whose message types it fills: what is ordinary must mean the
// same to both. Where they differ by intent is in parse_test.go.
func TestParser_AgreesWithSipgo(t *testing.T) {
	reference := sip.NewParser()
	ours := NewParser(DefaultLimits())
	rapid.Check(t, func(t *rapid.T) {
		raw := plainRequest(t)
		want, err := reference.ParseSIP([]byte(raw))
		if err != nil {
			t.Fatalf("sipgo refuses %q: %v", raw, err)
		}
		req, _, err := ours.Parse([]byte(raw))
		if err != nil {
			t.Fatalf("we refuse %q: %v", raw, err)
		}
		if got, want := meaning(req), meaning(want.(*sip.Request)); got != want {
			t.Errorf("of %q\ngot  %s\nwant %s", raw, got, want)
		}
	})
}

// meaning is what a proxy and registrar read in a request.
func meaning(r *sip.Request) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s|%s|%d %s|", r.Method, r.Recipient.String(), r.CallID().Value(), r.CSeq().SeqNo, r.CSeq().MethodName)
	fromTag, _ := r.From().Params.Get("tag")
	toTag, _ := r.To().Params.Get("tag")
	fmt.Fprintf(&b, "%s %s|%s %s|", r.From().Address.String(), fromTag, r.To().Address.String(), toTag)
	for _, h := range r.GetHeaders("Via") {
		v := h.(*sip.ViaHeader)
		branch, _ := v.Params.Get("branch")
		fmt.Fprintf(&b, "via %s %s %d %s|", v.Transport, v.Host, v.Port, branch)
	}
	for _, h := range r.GetHeaders("Contact") {
		c := h.(*sip.ContactHeader)
		expires, _ := c.Params.Get("expires")
		q, _ := c.Params.Get("q")
		fmt.Fprintf(&b, "contact %s %s %s|", c.Address.String(), expires, q)
	}
	for _, h := range r.GetHeaders("Route") {
		fmt.Fprintf(&b, "route %s|", h.(*sip.RouteHeader).Address.String())
	}
	fmt.Fprintf(&b, "mf %d|body %q", r.MaxForwards().Val(), r.Body())
	return b.String()
}

func plainRequest(t *rapid.T) string {
	word := rapid.StringMatching(`[a-zA-Z0-9]{1,12}`)
	host := rapid.SampledFrom([]string{"example.com", "192.0.2.7", "a.b.example.org", "[2001:db8::1]"})
	port := rapid.SampledFrom([]string{"", ":5060", ":15070"})
	uri := func(label string) string {
		u := "sip:" + word.Draw(t, label+" user") + "@" + host.Draw(t, label+" host") + port.Draw(t, label+" port")
		return u + rapid.SampledFrom([]string{"", ";transport=tcp", ";lr", ";transport=udp;lr"}).Draw(t, label+" params")
	}
	method := rapid.SampledFrom([]string{"REGISTER", "INVITE", "OPTIONS", "BYE", "MESSAGE", "SUBSCRIBE"}).Draw(t, "method")
	lines := []string{method + " " + uri("target") + " SIP/2.0"}
	for i := range rapid.IntRange(1, 3).Draw(t, "vias") {
		lines = append(lines, fmt.Sprintf("%s: SIP/2.0/%s %s%s;branch=z9hG4bK%s",
			rapid.SampledFrom([]string{"Via", "v"}).Draw(t, "via name"), rapid.SampledFrom([]string{"UDP", "TCP"}).Draw(t, "via transport"),
			rapid.SampledFrom([]string{"example.com", "192.0.2.7"}).Draw(t, "via host"), port.Draw(t, "via port"), word.Draw(t, fmt.Sprint("branch ", i))))
	}
	lines = append(lines,
		"From: <"+uri("from")+">;tag="+word.Draw(t, "from tag"),
		"To: <"+uri("to")+">"+rapid.SampledFrom([]string{"", ";tag=abc"}).Draw(t, "to tag"),
		rapid.SampledFrom([]string{"Call-ID", "i"}).Draw(t, "call-id name")+": "+word.Draw(t, "call-id")+"@h",
		fmt.Sprintf("CSeq: %d %s", rapid.IntRange(0, 1<<31-1).Draw(t, "cseq"), method),
		fmt.Sprintf("Max-Forwards: %d", rapid.IntRange(0, 255).Draw(t, "max-forwards")))
	for range rapid.IntRange(0, 2).Draw(t, "routes") {
		lines = append(lines, "Route: <"+uri("route")+">")
	}
	for range rapid.IntRange(0, 2).Draw(t, "contacts") {
		lines = append(lines, fmt.Sprintf("Contact: <%s>;q=0.5;expires=%d", uri("contact"), rapid.IntRange(0, 7200).Draw(t, "expires")))
	}
	body := rapid.StringMatching(`[a-z=\r\n ]{0,40}`).Draw(t, "body")
	lines = append(lines, fmt.Sprintf("Content-Length: %d", len(body)), "", body)
	return strings.Join(lines, "\r\n")
}
