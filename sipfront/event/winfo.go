package event

import (
	"slices"
	"strconv"
)

const (
	nsWinfo   = "urn:ietf:params:xml:ns:watcherinfo"
	typeWinfo = "application/watcherinfo+xml"
)

// Winfo is the template package "winfo" (RFC 3857) applied to another package:
// who watches a user there. Its documents are those of RFC 3858.
type Winfo struct {
	// Of is the package whose watchers are listed, such as "presence".
	Of string
}

var _ Package = Winfo{}

// Name is that of the other package with ".winfo".
func (w Winfo) Name() string { return w.Of + ".winfo" }

// NotifyTypes is the one of RFC 3857 4.4.
func (Winfo) NotifyTypes() []string { return []string{typeWinfo} }

// PublishTypes: none.
func (Winfo) PublishTypes() []string { return nil }

// Check refuses everything.
func (Winfo) Check(string, []byte) error { return ErrMediaType }

// Changed compares who watches, and how; a refresh is no change (RFC 3857 4.7.1).
func (Winfo) Changed(told, now *State) bool {
	return !slices.EqualFunc(told.Watchers, now.Watchers, sameWatcher)
}

func sameWatcher(a, b Watcher) bool {
	return a.ID == b.ID && a.AoR == b.AoR && a.Status == b.Status && a.Event == b.Event
}

// Compose makes a full document first, then partial ones with those whose
// status has changed (RFC 3858 4).
func (w Winfo) Compose(c *Composition) (Document, error) {
	state := "full"
	if c.Told != nil {
		state = "partial"
	}
	root := newElement(nsWinfo, "watcherinfo", "").
		set("version", strconv.FormatUint(uint64(c.Version), 10)).set("state", state)
	list := root.add(nsWinfo, "watcher-list", "").set("resource", c.State.AoR).set("package", w.Of)
	for i := range c.State.Watchers {
		one := &c.State.Watchers[i]
		if before := watcherOf(c.Told, one.ID); before == nil || !sameWatcher(*before, *one) {
			addWatcher(list, one, one.Status, one.Event, c.State.NowMS)
		}
	}
	if c.Told != nil {
		for i := range c.Told.Watchers {
			one := &c.Told.Watchers[i]
			if watcherOf(c.State, one.ID) == nil && one.Status != "terminated" {
				addWatcher(list, one, "terminated", "timeout", c.State.NowMS)
			}
		}
	}
	return Document{MediaType: typeWinfo, Body: root.marshal()}, nil
}

func watcherOf(s *State, id string) *Watcher {
	if s == nil {
		return nil
	}
	i := slices.IndexFunc(s.Watchers, func(w Watcher) bool { return w.ID == id })
	if i < 0 {
		return nil
	}
	return &s.Watchers[i]
}

func addWatcher(list *element, w *Watcher, status, event string, nowMS int64) {
	e := list.add(nsWinfo, "watcher", w.AoR).set("id", xmlID(w.ID)).set("status", status).set("event", event)
	e.set("duration-subscribed", seconds(nowMS-w.SinceMS))
	if status == "active" || status == "pending" {
		e.set("expiration", seconds(w.ExpiresMS-nowMS))
	}
}
