// Package cluster makes many processes one registrar: who is a member, which
// two members hold the state of a key, how a question reaches them, and how
// copies are kept and repaired. It moves and merges leases for named keys and
// never says SIP: what a lease means is decided by the Grains that its caller
// hands in.
//
// The rules are numbered in docs/consistency.md. Everything that decides is
// plain Go driven by events (core.go and what it owns: view.go and settle.go,
// placement.go, gate.go and pull.go, record.go, repair.go with ack.go, scan.go
// and digest.go, edge.go, expiry.go, ask.go, watch.go): a message, a change of members, a tick, each
// with the node time. It has no clock, no goroutine and no IO, so that a
// simulation runs the same code as a node does. Shells around it do the rest:
// stream.go (framed streams between nodes), gossip.go (members by memberlist),
// actorsystem.go (proto.actor), store/ (Badger), node.go (who runs them).
package cluster
