package sipfront

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"hereis/actors"
	"hereis/messages"
	"hereis/sipfront/event"
)

// Presentities are the users as those see them who publish their state and
// watch it: actors.Client. Errors are those of actors.
type Presentities interface {
	// Publish has a PUBLISH decided by the user's owner, and keeps what this
	// node must keep before it returns.
	Publish(ctx context.Context, p *messages.Publish) (*messages.Published, error)
	// Subscribe asks for a user's state, and says what this node wants to be told of.
	Subscribe(ctx context.Context, m *messages.Subscribe) (*messages.Subscribed, error)
}

// publish answers a PUBLISH for a user of ours (RFC 3903 6).
func (s *Server) publish(tx serverTx, r *request, p *plan) {
	s.count.publishes.Add(1)
	m, err := s.readPublish(r, p)
	if err != nil {
		s.refuse(tx, r, err)
		return
	}
	ok := s.ask(tx.Context(), func(ctx context.Context) {
		res, err := s.parts.Presentities.Publish(ctx, m)
		if err != nil {
			if errors.Is(err, actors.ErrTooManyPublications) {
				s.count.publicationsRefused.Add(1)
			}
			s.refuse(tx, r, err)
			return
		}
		s.answer(tx, r, answer{200, "OK", []header{
			{"SIP-ETag", res.GetEntityTag()},
			{"Expires", strconv.FormatUint(uint64(res.GetExpiresS()), 10)},
		}})
	})
	if !ok {
		s.refuse(tx, r, actors.ErrOverloaded)
	}
}

// readPublish is steps 1 to 5 of RFC 3903 6, as far as they need no state.
func (s *Server) readPublish(r *request, p *plan) (*messages.Publish, error) {
	if err := s.checkRequire(r); err != nil {
		return nil, err
	}
	if p.way != wayUser {
		return nil, actors.ErrNotFound
	}
	pkg, _, err := s.watch.packageOf(r)
	if err == nil && len(pkg.PublishTypes()) == 0 {
		err = eventError{s.watch.names}
	}
	if err != nil {
		return nil, err
	}
	if err := s.admitPublisher(r, p.aor); err != nil {
		return nil, err
	}
	m := &messages.Publish{
		Aor: string(p.aor), Event: pkg.Name(), CallId: strings.Clone(r.callID), Cseq: r.cseq,
		EntityTag: strconv.FormatUint(s.rand(), 36), Id: actors.PublicationID(r.callID, r.cseq), From: flowText(r.msg.Flow),
	}
	matches := r.values("SIP-If-Match")
	switch {
	case len(matches) > 1, len(matches) == 1 && !isToken(matches[0]):
		return nil, fmt.Errorf("%w: SIP-If-Match", errMessage)
	case len(matches) == 1:
		m.IfMatch = strings.Clone(matches[0])
	}
	if v, ok := r.value("Expires"); ok {
		m.ExpiresS, m.HasExpires = parseExpires(v), true
	}
	if err := s.readBody(r, pkg, m); err != nil {
		return nil, err
	}
	if !r.msg.At.IsZero() {
		m.AgeMs = max(time.Since(r.msg.At).Milliseconds(), 0)
	}
	return m, sendable(m)
}

// readBody checks what is published. A body that comes with a removal is not
// looked at (RFC 3903 4.5).
func (s *Server) readBody(r *request, pkg event.Package, m *messages.Publish) error {
	if r.body == "" || m.HasExpires && m.ExpiresS == 0 && m.IfMatch != "" {
		return nil
	}
	if len(r.body) > s.cfg.MaxPublication {
		s.count.publicationsRefused.Add(1)
		return errTooLarge
	}
	text, _ := r.value("Content-Type")
	mediaType := mediaTypeOf(text)
	if err := pkg.Check(mediaType, []byte(r.body)); err != nil {
		if errors.Is(err, event.ErrMediaType) {
			return mediaError{pkg.PublishTypes()}
		}
		return err
	}
	m.ContentType, m.Body = mediaType, []byte(r.body)
	return nil
}

// mediaError is errMedia with the media types that are accepted (RFC 3261 21.4.13).
type mediaError struct{ accept []string }

func (mediaError) Error() string { return errMedia.Error() }

// Is makes it errMedia.
func (mediaError) Is(target error) bool { return target == errMedia }

// mediaTypeOf is a Content-Type or a value of Accept without its parameters, in lower case.
func mediaTypeOf(text string) string {
	head, _, _ := strings.Cut(text, ";")
	return lower(strings.ReplaceAll(strings.TrimSpace(head), " ", ""))
}

// admitPublisher wants the credentials of the user whose state is published; a
// trunk may publish for anybody (RFC 3903 6 step 2, 14.1).
func (s *Server) admitPublisher(r *request, aor actors.AoR) error {
	if s.digest == nil {
		return nil
	}
	if s.fromTrunk(r) {
		s.count.trunkRequests.Add(1)
		return nil
	}
	return s.authenticate(r, aor.Domain(), aor, false)
}
