package resolve

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Config of a Resolver.
type Config struct {
	// DNS is asked; nil: a Client of Servers.
	DNS DNS
	// Servers are name servers, "ip" or "ip:port"; none: those of ResolvConf.
	Servers []string
	// ResolvConf and Hosts are the files of resolv.conf(5) and hosts(5); an
	// empty Hosts is none.
	ResolvConf, Hosts string
	// Transports that this node speaks, the preferred first: of "udp", "tcp", "tls", "ws", "wss".
	Transports []string
	// Network is "ip", "ip4" or "ip6": the address families to ask for.
	Network string
	// MaxTTL and NegativeTTL bound how long an answer and a definite "no" are
	// believed, whatever their records say; NegativeTTL is also for a "no" that
	// says nothing. A failed question is not remembered.
	MaxTTL, NegativeTTL time.Duration
	// CacheSize bounds the answers remembered.
	CacheSize int
	// Timeout bounds one Resolve beside its context, Attempt one question to one server.
	Timeout, Attempt time.Duration
	// Rand gives a number below n, for weights; math/rand/v2 if nil.
	Rand func(n int) int
}

// DefaultConfig asks the system's servers and speaks UDP.
func DefaultConfig() Config {
	return Config{
		ResolvConf: "/etc/resolv.conf", Hosts: "/etc/hosts", Transports: []string{"udp"}, Network: "ip",
		MaxTTL: time.Hour, NegativeTTL: time.Minute, CacheSize: 4096,
		Timeout: 5 * time.Second, Attempt: 700 * time.Millisecond,
	}
}

// Validate names the first field that makes no sense.
func (c Config) Validate() error {
	switch {
	case len(c.Transports) == 0:
		return errors.New("Transports: empty")
	case c.Network != "ip" && c.Network != "ip4" && c.Network != "ip6":
		return fmt.Errorf("Network: %q", c.Network)
	case c.CacheSize < 1 || c.MaxTTL <= 0 || c.NegativeTTL <= 0 || c.Timeout <= 0 || c.Attempt <= 0:
		return errors.New("CacheSize, MaxTTL, NegativeTTL, Timeout, Attempt: not positive")
	}
	for _, t := range c.Transports {
		if defaultPort(t) == 0 {
			return fmt.Errorf("Transports: %q", t)
		}
	}
	for _, s := range c.Servers {
		_, err := netip.ParseAddrPort(s)
		if _, plain := numeric(s); err != nil && !plain {
			return fmt.Errorf("Servers: %q is no address", s)
		}
	}
	return nil
}
