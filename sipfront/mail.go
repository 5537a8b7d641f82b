package sipfront

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"hereis/actors"
	"hereis/messages"
)

// Mailbox keeps messages for users who are offline, as leases of this node.
type Mailbox interface {
	// StoreMessage returns when the message is stored and copied, with its key;
	// nil if a repeat of it is stored at another node already. The error is
	// actors.ErrUnavailable if the user has too many, ErrNotFound for nobody of ours.
	StoreMessage(ctx context.Context, m *messages.StoreMessage) (key []byte, err error)
	// DropMessages ends messages.
	DropMessages(ctx context.Context, aor actors.AoR, keys ...[]byte) error
	// Where is all that is known of a user, the messages of other nodes too.
	Where(ctx context.Context, aor actors.AoR) (*messages.Whereabouts, error)
	// Mail counts the messages that this node keeps, by user.
	Mail() map[actors.AoR]int
}

// mayStore tells whether a MESSAGE is kept if its user cannot be reached: one
// outside a dialog, to a user of ours, written by a person, that is worth
// something later (RFC 3428 7 allows a relay to store it and answer 202).
func (s *Server) mayStore(r *request, p *plan) bool {
	if s.mail == nil || r.method != "MESSAGE" || r.toTag != "" || p.way != wayUser || s.draining.Load() || automatic(r) {
		return false
	}
	if ttl, said := expiresOf(r); said && ttl == 0 {
		return false
	}
	if len(r.body) > s.cfg.MaxMessageSize || s.mail.full() {
		s.count.messagesRefused.Add(1)
		return false
	}
	return true
}

// automatic tells of a message that no person waits for: an answer by a
// machine (RFC 5436 2.7.1, RFC 3834 5), a disposition notification (RFC 5438), or
// that somebody is typing (RFC 3994). To keep them would feed loops.
func automatic(r *request) bool {
	if v, ok := r.value("Auto-Submitted"); ok && !strings.EqualFold(v, "no") {
		return true
	}
	kind, _ := r.value("Content-Type")
	kind, _, _ = strings.Cut(kind, ";")
	switch strings.ToLower(strings.TrimSpace(kind)) {
	case "message/imdn+xml", "application/im-iscomposing+xml":
		return true
	}
	return false
}

// expiresOf is the life of a message by its Expires header (RFC 3428 4).
func expiresOf(r *request) (ttl time.Duration, said bool) {
	v, ok := r.value("Expires")
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(v, 10, 32)
	if err != nil {
		return 0, false
	}
	return time.Duration(n) * time.Second, true
}

// storable tells of an answer that says that the user cannot be reached now,
// rather than that the message is not wanted.
func storable(status int) bool {
	switch status {
	case 404, 408, 430, 480, 503:
		return true
	}
	return false
}

// unreached tells whether all that came of a fork is storable.
func (f *fork) unreached() bool {
	if f.cancelled || f.best.insecure {
		return false
	}
	best, status := f.best.choose(false)
	return best == nil || storable(status)
}

// keep stores the message and answers 202; if that cannot be, otherwise says
// what the answer is.
func (f *fork) keep(otherwise func()) {
	s := f.s
	f.store, f.asking = false, true
	f.stopMailTimer()
	m, err := s.toStore(f)
	if err != nil {
		f.asking = false
		otherwise()
		return
	}
	ok := s.ask(f.tx.Context(), func(ctx context.Context) {
		key, err := s.parts.Mailbox.StoreMessage(ctx, m)
		f.do(func() { f.kept(key, err, otherwise) })
	})
	if !ok {
		f.kept(nil, actors.ErrOverloaded, otherwise)
	}
}

func (f *fork) kept(key []byte, err error, otherwise func()) {
	s := f.s
	f.asking = false
	switch {
	case err != nil:
		s.log.Debug("message not stored", "aor", string(f.plan.aor), "call_id", f.r.callID, "err", err)
		if !errors.Is(err, actors.ErrNotFound) {
			s.count.messagesRefused.Add(1)
		}
		if !f.final {
			otherwise()
			f.next()
		}
		return
	case f.final:
		// A device has taken it meanwhile.
		s.mail.drop(f.plan.aor, key)
		return
	}
	s.count.messagesStored.Add(1)
	f.keptKey = key
	// Who came online while it was being stored has missed the word of it. It counts
	// before its sender knows: the next one may follow at once.
	s.mail.added(f.plan.aor)
	f.finish(answer{202, "Accepted", nil})
}

// toStore is the message as it is kept: without what belongs to its way here.
func (s *Server) toStore(f *fork) (*messages.StoreMessage, error) {
	now := s.parts.Cluster.NowMS()
	stored := &messages.StoredMessage{Body: []byte(f.r.body), ReceivedMs: now, Sender: s.senderOf(f.r)}
	d := s.forwarded(f.r)
	stored.MaxForwards = uint32(d.hops)
	d.eachForwarded(func(name, value string) {
		switch name {
		case "Max-Forwards", "Record-Route", "Proxy-Authorization", "Authorization", "Proxy-Require", "Require":
		default:
			stored.Headers = append(stored.Headers, name+": "+value)
		}
	})
	payload, err := proto.Marshal(stored)
	if err != nil {
		return nil, fmt.Errorf("%w: not UTF-8", errMessage)
	}
	ttl := s.cfg.MessageTTL
	if asked, said := expiresOf(f.r); said {
		ttl = min(ttl, asked)
	}
	return &messages.StoreMessage{
		Aor: string(f.plan.aor), Payload: payload, ExpiresMs: now + ttl.Milliseconds(), CallId: strings.ToValidUTF8(f.r.callID, "?"), Cseq: f.r.cseq,
	}, nil
}

// senderOf names the sender of a message.
func (s *Server) senderOf(r *request) string {
	text, _, ok := splitAddr(r.from)
	if !ok {
		return r.from
	}
	if aor, err := actors.ParseAoR(text, s.cfg.Domains); err == nil {
		return string(aor)
	}
	return text
}

// letter is a stored message on its way: the request, and the user it is for.
func (s *Server) letter(aor actors.AoR, l *messages.Lease) (*request, *plan, error) {
	var stored messages.StoredMessage
	if err := proto.Unmarshal(l.GetPayload(), &stored); err != nil {
		return nil, nil, err
	}
	target, err := parseURI(string(aor))
	if err != nil {
		return nil, nil, err
	}
	r := &request{asked: asked{method: "MESSAGE"}, target: target, version: "SIP/2.0", body: string(stored.Body), maxBreadth: -1}
	r.maxForwards = int(stored.MaxForwards)
	dated := false
	for _, line := range stored.Headers {
		name, value, _ := strings.Cut(line, ": ")
		h := header{name, value}
		if err := r.take(h); err != nil {
			return nil, nil, err
		}
		dated = dated || name == "Date"
		r.headers = append(r.headers, h)
	}
	if r.callID == "" || r.from == "" || r.to == "" {
		return nil, nil, errMessage
	}
	if !dated {
		// RFC 3428 4: when it was sent, as well as we know.
		at := time.UnixMilli(stored.ReceivedMs).UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT")
		r.headers = append(r.headers, header{"Date", at})
	}
	r.headers = slices.Insert(r.headers, 0, header{"Max-Forwards", strconv.Itoa(r.maxForwards)})
	return r, &plan{way: wayUser, target: target, aor: aor}, nil
}
