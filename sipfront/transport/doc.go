// Package transport is RFC 3261 clause 18 for a proxy: sockets, flows, and the
// guard before and after the parser. Bytes in, messages out. It knows nothing
// of transactions or users. Start with flow.go, then guard.go.
package transport
