// Package actors decides what a user's state means. It holds the canonical
// form of an address-of-record (uri.go, domains.go), the registrar of RFC 3261
// 10.3 on the merged leases of one user (location.go, contacts.go), where the
// user can be called (targets.go), the typed questions that a front end asks
// (client.go), the errors that survive the wire (errors.go) and the proto.actor
// kind "user" (user.go).
//
// State is plain Go: a Question comes in with a message, the merged record and
// the node time, an Answer goes out with the reply and the leases to write.
// There is no clock, lock, actor, store or log here, so that the simulation and
// the property tests run the code that a node runs. The numbered rules that it
// follows are in docs/consistency.md.
//
// It is not the cluster: who holds a user's record, how it is copied and when
// a view is settled is told to it. It is not SIP: messages, status codes and
// header fields are the front end's.
//
// Start with location.go.
package actors
