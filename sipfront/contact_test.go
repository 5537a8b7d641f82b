package sipfront

import (
	"fmt"
	"math"
	"net/netip"
	"strings"
	"testing"

	"hereis/sipfront/transport"
)

func TestRFC3261_20_10_Contact(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{`<sip:a@h>`, "sip:a@h q=1000"},
		{`sip:a@h`, "sip:a@h q=1000"},
		{`sip:a@h;x=1;expires=5`, "sip:a@h q=1000 expires=5 params=[x=1]"},
		{`<sip:a@h;x=1;expires=5>`, "sip:a@h;x=1;expires=5 q=1000"},
		{`"A, <b>; \"c\"" <sip:a@h>;EXPIRES=7`, "sip:a@h q=1000 expires=7"},
		{`Alice <sip:a@h>;Q=0.125;x="a;b=c,d";y`, `sip:a@h q=125 params=[x="a;b=c,d" y]`},
		{`<sip:a@h>;q=1.000`, "sip:a@h q=1000"},
		{`<sip:a@h>;q=0`, "sip:a@h q=0"},
		{`<sip:a@h>;q=0.`, "sip:a@h q=0"},
		{`<sip:a@h>;q=1.001`, "error"},
		{`<sip:a@h>;q=0.1234`, "error"},
		{`<sip:a@h>;q=-1`, "error"},
		{`<sip:a@h>;q=`, "error"},
		{`<sip:a@h>;expires=bogus`, "sip:a@h q=1000 expires=3600"},
		{`<sip:a@h>;expires=-5`, "sip:a@h q=1000 expires=3600"},
		{`<sip:a@h>;expires=`, "sip:a@h q=1000 expires=3600"},
		{`<sip:a@h>;expires=4294967296`, fmt.Sprintf("sip:a@h q=1000 expires=%d", uint32(math.MaxUint32))},
		{`<sip:a@h>;expires=99999999999999999999999`, fmt.Sprintf("sip:a@h q=1000 expires=%d", uint32(math.MaxUint32))},
		{`<sip:a@h>;expires=1;expires=2`, "error"},
		{`<sip:a@h>;+sip.instance="<urn:uuid:x;y>";reg-id=2`, "sip:a@h q=1000 instance=urn:uuid:x;y reg=2"},
		{`<sip:a@h>;reg-id=2`, "sip:a@h q=1000"},
		{`<sip:a@h>;+sip.instance="<u>";reg-id=0`, "error"},
		{`<sip:a@h>;+sip.instance="<u>";reg-id=2147483648`, "error"},
		{`<sip:a@h>;+sip.instance=""`, "error"},
		{`<tel:+123>`, "error"},
		{`<sip:a b@h>`, "error"},
		{`<sip:a@h`, "error"},
		{`<sip:a@h>x`, "error"},
		{`sip:a@h?x=1`, "error"},
		{`<sip:a@h:99999>`, "error"},
	} {
		got := "error"
		if x, err := parseContact(c.in); err == nil {
			got = fmt.Sprintf("%s q=%d", x.Uri, x.Q)
			if x.HasExpires {
				got += fmt.Sprintf(" expires=%d", x.ExpiresS)
			}
			if x.InstanceId != "" {
				got += " instance=" + x.InstanceId
			}
			if x.RegId != 0 {
				got += fmt.Sprintf(" reg=%d", x.RegId)
			}
			if x.Params != nil {
				got += fmt.Sprintf(" params=%v", x.Params)
			}
		}
		if got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.in, got, c.want)
		}
	}
}

func TestRFC3261_10_2_2_StarStandsAlone(t *testing.T) {
	if _, star, err := parseContacts([]string{"*"}); err != nil || !star {
		t.Error(star, err)
	}
	for _, v := range [][]string{{"*", "<sip:a@h>"}, {"*", "*"}} {
		if _, _, err := parseContacts(v); err == nil {
			t.Errorf("%v was taken", v)
		}
	}
}

func TestFlowBound(t *testing.T) {
	for _, c := range []struct {
		name, network, source, via, contact string
		vias                                int
		want                                bool
	}{
		{"same address", "udp", "10.0.0.5:5060", "10.0.0.5:5060", "<sip:a@10.0.0.5:5060>", 1, false},
		{"same host, default port", "udp", "10.0.0.5:5060", "10.0.0.5", "<sip:a@10.0.0.5>", 1, false},
		{"loopback, own port", "udp", "127.0.0.1:5071", "127.0.0.1:5071", "<sip:a@127.0.0.1:5071>", 1, false},
		{"NAT: other host", "udp", "203.0.113.5:4000", "10.0.0.5:5060", "<sip:a@10.0.0.5:5060>", 1, true},
		{"NAT: other port", "udp", "203.0.113.5:4000", "203.0.113.5:5060", "<sip:a@203.0.113.5:5060>", 1, true},
		{"Via fixed up, Contact not", "udp", "203.0.113.5:4000", "203.0.113.5:4000", "<sip:a@10.0.0.5:5060>", 1, true},
		{"Via is a name", "udp", "203.0.113.5:4000", "phone.local", "<sip:a@203.0.113.5>", 1, true},
		{"public Contact of another host", "udp", "203.0.113.5:5060", "203.0.113.5:5060", "<sip:a@198.51.100.1>", 1, false},
		{"name that resolves", "udp", "203.0.113.5:5060", "203.0.113.5:5060", "<sip:a@example.net>", 1, false},
		{"name that nobody resolves", "udp", "203.0.113.5:5060", "203.0.113.5:5060", "<sip:a@x.invalid>", 1, true},
		{"TCP listener", "tcp", "10.0.0.5:41000", "10.0.0.5:5060", "<sip:a@10.0.0.5:5060;transport=tcp>", 1, false},
		{"TCP behind NAT", "tcp", "203.0.113.5:41000", "10.0.0.5:5060", "<sip:a@10.0.0.5;transport=tcp>", 1, true},
		{"WebSocket", "ws", "203.0.113.5:41000", "x.invalid", "<sip:a@x.invalid;transport=ws>", 1, true},
		{"outbound", "udp", "10.0.0.5:5060", "10.0.0.5:5060", `<sip:a@10.0.0.5:5060>;reg-id=1;+sip.instance="<u>"`, 1, true},
		{"another proxy in front", "udp", "10.0.0.5:5060", "10.0.0.5:5060", "<sip:a@192.168.0.7>", 2, false},
		{"NAT, but another host's Contact", "udp", "203.0.113.5:4000", "10.0.0.5:5060", "<sip:a@gw.example.net>", 1, false},
		{"NAT, but another host's address", "udp", "203.0.113.5:4000", "10.0.0.5:5060", "<sip:a@198.51.100.1>", 1, false},
		{"NAT, public address inside", "udp", "203.0.113.5:4000", "198.51.100.1:5060", "<sip:a@198.51.100.1>", 1, true},
		{"NAT, learnt by STUN", "udp", "203.0.113.5:4000", "10.0.0.5:5060", "<sip:a@203.0.113.5:4000>", 1, true},
		{"unspecified Contact", "udp", "10.0.0.5:5060", "10.0.0.5:5060", "<sip:a@0.0.0.0>", 1, true},
	} {
		contact, err := parseContact(c.contact)
		if err != nil {
			t.Fatal(c.name, err)
		}
		r := &request{vias: []string{"SIP/2.0/" + strings.ToUpper(c.network) + " " + c.via + ";branch=z9hG4bKx"}}
		for len(r.vias) < c.vias {
			r.vias = append(r.vias, "SIP/2.0/UDP 192.168.0.7")
		}
		f := &memFlow{network: c.network, remote: netip.MustParseAddrPort(c.source)}
		if got := flowBound(r, contact, transport.Flow(f)); got != c.want {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}

// Each Contact is judged by itself: a phone behind a NAT that forwards to a
// gateway as well binds its own Contact to the flow, and only that.
func TestRFC5626_6_FlowBoundIsDecidedPerContact(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		req := strings.NewReplacer(
			"<sip:bob@example.com>", "<sip:alice@example.com>",
			"Contact: <sip:alice@192.0.2.10:5060>", "Contact: <sip:alice@10.0.0.5>, <sip:alice@gw.example.net>;q=0.1",
			"UDP 192.0.2.10:5060", "UDP 10.0.0.5:5060",
		).Replace(invite("REGISTER", "sip:example.com", "percontact"))
		n.recv(bob, req)
		m.expect(bob, "SIP/2.0 200 OK")
		got := n.reg.last.Contacts
		if len(got) != 2 || !got[0].FlowBound || got[1].FlowBound {
			t.Errorf("got %v", got)
		}
	})
}
