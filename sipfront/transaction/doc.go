// Package transaction is RFC 3261 clause 17 with RFC 6026, for a proxy: client
// and server machines for INVITE and for the others, matched by branch. The
// machines are driven by events (message, timer, transport error) and have no
// clock of their own. What differs from a user agent's layer: a CANCEL does not
// end an INVITE server transaction (the proxy waits for its branches), a 2xx
// leaves it in Accepted so that later 2xx pass, and a non-INVITE server
// transaction leaves nothing behind but its last answer in a byte-capped cache.
//
// Start with api.go, the contract with the core; then machine.go and the two
// files beside it, the machines; layer.go matches messages to them, server.go
// and client.go let happen what they say.
package transaction
