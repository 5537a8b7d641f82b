package hereis

import (
	"net/netip"

	"hereis/sipfront"
)

// sipAddresses are the advertised SIP addresses, UDP first: those of the
// sockets, with the address that the operator gave where they listen at all of
// the host's, and with its port in the place of the first one's.
func (n *Node) sipAddresses() []sipfront.Address {
	adv, _ := n.cfg.AdvertiseAddr()
	var out []sipfront.Address
	listened := map[string][]netip.AddrPort{"udp": n.transport.Addrs(), "tcp": n.transport.TCPAddrs()}
	var first netip.AddrPort
	for _, network := range sipTransports {
		for _, at := range listened[network] {
			if !first.IsValid() {
				first = at
			}
			port := at.Port()
			if port == first.Port() && adv.Port() != 0 {
				port = adv.Port()
			}
			if at.Addr().IsUnspecified() || at == first {
				at = netip.AddrPortFrom(adv.Addr(), port)
			}
			out = append(out, sipfront.Address{Transport: network, Addr: at})
		}
	}
	return out
}

func (n *Node) sipAddrs() []string {
	var out []string
	for _, a := range n.sipAddresses() {
		out = append(out, a.Transport+":"+a.Addr.String())
	}
	return out
}

// advertised is what other nodes dial for an address that this one listens at.
func (n *Node) advertised(listen string) string {
	at, err := netip.ParseAddrPort(listen)
	if err != nil || !at.Addr().IsUnspecified() {
		return listen
	}
	adv, ok := n.cfg.AdvertiseAddr()
	if !ok {
		return listen
	}
	return netip.AddrPortFrom(adv.Addr(), at.Port()).String()
}
