package resolve

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

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

// srvPrefix is what stands before a domain in the name of its SRV records (RFC 3263 4.1).
func srvPrefix(transport string) (prefix string, ok bool) {
	switch transport {
	case "udp", "tcp":
		return "_sip._" + transport + ".", true
	case "tls":
		return "_sips._tcp.", true
	}
	return "", false
}

// sipService is the transport of a NAPTR service field (RFC 3263 8.1, RFC 7118
// 7); the zero value for a service that is not SIP.
func sipService(s string) service {
	switch strings.ToUpper(s) {
	case "SIP+D2U":
		return service{transport: "udp"}
	case "SIP+D2T":
		return service{transport: "tcp"}
	case "SIPS+D2T":
		return service{transport: "tls"}
	case "SIP+D2S", "SIPS+D2S", "SIP+D2W", "SIPS+D2W":
		return service{transport: "other"}
	}
	return service{}
}

// datagram sorts UDP last.
func datagram(transport string) int {
	if transport == "udp" {
		return 1
	}
	return 0
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
