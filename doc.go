// Package hereis is one node of a distributed SIP registrar, proxy and presence
// engine. A cluster of nodes asks "WHEREIS alice?" and one of them answers
// "HEREIS"; there is no database, cache server or broker beside it.
//
// # The words
//
// An AoR is a user's canonical address, sip:alice@example.com. A Contact is
// what a device sent; a Binding is what is kept of it. A Flow is the way to a
// device: a connection or a UDP 4-tuple at one node, its edge. Everything that
// an edge vouches for until an expiry is a lease; leases of one AoR merge, last
// writer wins, at the AoR's owner and its backup: the first and the second node
// in the rendezvous order of the AoR among the live members.
//
// # One REGISTER
//
//	socket -> sipfront/transport -> transaction -> sipfront (register.go)
//	-> actors.Client -> cluster.Node.Ask -> the owner's gate
//	-> actors.User (location.go, RFC 3261 10.3) -> copy to the backup -> reply
//	-> the edge keeps its lease (cluster/store) -> 200
//
// # One INVITE
//
//	socket -> transaction -> sipfront (invite.go) -> Locate at the owner
//	-> fork: a flow of this node is used, a target at another edge is just the
//	next SIP hop, steered by an authenticated flow token
//
// # Use it
//
// New wires a node from a Config; Run owns every goroutine of it and returns
// when its context ends. Handle and Ask add message types of your own: to a
// node, to a user's grain, to a region, to everybody.
package hereis
