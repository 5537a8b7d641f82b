package sipfront

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"hereis/actors"
	"hereis/messages"
	"hereis/sipfront/event"
)

// listMember is one member of a resource list that is watched (RFC 4662): a
// virtual subscription to one user, whose news go into the list's NOTIFYs.
// Guarded by the notifier's mutex.
type listMember struct {
	m *messages.ListMember
	// sub is the virtual subscription: it has no dialog. Nil: the member is not
	// watched, for reason.
	sub    *subscription
	reason string
	// dirty: there may be something new to tell of the member.
	dirty bool
}

// membersAtOnce is how many owners a SUBSCRIBE to a list asks at a time.
const membersAtOnce = 16

// Option tags of resource lists.
const (
	tagEventlist = "eventlist"                // RFC 4662 4
	tagListBody  = "recipient-list-subscribe" // RFC 5367 4
)

// readList makes p a subscription to a resource list if the SUBSCRIBE brings one
// (RFC 5367), or its address is one that is configured.
func (s *Server) readList(r *request, p *messages.Subscription) error {
	members, err := s.listOf(r, p.Aor)
	switch {
	case err != nil:
		return err
	case members == nil && p.List && r.toTag != "" && !s.configured(p.Aor):
		return nil // a refresh without a body: the list stays (RFC 5367 4)
	case members == nil:
		if p.List {
			return errNoDialog // the list is not configured any more
		}
		return nil
	case r.toTag != "" && !p.List:
		return fmt.Errorf("%w: a list for what is none", errMessage)
	case len(members) > s.cfg.MaxListMembers:
		s.count.subscriptionsRefused.Add(1)
		return errMembers
	case strings.HasSuffix(p.Event, ".winfo"):
		return eventError{s.watch.names}
	case !r.hasToken("Supported", tagEventlist) && !r.hasToken("Require", tagEventlist):
		return errEventlist
	}
	if accept := r.values("Accept"); len(accept) > 0 {
		if _, ok := acceptable([]string{event.ListMediaType}, accept); !ok {
			return errAccept
		}
	}
	same := p.List && slices.EqualFunc(members, p.Members, func(a event.Resource, b *messages.ListMember) bool { return a.URI == b.Uri })
	if same {
		return nil
	}
	p.List, p.Members = true, nil
	for _, m := range members {
		aor, err := actors.ParseAoR(m.URI, s.cfg.Domains)
		if err != nil {
			aor = "" // nobody of ours: told of as such
		}
		p.Members = append(p.Members, &messages.ListMember{
			Uri: m.URI, Name: m.Name, Aor: string(aor), Instance: strconv.FormatUint(s.rand(), 36),
		})
	}
	return nil
}

// listOf is the list that a SUBSCRIBE is about; nil if it is about a user.
func (s *Server) listOf(r *request, aor string) ([]event.Resource, error) {
	text, _ := r.value("Content-Type")
	mediaType := mediaTypeOf(text)
	if r.body != "" && mediaType == event.TypeResourceLists {
		members, err := event.ParseResourceLists(mediaType, []byte(r.body), s.cfg.MaxListMembers)
		if many := (event.TooManyResourcesError{}); errors.As(err, &many) {
			s.count.subscriptionsRefused.Add(1)
			return nil, fmt.Errorf("%w: %v", errMembers, err)
		}
		return members, err
	}
	if r.hasToken("Require", tagListBody) {
		return nil, mediaError{[]string{event.TypeResourceLists}}
	}
	if s.parts.List == nil {
		return nil, nil
	}
	members, ok := s.parts.List(aor)
	if ok && members == nil {
		members = []event.Resource{}
	}
	return members, nil
}

func (s *Server) configured(aor string) bool {
	if s.parts.List == nil {
		return false
	}
	_, ok := s.parts.List(aor)
	return ok
}

// attachMembers has every member of a list watched.
func (n *notifier) attachMembers(sub *subscription) {
	now := n.nowMS()
	for _, m := range sub.p.Members {
		lm := &listMember{m: m, dirty: true}
		sub.members = append(sub.members, lm)
		switch {
		case m.Aor == "":
			lm.reason = "noresource"
			continue
		case n.users[m.Aor] != nil && n.users[m.Aor].subs() >= n.s.cfg.MaxWatchers:
			lm.reason = "probation"
			continue
		}
		v := &subscription{pkg: sub.pkg, parent: sub, member: lm, version: sub.version}
		v.p = memberSubscription(sub.p, m, n.s.rand())
		v.verdict = n.verdictOf(v.p)
		v.accepted = v.verdict != event.Block
		v.user = n.user(m.Aor)
		v.of = v.user.package_(v.pkg)
		v.of.subs = append(v.of.subs, v)
		if v.of.state == nil && v.user.Known() {
			n.renew(v.user, v.of, now)
		}
		lm.sub = v
		n.virtual++
		n.ask(v.user)
	}
}

// memberSubscription is the virtual subscription to a member of a list.
func memberSubscription(list *messages.Subscription, m *messages.ListMember, id uint64) *messages.Subscription {
	return &messages.Subscription{
		Id: id, Aor: m.Aor, Event: list.Event, MediaType: list.MediaType, Watcher: list.Watcher,
		Authenticated: list.Authenticated, SinceMs: list.SinceMs, ExpiresMs: list.ExpiresMs,
	}
}

// detachMembers ends the virtual subscriptions of a list. What is known of the
// members stays for a last NOTIFY.
func (n *notifier) detachMembers(sub *subscription) {
	for _, lm := range sub.members {
		if lm.sub != nil && !lm.sub.gone {
			n.detach(lm.sub)
			n.virtual--
		}
	}
}

// renewMembers follows a refresh: the members may be others, and are watched
// for longer.
func (n *notifier) renewMembers(sub *subscription) {
	same := slices.EqualFunc(sub.members, sub.p.Members, func(a *listMember, b *messages.ListMember) bool { return a.m.Instance == b.Instance })
	// Whoever had too many watchers may have room by now.
	later := slices.ContainsFunc(sub.members, func(lm *listMember) bool { return lm.reason == "probation" })
	if !same || later {
		n.detachMembers(sub)
		sub.members = nil
		n.attachMembers(sub)
		return
	}
	for _, lm := range sub.members {
		if lm.sub != nil {
			p := proto.CloneOf(lm.sub.p)
			p.ExpiresMs = sub.p.ExpiresMs
			lm.sub.p = p
			n.ask(lm.sub.user)
		}
	}
}

// askMembers asks the owners of the members of a list, so that the first NOTIFY
// has them all; whose owner does not answer in time comes later.
func (n *notifier) askMembers(ctx context.Context, sub *subscription) {
	var ask []*watched
	n.mu.Lock()
	for _, lm := range sub.members {
		if lm.sub != nil && !lm.sub.user.Known() {
			ask = append(ask, lm.sub.user)
		}
	}
	n.mu.Unlock()
	var g errgroup.Group
	g.SetLimit(membersAtOnce)
	for _, u := range ask {
		g.Go(func() error {
			if err := n.askOwner(ctx, u); err != nil {
				n.s.log.Debug("member of a list not known yet", "aor", u.aor, "err", err)
			}
			return nil
		})
	}
	_ = g.Wait() // no question fails the list
}

// reauthorizeMembers decides anew on the members of a list.
func (n *notifier) reauthorizeMembers(sub *subscription, now int64) {
	for _, lm := range sub.members {
		if lm.sub == nil {
			continue
		}
		v := n.verdictOf(lm.sub.p)
		if v == lm.sub.verdict {
			continue
		}
		lm.sub.verdict, lm.sub.accepted = v, v != event.Block
		lm.sub.told, lm.sub.force, lm.dirty = nil, true, true
		n.due(sub, now)
		n.ask(lm.sub.user)
	}
}

// news tells whether there is something new to tell of a member.
func (n *notifier) news(lm *listMember) bool {
	switch v := lm.sub; {
	case v == nil || !lm.dirty:
		return false
	case v.force:
		return true
	case v.verdict == event.Block || v.verdict == event.Confirm || v.of.state == nil:
		return false
	default:
		return v.told == nil || v.pkg.Changed(v.told, n.shown(v))
	}
}

// listNews tells whether there is something new to tell of a list.
func (n *notifier) listNews(sub *subscription) bool {
	return slices.ContainsFunc(sub.members, n.news)
}

// composeList makes the document of a list: all of it if this is the first, or
// the last one may not have arrived, and otherwise what is new (RFC 4662 5.1).
func (n *notifier) composeList(sub *subscription) event.Document {
	l := event.List{URI: sub.p.Aor, Version: sub.version, Full: sub.told == nil}
	for _, lm := range sub.members {
		if l.Full || n.news(lm) {
			l.Members = append(l.Members, n.composeMember(lm, l.Full))
		}
		lm.dirty = false
	}
	sub.told = sub.of.state
	sub.version++
	return l.Document()
}

// composeMember is one member of a list document.
func (n *notifier) composeMember(lm *listMember, full bool) event.Member {
	out := event.Member{Resource: event.Resource{URI: lm.m.Uri, Name: lm.m.Name}, Instance: lm.m.Instance}
	v := lm.sub
	if v == nil {
		out.State, out.Reason = "terminated", lm.reason
		return out
	}
	v.force = false
	switch {
	case v.verdict == event.Block:
		out.State, out.Reason = "terminated", "rejected"
	case v.verdict == event.Confirm:
		out.State = "pending"
	case v.of.state == nil: // nothing is known yet: a resource without an instance
	default:
		if full {
			v.told = nil
		}
		doc := n.compose(v)
		out.State, out.Document = "active", &doc
	}
	return out
}
