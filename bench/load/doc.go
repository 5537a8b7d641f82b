// Package load sends SIP to a server and measures how it is answered. A run
// has a scenario (register, refresh, locate, call), endpoints with a socket
// each, and a pace: a closed loop keeps a window of requests outstanding; an
// open loop starts them at a rate, and a late start counts from the time at
// which it was due, so that a server that stalls cannot hide it.
//
// Users are derived from an index, so their number costs no memory. Every
// answer is validated: one that is not for the request, or does not say what
// the RFC requires, is an error under a name of its own.
//
// Start with run.go; endpoint.go has the socket and the transactions.
package load
