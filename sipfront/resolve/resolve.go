package resolve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"
)

var (
	// ErrNotFound: the name exists in no record that leads anywhere.
	ErrNotFound = errors.New("host has no address")
	// ErrTransport: this node does not speak the transport that was asked for.
	ErrTransport = errors.New("unsupported transport")
)

// DNS is what we ask; *net.Resolver is one.
type DNS interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
	LookupSRV(ctx context.Context, service, proto, name string) (cname string, addrs []*net.SRV, err error)
}

// Config of a Resolver.
type Config struct {
	DNS DNS
	// Transports that this node speaks, the preferred first: of "udp", "tcp", "tls", "ws", "wss".
	Transports []string
	// Network is "ip", "ip4" or "ip6": the address families to ask for.
	Network string
	// TTL and NegativeTTL are how long an answer and a definite "no" are
	// believed. A failed lookup is not remembered.
	TTL, NegativeTTL time.Duration
	// CacheSize bounds the answers remembered.
	CacheSize int
	// Timeout bounds one Resolve beside its context.
	Timeout time.Duration
}

// DefaultConfig asks the system's resolver and speaks UDP.
func DefaultConfig() Config {
	return Config{
		DNS: net.DefaultResolver, Transports: []string{"udp"}, Network: "ip",
		TTL: time.Minute, NegativeTTL: 10 * time.Second, CacheSize: 4096, Timeout: 5 * time.Second,
	}
}

// Validate names the first field that makes no sense.
func (c Config) Validate() error {
	switch {
	case c.DNS == nil:
		return errors.New("DNS: nil")
	case len(c.Transports) == 0:
		return errors.New("Transports: empty")
	case c.Network != "ip" && c.Network != "ip4" && c.Network != "ip6":
		return fmt.Errorf("Network: %q", c.Network)
	case c.CacheSize < 1 || c.TTL <= 0 || c.NegativeTTL <= 0 || c.Timeout <= 0:
		return errors.New("CacheSize, TTL, NegativeTTL, Timeout: not positive")
	}
	for _, t := range c.Transports {
		if defaultPort(t) == 0 {
			return fmt.Errorf("Transports: %q", t)
		}
	}
	return nil
}

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
}

// New makes a resolver; cfg is one that Validate accepts.
func New(cfg Config) *Resolver {
	return &Resolver{cfg: cfg, cache: newCache(cfg.CacheSize)}
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
	now := time.Now()
	if hops, err, ok := r.cache.get(t, now); ok {
		return hops, err
	}
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Timeout)
	defer cancel()
	hops, err := r.lookup(ctx, t)
	switch {
	case err == nil:
		r.cache.put(t, hops, nil, now.Add(r.cfg.TTL), now)
	case errors.Is(err, ErrNotFound) || errors.Is(err, ErrTransport):
		r.cache.put(t, nil, err, now.Add(r.cfg.NegativeTTL), now)
	}
	return hops, err
}

// lookup is RFC 3263 4.1 and 4.2 without NAPTR.
func (r *Resolver) lookup(ctx context.Context, t Target) ([]Hop, error) {
	if t.Port == 0 {
		hops, err := r.services(ctx, t)
		if err != nil || len(hops) > 0 {
			return hops, err
		}
	}
	transport, err := r.transport(t)
	if err != nil {
		return nil, err
	}
	return r.addresses(ctx, t.Host, transport, portOr(t.Port, transport))
}

// services asks the SRV records of each transport that may be used.
func (r *Resolver) services(ctx context.Context, t Target) ([]Hop, error) {
	for _, transport := range r.cfg.Transports {
		if t.Transport != "" && transport != secured(t) || t.Secure && !isSecure(transport) {
			continue
		}
		service, proto, ok := srvName(transport)
		if !ok {
			continue
		}
		_, records, err := r.cfg.DNS.LookupSRV(ctx, service, proto, t.Host)
		if err != nil && !isNotFound(err) {
			return nil, fmt.Errorf("srv %s: %w", t.Host, err)
		}
		hops, err := r.records(ctx, records, transport)
		if err != nil || len(hops) > 0 {
			return hops, err
		}
	}
	return nil, nil
}

// maxRecords bounds the names that one SRV answer makes us ask for.
const maxRecords = 8

func (r *Resolver) records(ctx context.Context, records []*net.SRV, transport string) ([]Hop, error) {
	var hops []Hop
	var failed error
	for _, rec := range records[:min(len(records), maxRecords)] {
		// RFC 2782: a target of "." says that the service is decidedly not there.
		name := strings.TrimSuffix(rec.Target, ".")
		if name == "" {
			continue
		}
		more, err := r.addresses(ctx, name, transport, rec.Port)
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

func (r *Resolver) addresses(ctx context.Context, host, transport string, port uint16) ([]Hop, error) {
	addrs, err := r.cfg.DNS.LookupNetIP(ctx, r.cfg.Network, host)
	if err != nil && !isNotFound(err) {
		return nil, fmt.Errorf("address of %s: %w", host, err)
	}
	hops := make([]Hop, 0, len(addrs))
	for _, a := range addrs {
		hops = append(hops, Hop{transport, netip.AddrPortFrom(a.Unmap(), port)})
	}
	if len(hops) == 0 {
		return nil, fmt.Errorf("%s: %w", host, ErrNotFound)
	}
	return hops, nil
}

// transport chooses without DNS: the one given, made secure for sips; else UDP,
// or TLS for sips (4.1); else the first that this node speaks.
func (r *Resolver) transport(t Target) (string, error) {
	want := secured(t)
	if want == "" {
		want = "udp"
		if t.Secure {
			want = "tls"
		} else if !slices.Contains(r.cfg.Transports, want) {
			want = r.cfg.Transports[0]
		}
	}
	if !slices.Contains(r.cfg.Transports, want) || t.Secure && !isSecure(want) {
		return "", fmt.Errorf("%q: %w", want, ErrTransport)
	}
	return want, nil
}

// secured maps the transport parameter of a sips URI: 26.2.2 has TLS under it.
func secured(t Target) string {
	if !t.Secure {
		return t.Transport
	}
	switch t.Transport {
	case "tcp":
		return "tls"
	case "ws":
		return "wss"
	}
	return t.Transport
}

func isSecure(transport string) bool { return transport == "tls" || transport == "wss" }

// srvName is the owner name's labels (RFC 3263 4.1; RFC 7118 has none for WebSocket).
func srvName(transport string) (service, proto string, ok bool) {
	switch transport {
	case "udp", "tcp":
		return "sip", transport, true
	case "tls":
		return "sips", "tcp", true
	}
	return "", "", false
}

// defaultPort is RFC 3261 19.1.2 and RFC 7118 5.2.2; 0 for a transport that we do not know.
func defaultPort(transport string) uint16 {
	switch transport {
	case "udp", "tcp":
		return 5060
	case "tls":
		return 5061
	case "ws":
		return 80
	case "wss":
		return 443
	}
	return 0
}

func portOr(port uint16, transport string) uint16 {
	if port != 0 {
		return port
	}
	return defaultPort(transport)
}

func numeric(host string) (netip.Addr, bool) {
	if len(host) > 2 && host[0] == '[' && host[len(host)-1] == ']' {
		host = host[1 : len(host)-1]
	}
	// A name whose last label is not a number is no address: no error value is made for it.
	if host == "" || !strings.Contains(host, ":") && (host[len(host)-1] < '0' || host[len(host)-1] > '9') {
		return netip.Addr{}, false
	}
	addr, err := netip.ParseAddr(host)
	if err != nil || addr.Zone() != "" {
		return netip.Addr{}, false
	}
	return addr.Unmap(), true
}

func isNotFound(err error) bool {
	var dns *net.DNSError
	return errors.As(err, &dns) && dns.IsNotFound
}
