package resolve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emiago/sipgo/sip"
)

// fakeDNS answers from two maps and counts.
type fakeDNS struct {
	srv   map[string][]*net.SRV // "_sip._udp.example.com"
	addrs map[string][]string
	fail  error
	asked int
}

func (d *fakeDNS) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	d.asked++
	if d.fail != nil {
		return nil, d.fail
	}
	var out []netip.Addr
	for _, a := range d.addrs[host] {
		out = append(out, netip.MustParseAddr(a))
	}
	if len(out) == 0 {
		return nil, &net.DNSError{Name: host, IsNotFound: true}
	}
	return out, nil
}

func (d *fakeDNS) LookupSRV(_ context.Context, service, proto, name string) (string, []*net.SRV, error) {
	d.asked++
	if recs, ok := d.srv["_"+service+"._"+proto+"."+name]; ok {
		return name, recs, nil
	}
	return "", nil, &net.DNSError{Name: name, IsNotFound: true}
}

func newResolver(d *fakeDNS, transports ...string) *Resolver {
	cfg := DefaultConfig()
	cfg.DNS, cfg.Transports = d, transports
	return New(cfg)
}

func TestRFC3263_4_Table(t *testing.T) {
	dns := &fakeDNS{
		srv: map[string][]*net.SRV{
			"_sip._udp.srv.example":  {{Target: "a.example.", Port: 5070}, {Target: "b.example.", Port: 5071}},
			"_sips._tcp.srv.example": {{Target: "b.example.", Port: 5081}},
			"_sip._udp.off.example":  {{Target: "."}},
			"_sip._tcp.off.example":  {{Target: "b.example.", Port: 6000}},
		},
		addrs: map[string][]string{
			"a.example": {"192.0.2.1", "2001:db8::1"}, "b.example": {"192.0.2.2"}, "plain.example": {"192.0.2.3"},
		},
	}
	all := []string{"udp", "tcp", "tls"}
	for _, tt := range []struct {
		name       string
		transports []string
		target     Target
		want       string
	}{
		{"numeric", all, Target{Host: "192.0.2.9"}, "[{udp 192.0.2.9:5060}]"},
		{"numeric with port", all, Target{Host: "192.0.2.9", Port: 7}, "[{udp 192.0.2.9:7}]"},
		{"IPv6 reference", all, Target{Host: "[2001:db8::9]"}, "[{udp [2001:db8::9]:5060}]"},
		{"IPv6 without brackets", all, Target{Host: "2001:db8::9", Transport: "tcp"}, "[{tcp [2001:db8::9]:5060}]"},
		{"numeric sips", all, Target{Host: "192.0.2.9", Secure: true}, "[{tls 192.0.2.9:5061}]"},
		{"numeric sips over tcp is tls", all, Target{Host: "192.0.2.9", Secure: true, Transport: "tcp"}, "[{tls 192.0.2.9:5061}]"},
		{"sips over udp", all, Target{Host: "192.0.2.9", Secure: true, Transport: "udp"}, "unsupported transport"},
		{"unknown transport", all, Target{Host: "192.0.2.9", Transport: "sctp"}, "unsupported transport"},
		{"no UDP here", []string{"tcp"}, Target{Host: "192.0.2.9"}, "[{tcp 192.0.2.9:5060}]"},
		{"SRV in order", all, Target{Host: "srv.example"}, "[{udp 192.0.2.1:5070} {udp [2001:db8::1]:5070} {udp 192.0.2.2:5071}]"},
		{"case and final dot", all, Target{Host: "Srv.Example.", Transport: "tls"}, "[{tls 192.0.2.2:5081}]"},
		{"sips asks _sips._tcp", all, Target{Host: "srv.example", Secure: true}, "[{tls 192.0.2.2:5081}]"},
		{"a port disables SRV", all, Target{Host: "srv.example", Port: 5060}, "host has no address"},
		{"SRV dot, next transport", all, Target{Host: "off.example"}, "[{tcp 192.0.2.2:6000}]"},
		{"no SRV, default port", all, Target{Host: "plain.example"}, "[{udp 192.0.2.3:5060}]"},
		{"no SRV, tcp", all, Target{Host: "plain.example", Transport: "tcp"}, "[{tcp 192.0.2.3:5060}]"},
		{"nothing", all, Target{Host: "no.example"}, "host has no address"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			hops, err := newResolver(dns, tt.transports...).Resolve(t.Context(), tt.target)
			got := fmt.Sprint(hops)
			if err != nil {
				for _, e := range []error{ErrNotFound, ErrTransport} {
					if errors.Is(err, e) {
						got = e.Error()
					}
				}
			}
			if got != tt.want {
				t.Errorf("got %s (%v), want %s", got, err, tt.want)
			}
		})
	}
}

func TestRFC3261_19_1_1_TargetOfMaddrAndTransport(t *testing.T) {
	u := sip.Uri{Scheme: "sips", User: "a", Host: "example.com", Port: 5070, UriParams: sip.HeaderParams{{K: "maddr", V: "192.0.2.1"}, {K: "transport", V: "TCP"}}}
	got, want := TargetOf(&u), Target{Host: "192.0.2.1", Port: 5070, Transport: "tcp", Secure: true}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestResolveNumericNeitherAsksNorAllocates(t *testing.T) {
	dns := &fakeDNS{}
	r := newResolver(dns, "udp")
	target := Target{Host: "192.0.2.9", Port: 5070}
	if n := testing.AllocsPerRun(100, func() { r.ResolveNumeric(target) }); n != 0 {
		t.Errorf("got %v allocations, want 0", n)
	}
	if _, ok := r.ResolveNumeric(Target{Host: "example.com"}); ok || dns.asked != 0 {
		t.Errorf("a name resolved without DNS (%d questions)", dns.asked)
	}
}

func TestCacheKeepsAnswersAndDefiniteNos(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dns := &fakeDNS{addrs: map[string][]string{"a.example": {"192.0.2.1"}}}
		r := newResolver(dns, "udp")
		ask := func(host string) error {
			_, err := r.Resolve(t.Context(), Target{Host: host, Port: 5060})
			return err
		}
		for range 3 {
			if err := ask("a.example"); err != nil {
				t.Fatal(err)
			}
			if err := ask("no.example"); !errors.Is(err, ErrNotFound) {
				t.Fatal(err)
			}
		}
		if dns.asked != 2 {
			t.Errorf("got %d questions, want 2", dns.asked)
		}
		time.Sleep(r.cfg.TTL)
		_ = ask("a.example")
		if dns.asked != 3 {
			t.Errorf("got %d questions after the TTL, want 3", dns.asked)
		}
		dns.fail = &net.DNSError{IsTimeout: true}
		if err := ask("slow.example"); err == nil || errors.Is(err, ErrNotFound) {
			t.Errorf("a timeout is no answer: %v", err)
		}
		dns.fail = nil
		dns.addrs["slow.example"] = []string{"192.0.2.4"}
		if err := ask("slow.example"); err != nil {
			t.Errorf("a failure was remembered: %v", err)
		}
	})
}

func TestCacheIsBounded(t *testing.T) {
	dns := &fakeDNS{}
	cfg := DefaultConfig()
	cfg.DNS, cfg.CacheSize = dns, 16
	r := New(cfg)
	for i := range 100 {
		_, _ = r.Resolve(t.Context(), Target{Host: fmt.Sprintf("h%d.example", i), Port: 1})
	}
	if got := len(r.cache.entries); got > 16 {
		t.Errorf("got %d entries, want at most 16", got)
	}
}

func TestConfigValidate(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
	cfg := DefaultConfig()
	cfg.Transports = []string{"carrier-pigeon"}
	if cfg.Validate() == nil || slices.Contains(DefaultConfig().Transports, "carrier-pigeon") {
		t.Error("an unknown transport is accepted")
	}
}
