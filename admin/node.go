package admin

import (
	"context"
	"errors"
	"time"

	"google.golang.org/protobuf/proto"

	"hereis/messages"
)

// Errors of a Node that have a status of their own; any other is 500, or 504
// if it is the context's.
var (
	// ErrBadRequest: the question makes no sense, as an AoR that is none: 400.
	ErrBadRequest = errors.New("bad request")
	// ErrNotFound: there is no such node or user: 404.
	ErrNotFound = errors.New("not found")
	// ErrUnavailable: ask again later: 503.
	ErrUnavailable = errors.New("unavailable")
)

// Node is what the API needs from the node that it stands before. All methods
// may be called at any time, also while the node starts and stops.
type Node interface {
	// Where asks the owner of an AoR what is known of it. People write an AoR as
	// they like: sip:alice@example.com, alice@example.com, or alice alone for one
	// of the first domain.
	Where(ctx context.Context, aor string) (*messages.Whereabouts, error)
	// Members lists the nodes that this one knows, itself included, by name.
	Members() []Member
	// Send asks to (a node's name, an AoR, or "all") a question and returns one
	// reply for every node asked. An error says that nobody could be asked.
	Send(ctx context.Context, to string, question proto.Message) ([]Reply, error)
	// Watch follows the users of a query, from the whole cluster, until the
	// Watcher is closed.
	Watch(ctx context.Context, q WatchQuery) (Watcher, error)
	// List gives each the users who match pattern and are online, in the whole
	// cluster; nowMS is the node time to which their expiries compare. An error of
	// each ends it.
	List(ctx context.Context, q ListQuery, each func(rec *messages.Record, nowMS int64) error) (ListEnd, error)
	// Count asks every node how many of the users that match pattern it owns.
	Count(ctx context.Context, pattern string) ([]NodeCount, error)
	// Watchers asks every node who watches a user there, for limit watchers of
	// each at most. canonical is the AoR that was meant.
	Watchers(ctx context.Context, aor string, limit int) (canonical string, nodes []NodeWatchers, err error)
	// Remove ends one binding of a user, named by its key or its Contact, or all
	// of them if binding is empty.
	Remove(ctx context.Context, aor, binding string) (*messages.Removed, error)
	// PlanCall asks what an INVITE to a user would do now.
	PlanCall(ctx context.Context, aor string) (*CallPlan, error)
	// Healthy is nil while the node can do its work, or says what a person must
	// see to. A node that is not goes on as far as it can.
	Healthy() error
	// Drain makes the node hold nothing for others and take no new
	// registrations and calls, or (undo) take them again.
	Drain(undo bool) error
	// DrainStatus tells how far a drain has come.
	DrainStatus() Drain
	// Forget drops a failed member everywhere; ErrNotFound if there is none.
	Forget(name string) error
	// Ready is nil when the node serves, or says what it waits for.
	Ready() error
	// Info describes the node.
	Info() Info
	// Stats are the node's numbers by name: "transactions" or, with labels,
	// `requests_total{method="REGISTER"}`. Names that end in _total only grow.
	Stats() map[string]float64
}

// MemberState is what a node thinks of another.
type MemberState string

// The states of a member.
const (
	MemberLive     MemberState = "live"
	MemberDraining MemberState = "draining"
	MemberFailed   MemberState = "failed"
)

// Member is one node of the cluster.
type Member struct {
	Name        string      `json:"name"`
	State       MemberState `json:"state"`
	Incarnation uint64      `json:"incarnation,string"`
	Region      string      `json:"region,omitempty"`
	Zone        string      `json:"zone,omitempty"`
	// SIP lists its addresses as udp:ip:port; unknown until a stream to it was up.
	SIP    []string `json:"sip,omitempty"`
	Gossip string   `json:"gossip"`
	Stream string   `json:"stream"`
	Remote string   `json:"remote"`
	// Admin is the address of its API, as far as it told.
	Admin   string `json:"admin,omitempty"`
	Version string `json:"version,omitempty"`
	// FailedMS is the node time, in ms, at which it was declared failed; 0 otherwise.
	FailedMS int64 `json:"failed_ms,omitempty"`
	// Self marks the node that answers.
	Self bool `json:"self,omitempty"`
}

// Reply is the answer of one node to Send.
type Reply struct {
	Node   string
	Answer proto.Message
	// Err is set if the node did not answer, or answered with a failure.
	Err error
}

// WatchQuery says who is watched, and how.
type WatchQuery struct {
	// Pattern is an AoR as people write it, a domain as "@example.com", or "*".
	Pattern string
	// From is the ID of the last event seen; empty: none.
	From string
	// Snapshot: begin with those who are online, if From does not say where to go on.
	Snapshot bool
	// Damp is how long who goes offline must stay so.
	Damp time.Duration
}

// Watcher gives events, one after the other.
type Watcher interface {
	// Next waits for an event. Its error is ctx's, or that the node has stopped.
	Next(ctx context.Context) (*UserEvent, error)
	// Position is the ID to go on from now, or empty if there is none better than
	// that of the last event.
	Position() string
	Close()
}

// UserEvent is what a Watcher gives.
type UserEvent struct {
	// ID is where to go on; empty within a list, which has no place to go on from.
	ID string
	// Kind is "online", "offline", "changed", "presence", "state", "sync-begin" or "sync-end".
	Kind string
	// AoR is the user; empty for a mark of a sync, of which Complete tells whether everybody was named.
	AoR              string
	Online, Complete bool
	Reason           string
	// Device is what caused it, Devices those within reach after it.
	Device  *messages.Lease
	Devices []*messages.Lease
	// Basic is "open", "closed" or empty, Notes what people wrote, Published the
	// documents that these are from.
	Basic     string
	Notes     []string
	Published []*messages.Publication
	// MS is the node time.
	MS int64
}

// ListQuery says which users are listed.
type ListQuery struct {
	// Pattern as in WatchQuery; Cursor is the AoR after which to go on, empty to
	// begin; Limit how many users at most, 0 for all.
	Pattern, Cursor string
	Limit           int
}

// ListEnd is how a list ended.
type ListEnd struct {
	// Cursor to go on from; empty: there is no more.
	Cursor string
	// Missing nodes did not answer. Node and Err alone are set.
	Missing []Reply
	// Settled: the members had not just changed.
	Settled bool
}

// NodeCount is one node's share of the users. Err: it did not answer.
type NodeCount struct {
	Node            string
	Users, Bindings uint64
	Err             error
}

// CallPlan is what an INVITE would do: Targets in order, or Status.
type CallPlan struct {
	Targets []*messages.Target
	// Final: the owner said so, in a settled view.
	Final  bool
	Status int
	Reason string
}

// Info describes a node.
type Info struct {
	Name        string   `json:"name"`
	Incarnation uint64   `json:"incarnation,string"`
	Version     string   `json:"version"`
	Go          string   `json:"go"`
	SIP         []string `json:"sip"`
	// Domains are the served domains, without aliases; the first is the default.
	Domains []string `json:"domains"`
}
