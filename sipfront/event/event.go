package event

import "errors"

// Errors of Check; the front end answers 415 and 400.
var (
	// ErrMediaType: the package has no documents of this media type (RFC 3903 6, step 5: 415).
	ErrMediaType = errors.New("media type is not of this event package")
	// ErrDocument: the document is broken, or larger or deeper than allowed (400).
	ErrDocument = errors.New("broken document")
)

// Package is one event package (RFC 6665 5.4). Its methods are safe for
// concurrent use and keep nothing of what they are given.
type Package interface {
	// Name is the token of the Event header field, such as "presence".
	Name() string
	// NotifyTypes are the media types that it can send, the default first.
	// A SUBSCRIBE whose Accept has none of them is answered 406.
	NotifyTypes() []string
	// PublishTypes are the media types that may be published (RFC 3903); none:
	// PUBLISH is answered 489.
	PublishTypes() []string
	// Check tells whether a body may be published: nil, ErrMediaType or
	// ErrDocument, possibly wrapped. It bounds size and depth itself.
	Check(mediaType string, body []byte) error
	// Changed tells whether a watcher who was told of one state must be told of
	// the other: NowMS alone is no change, nor is anything that no document of
	// this package shows.
	Changed(told, now *State) bool
	// Compose makes the document for one watcher. It returns a Document without
	// body where the package has nothing to say (a NOTIFY without body), and
	// depends on its argument alone: equal states give equal bodies.
	Compose(c *Composition) (Document, error)
}

// Uniform is a Package whose documents depend on State and MediaType alone: one
// document is made for all watchers.
type Uniform interface {
	Package
	Uniform()
}

// Composition is what Compose works on.
type Composition struct {
	// State is the user as it is now.
	State *State
	// Told is the State that this watcher's last document was made of; nil for the
	// first document, after SUBSCRIBE, and whenever a full state is due.
	Told *State
	// Version counts the documents of one subscription, from 0 (RFC 3680 5,
	// RFC 4235 4.1); it never goes back. Versioned documents carry it.
	Version uint32
	// MediaType is the one of NotifyTypes that the watcher accepts.
	MediaType string
	// Watcher is the AoR of the watcher, empty if it is not known.
	Watcher string
}

// Document is the body of a NOTIFY or of a part of one.
type Document struct {
	MediaType string
	Body      []byte
}

// State is what is known of one user (a presentity, RFC 2778) at one moment. Its
// slices are in an order that is the same at every node; all of it is read-only.
type State struct {
	// AoR in canonical form, "sip:alice@example.com".
	AoR string
	// NowMS is the node time in ms, to which expiries compare.
	NowMS int64
	// Devices are the live bindings.
	Devices []Device
	// Removed are the IDs of bindings that something other than their devices and
	// time has ended: an operator, or the loss of the connection that alone led
	// there. Only the package "reg" is given them.
	Removed map[string]bool
	// Publications are the live ones of the composed package, oldest first.
	Publications []Publication
	// Watchers are the subscriptions to this user in the package that a winfo
	// package speaks of (RFC 3857), nil for others.
	Watchers []Watcher
}

// Device is one binding of the user (RFC 3680 has its fields).
type Device struct {
	// ID is stable for the life of the binding and fit for an XML attribute.
	ID         string
	Contact    string   // URI as registered, without brackets
	Params     []string // header parameters of the Contact, as sent, without ';'
	Q          uint32   // thousandths, 1000 when absent
	CallID     string
	CSeq       uint32
	InstanceID string
	RegID      uint32
	UserAgent  string
	// DisplayName of the Contact, unquoted.
	DisplayName string
	// From is the network address and transport that it registered from, as
	// "udp 192.0.2.1:5060"; a publication with the same From is this device's.
	From string
	// SinceMS and ExpiresMS are node times in ms.
	SinceMS, ExpiresMS int64
}

// Publication is one event state that a device has published (RFC 3903).
type Publication struct {
	// ID is stable over refreshes and modifications (the entity tag is not).
	ID        string
	MediaType string
	Body      []byte
	// From is as in Device; empty if it is not known.
	From string
	// StampMS is the node time, in ms, of its last change, not of a refresh.
	StampMS   int64
	ExpiresMS int64
}

// Dialog is one call of the user (RFC 4235 4.1).
type Dialog struct {
	ID string
	// CallID and tags as the user's device has them; RemoteTag may not be known yet.
	CallID, LocalTag, RemoteTag string
	// Direction is "initiator" if the user called, else "recipient".
	Direction string
	// State is "trying", "proceeding", "early", "confirmed" or "terminated".
	State string
	// Remote is the URI of the other side.
	Remote string
}

// Watcher is one subscription (RFC 3857 4.7).
type Watcher struct {
	ID string
	// AoR of the watcher.
	AoR string
	// Status is "pending", "active", "waiting" or "terminated".
	Status string
	// Event is why it has that status: "subscribe", "approved", "deactivated",
	// "probation", "rejected", "timeout", "giveup" or "noresource".
	Event string
	// SinceMS and ExpiresMS are node times in ms.
	SinceMS, ExpiresMS int64
}
