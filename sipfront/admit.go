package sipfront

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"hereis/actors"
)

// errCaller says that a caller is neither a user of ours nor from a trunk.
var errCaller = errors.New("caller is not allowed")

// Trunk is a peer that is trusted by its address: its calls to users of ours
// need no credentials, and users of ours may call it. Over UDP an address is
// whatever its sender writes: trunks are for networks that keep forgeries out.
type Trunk struct {
	Prefix netip.Prefix
	// Port, if not 0, is the only one that is called, and over UDP the only one that calls.
	Port uint16
}

// ParseTrunk reads IP, IP:PORT or CIDR.
func ParseTrunk(s string) (Trunk, error) {
	if at, err := netip.ParseAddrPort(s); err == nil {
		a := at.Addr().Unmap()
		return Trunk{netip.PrefixFrom(a, a.BitLen()), at.Port()}, nil
	}
	if p, err := netip.ParsePrefix(s); err == nil {
		if p.Bits() == 0 {
			return Trunk{}, fmt.Errorf("%q is everybody", s)
		}
		return Trunk{Prefix: p.Masked()}, nil
	}
	if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		a = a.Unmap()
		return Trunk{Prefix: netip.PrefixFrom(a, a.BitLen())}, nil
	}
	return Trunk{}, fmt.Errorf("%q is not IP, IP:PORT or CIDR", s)
}

// Relay is a foreign domain that users of ours, and trunks, may call.
type Relay struct {
	// Domain in lower case.
	Domain string
	// Host and Port, if given, are where it is reached; otherwise the name
	// servers say (RFC 3263).
	Host string
	Port uint16
}

// ParseRelay reads DOMAIN or DOMAIN=HOST:PORT.
func ParseRelay(s string) (Relay, error) {
	domain, hop, has := strings.Cut(s, "=")
	host, port, err := parseHostPort(strings.TrimSuffix(domain, "."))
	if err != nil || port != 0 {
		return Relay{}, fmt.Errorf("%q: %q is no domain", s, domain)
	}
	r := Relay{Domain: host}
	if has {
		if r.Host, r.Port, err = parseHostPort(hop); err != nil {
			return Relay{}, fmt.Errorf("%q: %q is not HOST:PORT", s, hop)
		}
	}
	return r, nil
}

// hop is the URI that stands in for the domain's own, or nil.
func (r *Relay) hop() *uri {
	if r.Host == "" {
		return nil
	}
	text := "sip:" + bracket(r.Host)
	if r.Port != 0 {
		text += ":" + strconv.Itoa(int(r.Port))
	}
	u, err := parseURI(text)
	if err != nil {
		return nil
	}
	return &u
}

// foreign tells whether a target that is not ours is one of those that may be
// called at all, and plans the way there. The URI decides that and nothing
// beside it: one with a maddr would go elsewhere.
func (s *Server) foreign(p *plan) bool {
	u := &p.target
	if _, has := u.param("maddr"); has || u.opaque != "" {
		return false
	}
	if a, ok := addrPort(u); ok {
		for _, t := range s.cfg.Trunks {
			if t.Prefix.Contains(a.Addr()) && (t.Port == 0 || t.Port == a.Port()) {
				p.way, p.toTrunk = wayForeign, true
				return true
			}
		}
	}
	host := strings.TrimSuffix(u.host, ".")
	for i := range s.cfg.Relays {
		if r := &s.cfg.Relays[i]; r.Domain == host {
			p.way, p.hop = wayForeign, r.hop()
			return true
		}
	}
	return false
}

// fromTrunk tells whether a request comes from a trunk. What a node of ours
// sends on for a client that named the node in its Route does not, wherever nodes are.
func (s *Server) fromTrunk(r *request) bool {
	f := r.msg.Flow
	if f == nil || len(s.cfg.Trunks) == 0 || s.parts.Cluster.IsNode(f.Remote()) {
		return false
	}
	v, err := parseVia(r.vias[0])
	if err != nil {
		return false
	}
	if a, err := netip.ParseAddr(v.host); err == nil && s.parts.Cluster.IsNode(netip.AddrPortFrom(a.Unmap(), portOr(v.port, v.transport))) {
		return false
	}
	from := f.Remote()
	for _, t := range s.cfg.Trunks {
		if t.Prefix.Contains(from.Addr().Unmap()) && (t.Port == 0 || f.Reliable() || t.Port == from.Port()) {
			return true
		}
	}
	return false
}

// admit decides whether a request may be passed on. It needs no proof where a
// node of ours has accepted it (its mark), where it follows a route that we
// recorded for its dialog, or where it only asks for another node, which will
// decide. Nothing else that a client can write counts.
func (s *Server) admit(r *request, p *plan) error {
	switch {
	case p.marked, p.way == wayFlow, p.way == wayHop:
		return nil
	case s.fromTrunk(r):
		if p.toTrunk {
			// From one trunk to another is nobody's call of ours.
			return errForeign
		}
		s.count.trunkRequests.Add(1)
		return nil
	case s.digest != nil:
		return s.admitCaller(r, p)
	case p.way == wayForeign:
		return errForeign
	}
	return nil
}

// admitCaller wants the credentials of the user in From (RFC 3261 22.3). Who
// hides their name (RFC 3323 4.1.1.3) shows those of any user.
func (s *Server) admitCaller(r *request, p *plan) error {
	text, _, ok := splitAddr(r.from)
	if !ok {
		return errMessage
	}
	from, err := actors.ParseAoR(text, s.cfg.Domains)
	if err == nil {
		return s.authenticate(r, from.Domain(), from, true)
	}
	if u, e := parseURI(text); e != nil || u.host != "anonymous.invalid" {
		s.count.callersRefused.Add(1)
		return errCaller
	}
	realm := s.cfg.Domains.Default()
	if p.way == wayUser {
		realm = p.aor.Domain()
	}
	for _, h := range r.headers {
		if h.name != "Proxy-Authorization" {
			continue
		}
		a, ok, err := parseAuthorization(h.value)
		if name, served := s.cfg.Domains.Canonical(a.realm); ok && err == nil && served && name == a.realm {
			realm = name
			break
		}
	}
	return s.authenticate(r, realm, "", true)
}

// mayRedirect tells whether a call may be taken where a device says: to users
// of ours, and where it could have been made to in the first place. Otherwise a
// device could send others' calls to any gateway. hop is as in plan.
func (s *Server) mayRedirect(r *request, to uri) (hop *uri, ok bool) {
	if s.digest == nil || s.serves(&to) || s.isAddress(&to) {
		return nil, true
	}
	p := plan{target: to}
	ok = s.foreign(&p) && !(p.toTrunk && s.fromTrunk(r))
	return p.hop, ok
}
