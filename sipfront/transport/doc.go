// Package transport is RFC 3261 clause 18 for a proxy: sockets, flows, and the
// guard before and after the parser. Bytes in, messages out. It knows nothing
// of transactions or users.
//
// Start with flow.go, the contract. A datagram goes from udp.go, a message on a
// connection from stream.go, through guard.go (lines and limits) and parse.go
// (the message model and its validation) to receive.go, which hands it up or
// answers it 400, 505 or 513 from its lines as they came. Most datagrams are
// plain: scan.go finds in one pass what transactions know them by, and they need
// no model.
package transport
