// Package resolve is RFC 3263: from a host, perhaps a port and a transport, to
// the addresses to try in order. SRV and A/AAAA records are asked for; NAPTR is
// not, since it only tells which of the transports to ask SRV for and every one
// that the node speaks is asked. It opens no socket to a peer. Start with
// resolve.go; ResolveNumeric is the way without waiting.
package resolve
