package hereis

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// sipTransports are those that a node can serve, in the order of preference.
var sipTransports = []string{"udp", "tcp"}

// ParseSIPListen reads udp:ip:port or tcp:ip:port, or ip:port, which is both.
func ParseSIPListen(s string) (transports []string, at netip.AddrPort, err error) {
	transports, rest := sipTransports, s
	// A transport is letters; what is before the first colon of an address never is, but for IPv6 in brackets.
	if head, tail, ok := strings.Cut(s, ":"); ok && head != "" && strings.Trim(head, "abcdefghijklmnopqrstuvwxyz") == "" {
		if !slices.Contains(sipTransports, head) {
			return nil, netip.AddrPort{}, fmt.Errorf("%s: transport %q is not served, only %s", s, head, strings.Join(sipTransports, " and "))
		}
		transports, rest = []string{head}, tail
	}
	at, err = netip.ParseAddrPort(rest)
	if err != nil {
		return nil, netip.AddrPort{}, fmt.Errorf("%q is not udp:IP:PORT, tcp:IP:PORT or IP:PORT", s)
	}
	return transports, at, nil
}

// Domain is one served domain and the names that mean the same.
type Domain struct {
	Name    string
	Aliases []string
}

// ParseDomains reads domains written as a or a=b,c. Names are lower-cased, IPv6
// addresses lose their brackets. No name may belong to two domains.
func ParseDomains(values []string) ([]Domain, error) {
	var domains []Domain
	owner := make(map[string]string)
	for _, v := range values {
		head, tail, _ := strings.Cut(v, "=")
		d := Domain{}
		names := []string{head}
		if tail != "" {
			names = append(names, strings.Split(tail, ",")...)
		}
		for i, name := range names {
			host, err := canonicalHost(name)
			if err != nil {
				return nil, fmt.Errorf("%q: %w", v, err)
			}
			if other, ok := owner[host]; ok {
				return nil, fmt.Errorf("%q: %s belongs to %s already", v, host, other)
			}
			if i == 0 {
				d.Name = host
			} else {
				d.Aliases = append(d.Aliases, host)
			}
			owner[host] = d.Name
		}
		domains = append(domains, d)
	}
	return domains, nil
}

var validHost = regexp.MustCompile(`^([a-z0-9_]([a-z0-9_-]*[a-z0-9_])?\.)*[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?$`)

func canonicalHost(s string) (string, error) {
	host := strings.ToLower(strings.TrimSuffix(strings.TrimSpace(s), "."))
	if ip, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return ip.Unmap().String(), nil
	}
	if len(host) > 253 || !validHost.MatchString(host) {
		return "", fmt.Errorf("%q is no host name or address", s)
	}
	return host, nil
}

func splitHostPort(s string) (host string, port uint16, err error) {
	host, p, err := net.SplitHostPort(s)
	if err != nil || host == "" {
		return "", 0, fmt.Errorf("%q is not HOST:PORT", s)
	}
	n, err := strconv.ParseUint(p, 10, 16)
	if err != nil || n == 0 {
		return "", 0, fmt.Errorf("%q: port %q is not within 1 and 65535", s, p)
	}
	return host, uint16(n), nil
}
