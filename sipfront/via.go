package sipfront

import (
	"net/netip"
	"strconv"
	"strings"
)

// via is one Via value, split.
type via struct {
	transport string
	host      string
	port      uint16
	params    string
	// head is all before the parameters, as written.
	head string
}

func parseVia(v string) (via, error) {
	end := indexUnquoted(v, ';')
	head := strings.TrimSpace(v[:end])
	x := via{head: head, params: v[end:]}
	slash := strings.LastIndexByte(head, '/')
	if slash < 0 {
		return x, errMessage
	}
	network, sentBy, ok := cutSpace(trimLeft(head[slash+1:]))
	if !ok {
		return x, errMessage
	}
	x.transport = lower(network)
	if i := strings.LastIndexByte(sentBy, ':'); i > strings.LastIndexByte(sentBy, ']') && strings.ContainsAny(sentBy, " \t") {
		// RFC 3261 25.1: COLON may stand in white space.
		sentBy = trimRight(sentBy[:i]) + ":" + trimLeft(sentBy[i+1:])
	}
	var err error
	x.host, x.port, err = parseHostPort(sentBy)
	return x, err
}

// stampVia writes into a Via what the socket knows of its sender: received, if
// the host is another one or rport was asked for (RFC 3261 18.2.1), and rport
// (RFC 3581 4). What the sender claims of them is replaced.
func stampVia(v string, from netip.AddrPort) string {
	x, err := parseVia(v)
	if err != nil || !from.IsValid() {
		return v
	}
	addr := from.Addr().Unmap()
	var rport, received bool
	eachParam(x.params, func(name, _, _ string) bool {
		rport = rport || strings.EqualFold(name, "rport")
		received = received || strings.EqualFold(name, "received")
		return true
	})
	same := false
	if a, err := netip.ParseAddr(x.host); !isName(x.host) && err == nil && a.Unmap() == addr {
		same = true
	}
	if same && !rport && !received {
		return v
	}
	var room [256]byte
	b := append(room[:0], x.head...)
	eachParam(x.params, func(name, _, whole string) bool {
		switch {
		case strings.EqualFold(name, "received"):
		case strings.EqualFold(name, "rport"):
			b = strconv.AppendUint(append(b, ";rport="...), uint64(from.Port()), 10)
		default:
			b = append(append(b, ';'), whole...)
		}
		return true
	})
	if !same || rport {
		b = addr.AppendTo(append(b, ";received="...))
	}
	return string(b)
}

// source is where answers to a Via go (RFC 3261 18.2.2, RFC 3581 4).
func (v *via) source() (netip.AddrPort, bool) {
	host, port := v.host, portOr(v.port, v.transport)
	if received, ok := param(v.params, "received"); ok {
		host = strings.Trim(received, "[]")
	}
	if rport, ok := param(v.params, "rport"); ok {
		if n, err := strconv.ParseUint(rport, 10, 16); err == nil && n > 0 {
			port = uint16(n)
		}
	}
	a, err := netip.ParseAddr(host)
	return netip.AddrPortFrom(a.Unmap(), port), err == nil
}
