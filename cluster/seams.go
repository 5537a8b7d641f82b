package cluster

import (
	"google.golang.org/protobuf/proto"

	"hereis/messages"
)

// Member is one node as the membership knows it: live (suspected included) or
// remembered after it failed. A member that left is not listed.
type Member struct {
	// Stable name; placement hashes it and nothing else (rule 18).
	Name        string
	Incarnation uint64
	// Stream and Remote are the ip:port of its node stream and of proto.actor's remote.
	Stream, Remote string
	// Gossip is its memberlist address.
	Gossip       string
	Region, Zone string
	Version      string
	// Draining members are edges but hold nothing.
	Draining bool
	// FailedMS is the node time at which it was declared failed; 0 while it is live.
	FailedMS int64
}

// Network carries Envelopes to other nodes. It promises nothing but this: what
// arrives is whole, came from the named node, and was sent once. An Envelope
// may be lost, and may overtake another that was sent on an earlier connection.
type Network interface {
	// Send queues env for a member. It never blocks; false means that there
	// is no connection or its queue is full, and env is dropped.
	Send(to string, env *messages.Envelope) bool
	// Ride is Send for what is in no hurry: env goes with the next Send to
	// that member, or after 10 ms.
	Ride(to string, env *messages.Envelope) bool
}

// Receiver is what a Network delivers to. Calls for one peer are in order and
// one at a time; an Envelope is the receiver's to keep.
type Receiver interface {
	Receive(from string, env *messages.Envelope)
	// PeerUp and PeerDown say that a stream to a member is usable, or is not any more.
	PeerUp(hello *messages.Hello)
	PeerDown(name string)
}

// Store keeps this node's own leases, tombstones, floors and ended flows: one
// Record per key, with nothing of other edges in it.
type Store interface {
	// Put replaces the record of rec.Aor and calls done once it is as durable
	// as the configured level says, from a goroutine of the store's and not before
	// Put returns. Nothing of rec is kept. An empty record removes the key.
	Put(rec *messages.Record, done func(error))
	// Keeps tells whether Put keeps anything: at the level "memory" there is
	// nothing to wait for.
	Keeps() bool
	// Load calls f for every stored record, before Run; from several goroutines at once, if it likes.
	Load(f func(*messages.Record) error) error
	// Err is the failure that keeps the store from writing, or nil.
	Err() error
}

// Question is what Grains are asked: a message to one key, with the merged
// state of that key and what the node knows about the members.
type Question struct {
	Message proto.Message
	// Record is the merged state; never nil, never to be changed.
	Record *messages.Record
	// NowMS is the node time.
	NowMS int64
	// StandIn: this node is the second holder and answers in the owner's place.
	StandIn bool
	// Settled: the answering node knows all there is to know of this key (rule 14).
	Settled bool
	// FailedMember: a member is remembered as failed and has not come back (rule 15).
	FailedMember bool
	// LiveEdge tells whether a node is in the view.
	LiveEdge func(node string) bool
	// EdgeIncarnation is the incarnation of a node in the view, 0 if it is
	// not there: an older vouch does not count (rule 12). Nil: nobody knows.
	EdgeIncarnation func(node string) uint64
	// AcceptedMS is the holder's node time at which it accepted the present
	// lease of a key or (nil) the floor; 0 if it came as a copy (rule 1).
	AcceptedMS func(key []byte) int64
	// NewStamp makes a stamp of this node's own, above every one that it knows (rule 2).
	NewStamp func() *messages.Stamp
}

// Answer is what Grains say to a Question.
type Answer struct {
	// Reply goes back to the asker. Grains turn an error into a messages.Failure themselves.
	Reply proto.Message
	// Writes are merged into the key's record, copied to the other holder and
	// pushed to the edges that they name; nil for none.
	Writes *messages.Record
	// All: the reply waits for the other holder and for Tell too (a removal or
	// a move); otherwise for one holder other than the edge that asked (rule 5).
	All bool
	// Tell names former edges that must drop what they hold.
	Tell []string
	// Repeat: the reply is that of an earlier delivery, whose copies may still be
	// on their way; it waits for them as the first one does (rule 5).
	Repeat bool
	// Incomplete tells that a positive answer may grow and a negative one is
	// not to be believed: the asker must ask the owner or the edges (rule 13).
	Incomplete bool
}

// Grains decide: they are the user grains' logic, a pure function of the
// question. Answer runs under the lock of one shard and must not block.
type Grains interface {
	Answer(q *Question) *Answer
	// Renews tells whether a REGISTER comes to no more than a new stamp, CSeq and
	// expiry of the only lease of a key, of which nothing waits for anybody; the
	// expiry is in node time. What it says no to is for Answer. It keeps nothing
	// of r and rec, whose memory is used again.
	Renews(r *messages.Register, rec *messages.Record, nowMS int64) (expiresMS int64, ok bool)
	// Begins tells whether a REGISTER for a key of which nothing is known comes to no
	// more than one lease, and writes it. The lease shares r's memory and that of
	// room, which is returned to be used again.
	Begins(r *messages.Register, lease *messages.Lease, room []byte, nowMS int64) (used []byte, ok bool)
	// Changed tells whether those who follow a user can see the difference
	// between its record before and after a change, both at node time nowMS: not
	// of a refresh. An expiry is seen with a before that has not expired.
	Changed(before, after *messages.Record, nowMS int64) bool
	// Shown is what followers are given of a record: the leases, live or dead,
	// of the kinds that can be seen, the floor, and ended flows.
	Shown(rec *messages.Record) *messages.Record
	// Tell is told of every change of a record, expiries apart, that this node
	// makes or learns of as owner, or makes as stand-in. It says which nodes
	// are to hear what of it; nil: nobody.
	Tell(before, after *messages.Record, nowMS int64) (msg *messages.StateChanged, nodes []string)
	// Remind is told of every record that this node has come to own, with a nil
	// before, and of every change of one that it owns by which it learns of an
	// interest otherwise than by a question here and Tell says nothing: who has the
	// interest may have missed what this node took in before.
	Remind(before, after *messages.Record, nowMS int64) (msg *messages.StateChanged, nodes []string)
}

// Flows tells the edge's front end's side of the story (rules 3, 12).
type Flows interface {
	// Open tells whether a stream flow of this process is open.
	Open(flow *messages.FlowID) bool
	// Superseded tells that a lease of this edge has been moved or removed:
	// no keep-alive is sent on its account any more.
	Superseded(lease *messages.Lease)
}
