// Package resolve is RFC 3263: from a host, perhaps a port and a transport, to
// the addresses to try in order. NAPTR says which transports a domain offers,
// SRV which servers, in order of priority and by chance of their weights, A and
// AAAA where they are; each answer is remembered for as long as its records say,
// a definite "no" too. The host's own table of names stands before DNS.
//
// It opens no socket to a peer. Start with resolve.go; dns.go asks the servers.
// ResolveNumeric is the way without waiting.
package resolve
