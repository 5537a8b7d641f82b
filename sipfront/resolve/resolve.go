package resolve

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/miekg/dns"
)

var (
	// ErrNotFound: the name exists in no record that leads anywhere.
	ErrNotFound = errors.New("host has no address")
	// ErrTransport: this node does not speak the transport that was asked for.
	ErrTransport = errors.New("unsupported transport")
)

// Target is what a URI or a Via says about the next hop. It is comparable.
type Target struct {
	// Host is a name, an IPv4 address, or an IPv6 one with or without brackets.
	Host string
	// Port 0 means that none was given.
	Port uint16
	// Transport in lower case, or "" if none was given.
	Transport string
	// Secure is the sips scheme.
	Secure bool
	// Large: the request is too large for UDP where there is a choice (RFC 3261 18.1.1).
	Large bool
}

// TargetOf reads the target of a sip or sips URI: maddr before host (RFC 3261 19.1.1).
func TargetOf(u *sip.Uri) Target {
	t := Target{Host: u.Host, Port: uint16(u.Port), Secure: u.Scheme == "sips"}
	if v, ok := u.UriParams.Get("maddr"); ok && v != "" {
		t.Host = v
	}
	if v, ok := u.UriParams.Get("transport"); ok {
		t.Transport = strings.ToLower(v)
	}
	return t
}

// Hop is one place to send to.
type Hop struct {
	Transport string
	Addr      netip.AddrPort
}

// Resolver is safe for concurrent use.
type Resolver struct {
	cfg   Config
	cache cache
	hosts hosts
}

// New makes a resolver; cfg is one that Validate accepts.
func New(cfg Config) *Resolver {
	if cfg.DNS == nil {
		cfg.DNS = NewClient(cfg.Servers, cfg.ResolvConf, cfg.Attempt)
	}
	if cfg.Rand == nil {
		cfg.Rand = rand.IntN
	}
	return &Resolver{cfg: cfg, cache: newCache(cfg.CacheSize), hosts: hosts{file: cfg.Hosts}}
}

// ResolveNumeric answers for a host that is an address, without waiting; ok is
// false for a name and for a transport that this node does not speak.
func (r *Resolver) ResolveNumeric(t Target) (hop Hop, ok bool) {
	addr, ok := numeric(t.Host)
	if !ok {
		return Hop{}, false
	}
	transport, err := r.transport(t)
	if err != nil {
		return Hop{}, false
	}
	return Hop{transport, netip.AddrPortFrom(addr, portOr(t.Port, transport))}, true
}

// Resolve returns the hops to try, best first; never none without an error.
func (r *Resolver) Resolve(ctx context.Context, t Target) ([]Hop, error) {
	if addr, ok := numeric(t.Host); ok {
		transport, err := r.transport(t)
		if err != nil {
			return nil, err
		}
		return []Hop{{transport, netip.AddrPortFrom(addr, portOr(t.Port, transport))}}, nil
	}
	t.Host = strings.ToLower(strings.TrimSuffix(t.Host, "."))
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Timeout)
	defer cancel()
	return r.lookup(ctx, t)
}

// lookup is RFC 3263 4.1 and 4.2.
func (r *Resolver) lookup(ctx context.Context, t Target) ([]Hop, error) {
	chosen := ""
	if t.Port == 0 && len(r.hosts.lookup(t.Host)) == 0 {
		services, offered, err := r.services(ctx, t)
		if err != nil {
			return nil, err
		}
		if offered {
			chosen = services[0].transport
		}
		hops, found, err := r.servers(ctx, services, t.Large)
		if err != nil || len(hops) > 0 {
			return hops, err
		}
		if found {
			// RFC 2782: the host's own address is for where there are no SRV records.
			return nil, fmt.Errorf("servers of %s: %w", t.Host, ErrNotFound)
		}
	}
	if chosen == "" {
		var err error
		if chosen, err = r.transport(t); err != nil {
			return nil, err
		}
	}
	return r.addresses(ctx, t.Host, chosen, portOr(t.Port, chosen))
}

// service is a transport and the name of its SRV records.
type service struct{ transport, name string }

// services are the SRV names to ask for, the preferred first: of the transport
// that the URI names, else those that NAPTR records offer, else all that we speak.
func (r *Resolver) services(ctx context.Context, t Target) (list []service, offered bool, err error) {
	if t.Transport != "" {
		transport, err := r.transport(t)
		if err != nil {
			return nil, false, err
		}
		return r.guess(t, transport), false, nil
	}
	records, err := r.ask(ctx, t.Host, dns.TypeNAPTR)
	if err != nil {
		return nil, false, err
	}
	offers := naptrs(records)
	for _, n := range offers {
		s := sipService(n.Service)
		// RFC 3263 4.1: flag "s" and no regular expression.
		if strings.EqualFold(n.Flags, "s") && n.Regexp == "" && r.speaks(s.transport, t.Secure) {
			list = append(list, service{s.transport, n.Replacement})
		}
	}
	if offered = len(list) > 0; !offered {
		if len(offers) > 0 {
			return nil, false, fmt.Errorf("%s: %w", t.Host, ErrTransport)
		}
		list = r.guess(t, r.cfg.Transports...)
	}
	if t.Large {
		slices.SortStableFunc(list, func(a, b service) int { return cmp.Compare(datagram(a.transport), datagram(b.transport)) })
	}
	return list, offered, nil
}

// guess are the SRV names of a host without NAPTR records.
func (r *Resolver) guess(t Target, transports ...string) (list []service) {
	for _, transport := range transports {
		if prefix, ok := srvPrefix(transport); ok && r.speaks(transport, t.Secure) {
			list = append(list, service{transport, prefix + t.Host})
		}
	}
	return list
}

func (r *Resolver) speaks(transport string, secure bool) bool {
	return slices.Contains(r.cfg.Transports, transport) && (!secure || isSecure(transport))
}

// servers are the hops of the first service that has any; of all of them for
// what is large, so that UDP is left where nothing else goes. found: there are
// SRV records, if only to say that nothing is there.
func (r *Resolver) servers(ctx context.Context, services []service, all bool) (hops []Hop, found bool, err error) {
	for _, s := range services {
		records, err := r.ask(ctx, s.name, dns.TypeSRV)
		if err != nil {
			return nil, found, err
		}
		found = found || len(records) > 0
		more, err := r.records(ctx, records, s.transport)
		if err != nil && len(hops) == 0 {
			return nil, found, err
		}
		if hops = append(hops, more...); len(hops) > 0 && !all {
			break
		}
	}
	return hops, found, nil
}

// maxRecords bounds the names that one SRV answer makes us ask for.
const maxRecords = 8

func (r *Resolver) records(ctx context.Context, list []dns.RR, transport string) ([]Hop, error) {
	var servers []*dns.SRV
	for _, rr := range list {
		// RFC 2782: a target of "." says that the service is decidedly not there.
		if srv, ok := rr.(*dns.SRV); ok && srv.Target != "." {
			servers = append(servers, srv)
		}
	}
	servers = order(servers, r.cfg.Rand)
	var hops []Hop
	var failed error
	for _, srv := range servers[:min(len(servers), maxRecords)] {
		host := strings.ToLower(strings.TrimSuffix(srv.Target, "."))
		more, err := r.addresses(ctx, host, transport, srv.Port)
		if err != nil && !errors.Is(err, ErrNotFound) {
			failed = err
		}
		hops = append(hops, more...)
	}
	if len(hops) > 0 {
		failed = nil
	}
	return hops, failed
}

// addresses asks for A and AAAA at the same time.
func (r *Resolver) addresses(ctx context.Context, host, transport string, port uint16) ([]Hop, error) {
	addrs := r.hosts.lookup(host)
	if addrs == nil {
		var v4, v6 []netip.Addr
		var err4, err6 error
		var both sync.WaitGroup
		if r.cfg.Network != "ip4" {
			both.Go(func() { v6, err6 = r.family(ctx, host, dns.TypeAAAA) })
		}
		if r.cfg.Network != "ip6" {
			v4, err4 = r.family(ctx, host, dns.TypeA)
		}
		both.Wait()
		addrs = append(v4, v6...)
		if err := cmp.Or(err4, err6); err != nil && len(addrs) == 0 {
			return nil, fmt.Errorf("address of %s: %w", host, err)
		}
	}
	hops := make([]Hop, 0, len(addrs))
	for _, a := range addrs {
		if a.Is4() && r.cfg.Network != "ip6" || a.Is6() && r.cfg.Network != "ip4" {
			hops = append(hops, Hop{transport, netip.AddrPortFrom(a, port)})
		}
	}
	if len(hops) == 0 {
		return nil, fmt.Errorf("%s: %w", host, ErrNotFound)
	}
	return hops, nil
}

func (r *Resolver) family(ctx context.Context, host string, kind uint16) (addrs []netip.Addr, err error) {
	list, err := r.ask(ctx, host, kind)
	for _, rr := range list {
		var ip net.IP
		switch rr := rr.(type) {
		case *dns.A:
			ip = rr.A
		case *dns.AAAA:
			ip = rr.AAAA
		}
		if a, ok := netip.AddrFromSlice(ip); ok {
			addrs = append(addrs, a.Unmap())
		}
	}
	return addrs, err
}

// ask is one question, from the cache if it knows.
func (r *Resolver) ask(ctx context.Context, name string, kind uint16) ([]dns.RR, error) {
	q, now := question{dns.CanonicalName(name), kind}, time.Now()
	if got, ok := r.cache.get(q, now); ok {
		return got.List, nil
	}
	if _, ok := dns.IsDomainName(q.name); !ok {
		return nil, nil
	}
	got, err := r.cfg.DNS.Ask(ctx, q.name, kind)
	if err != nil {
		return nil, err
	}
	ttl := min(got.TTL, r.cfg.MaxTTL)
	if len(got.List) == 0 {
		if ttl = min(got.TTL, r.cfg.NegativeTTL); ttl < 0 {
			ttl = r.cfg.NegativeTTL
		}
	}
	if ttl > 0 {
		r.cache.put(q, got, now.Add(ttl), now)
	}
	return got.List, nil
}
