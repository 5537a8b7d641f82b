// Package sipfront is the SIP core of a node: the registrar's front (RFC 3261
// 10), and a forking, record-routing proxy (RFC 3261 16) above the transaction
// layer. It asks the cluster two questions, Register and Locate, and knows
// nothing of how they are answered.
//
// One REGISTER: server.go (request) → route.go (plan) → register.go: Contacts,
// Path and the flow-or-contact decision become a messages.Register, its answer
// a 200. status.go is the one table from errors to answers.
//
// One INVITE: server.go → route.go: Route headers of ours are taken off, a
// flow token is believed before any domain test → invite.go: Locate, and how
// each target is reached from here → fork.go: the response context of 16.7, with
// best.go and redirect.go → branch.go and timers.go: one device, its ways
// (ways.go) tried in turn → forward.go: the copy that is sent. relay.go has what
// needs no transaction: ACK for a 2xx, stray 2xx.
//
// Calls cross nodes as SIP. A target at another edge is a Route with a flow
// token (flowtoken.go) to that edge, and a request between nodes has a mark
// (mark.go) that no client can make. Our Record-Route has both flows of the
// dialog in its token, so any node finds the way, past a node that is gone too.
// Such a token leads to the peer of its dialog alone, and is never a mark.
//
// Messages are read from their bytes (message.go, header.go, uri.go, contact.go) and
// written as they came but for what the RFC has a proxy change.
package sipfront
