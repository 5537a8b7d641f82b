package cluster

import "sync/atomic"

// Stats counts what the cluster part of a node has done since it started.
type Stats struct {
	// Questions asked at this node, and those answered by this node's own gate.
	Asks, LocalAsks atomic.Int64
	// Requests sent on by a gate that disagreed about placement.
	Forwards atomic.Int64
	// Questions sent to the backup because the owner was slow, and retries of any kind.
	Hedges, FailOvers, AskRetries atomic.Int64
	// Questions without an answer by their deadline, and those refused by a cap.
	Unanswered, Overloaded atomic.Int64
	// Requests that came too late to be executed.
	TooLate atomic.Int64
	// Answers that no question waits for, and messages that cannot be read.
	StrayReplies, BadMessages atomic.Int64
	// Panics caught while a message was handled.
	Panics atomic.Int64
	// First copies of a write to the other holder, and all other pushed records.
	Copies, Pushes atomic.Int64
	// Pushes repeated for want of an acknowledgement, and records whose offer sufficed.
	Retries, Offers atomic.Int64
	// Replies sent though a copy had not been acknowledged in time (rule 5).
	Undercopied atomic.Int64
	// Records completed from holders, and from all members (WHEREIS; rule 11).
	Pulls, Broadcasts atomic.Int64
	// Broadcasts refused by the cap.
	BroadcastsRefused atomic.Int64
	// Requests refused as they would have brought a user too many.
	UsersRefused atomic.Int64
	// Messages that the network would not take.
	SendDrops atomic.Int64
	// Messages that went by a third node for want of a stream, here first or on their way.
	Relayed atomic.Int64
	// Requests that wait at the gate.
	Parked atomic.Int64
	// Dead keys dropped before their time because an AoR had too many (rule 4).
	DeadEvicted atomic.Int64
	// Events sent to nodes that follow users, and listings by which a node's
	// copy was made or mended.
	Events, Listings atomic.Int64
	// Changes of a user's state told to nodes that have an interest in it: one
	// for each such node.
	Tells atomic.Int64
	// Buckets found different by digests.
	Differing atomic.Int64
	// View changes, and rounds.
	Rounds atomic.Int64
	// Writes to disk that failed, users whose leases here are still to be written
	// again, and failed writes that were not remembered (Config.MaxUnstored).
	DiskErrors, Unstored, UnstoredLost atomic.Int64
}

// Tables is how much a node holds, by role.
type Tables struct {
	// AoRs in all, and as owner, as backup, as edge alone, and kept for others
	// until they have it.
	AoRs, Owned, Backup, Edge, Former int
	// Leases in all, live ones, and those of this edge.
	Leases, Live, Own int
	// Records with something unacknowledged.
	Unacknowledged int
}
