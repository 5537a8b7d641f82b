package actors

import (
	"fmt"
	"net/netip"
	"strings"
)

// Domain is one domain that the cluster serves, with the other names under
// which it is the same domain.
type Domain struct {
	Name    string
	Aliases []string
}

// ParseDomain reads the form of the --domain flag: a name, or a name with
// aliases as "example.com=sip.example.com,192.0.2.1".
func ParseDomain(s string) (Domain, error) {
	name, aliases, found := strings.Cut(s, "=")
	d := Domain{Name: strings.TrimSpace(name)}
	if found {
		for a := range strings.SplitSeq(aliases, ",") {
			d.Aliases = append(d.Aliases, strings.TrimSpace(a))
		}
	}
	for _, h := range append([]string{d.Name}, d.Aliases...) {
		if _, ok := canonicalHost(h); !ok {
			return Domain{}, fmt.Errorf("domain %q: %q is no host name or address", s, h)
		}
	}
	return d, nil
}

// Domains is the set of domains that are served. It is read-only after
// NewDomains and safe for concurrent use.
type Domains struct {
	names []string
	// byHost has every name and alias in canonical form.
	byHost map[string]string
}

// NewDomains makes the set; the first domain is the default, where telephone
// numbers live. A name that stands for two domains is an error.
func NewDomains(list ...Domain) (*Domains, error) {
	if len(list) == 0 {
		return nil, fmt.Errorf("domains: at least one is needed")
	}
	d := &Domains{byHost: make(map[string]string)}
	for _, dom := range list {
		name, ok := canonicalHost(dom.Name)
		if !ok {
			return nil, fmt.Errorf("domain %q is no host name or address", dom.Name)
		}
		d.names = append(d.names, name)
		for _, alias := range append([]string{name}, dom.Aliases...) {
			host, ok := canonicalHost(alias)
			if !ok {
				return nil, fmt.Errorf("domain %s: alias %q is no host name or address", name, alias)
			}
			if other, taken := d.byHost[host]; taken && other != name {
				return nil, fmt.Errorf("domain %s: %s belongs to %s", name, host, other)
			}
			d.byHost[host] = name
		}
	}
	return d, nil
}

// Default is the first domain.
func (d *Domains) Default() string { return d.names[0] }

// Names lists the domains without their aliases, the default first.
func (d *Domains) Names() []string { return append([]string(nil), d.names...) }

// Canonical maps a host, in any case, with or without a final dot or the
// brackets of an IPv6 address, to the domain that it names; false if it is
// none of ours.
func (d *Domains) Canonical(host string) (string, bool) {
	if name, ok := d.byHost[host]; ok {
		return name, true
	}
	host, ok := canonicalHost(host)
	if !ok {
		return "", false
	}
	name, ok := d.byHost[host]
	return name, ok
}

// canonicalHost lower-cases a host name and rewrites an address to its one
// textual form; IPv6 gets brackets, so that the result fits a URI.
func canonicalHost(host string) (string, bool) {
	if strings.HasPrefix(host, "[") {
		if !strings.HasSuffix(host, "]") {
			return "", false
		}
		host = host[1 : len(host)-1]
		if !strings.Contains(host, ":") {
			return "", false
		}
	}
	if strings.Contains(host, ":") {
		addr, err := netip.ParseAddr(host)
		if err != nil || addr.Zone() != "" {
			return "", false
		}
		return "[" + addr.String() + "]", true
	}
	host = strings.TrimSuffix(host, ".")
	if host == "" || len(host) > 253 {
		return "", false
	}
	for i := 0; i < len(host); i++ {
		if !isHostByte(host[i]) || (host[i] == '.' && (i == 0 || host[i-1] == '.')) {
			return "", false
		}
	}
	return strings.ToLower(host), true
}

// isHostByte allows '_', which is no host name's but is met in container and
// service names.
func isHostByte(c byte) bool {
	return isAlnum(c) || c == '-' || c == '.' || c == '_'
}
