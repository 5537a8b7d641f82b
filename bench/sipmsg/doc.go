// Package sipmsg reads and writes the few SIP messages that a load generator
// needs, in the syntax of RFC 3261 clause 7, without allocation. It shares no
// code with the server under test, so that both cannot be wrong together. It
// is no general SIP library: start lines, header lines and the handful of
// fields that the scenarios look at.
package sipmsg
