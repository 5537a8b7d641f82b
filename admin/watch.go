package admin

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// watch streams events until the client goes, the node stops, or the client
// does not read: a line of JSON each (application/x-ndjson), or SSE if the
// client accepts text/event-stream. Silence is broken by an empty line or an
// SSE comment, so that both ends notice a dead connection.
func (s *Server) watch(w http.ResponseWriter, r *http.Request) {
	select {
	case s.watchers <- struct{}{}:
		defer func() { <-s.watchers }()
	default:
		s.fail(w, fmt.Errorf("%w: %d watchers already", ErrUnavailable, maxWatchers))
		return
	}
	events, err := s.node.Watch(r.Context(), pattern(r.URL.Query().Get("pattern")))
	if err != nil {
		s.fail(w, err)
		return
	}
	st := newStream(w, strings.Contains(r.Header.Get("Accept"), "text/event-stream"))
	if st.flush("") != nil {
		return
	}
	heartbeat := time.NewTicker(s.cfg.Heartbeat)
	defer heartbeat.Stop()
	for {
		select {
		case <-r.Context().Done():
			return
		case e, open := <-events:
			if !open {
				return
			}
			body, err := json.Marshal(NewEvent(e))
			if err != nil || st.event(body) != nil {
				return
			}
		case <-heartbeat.C:
			if st.heartbeat() != nil {
				return
			}
		}
	}
}

// pattern gives a domain its "@", so that it is no user's name; a node reads the rest.
func pattern(text string) string {
	switch {
	case text == "" || text == "*":
		return "*"
	case strings.Contains(text, "@") || strings.HasPrefix(text, "sip:") || strings.HasPrefix(text, "sips:") || strings.HasPrefix(text, "tel:"):
		return text
	}
	return "@" + text
}

// stream writes one kind of event stream.
type stream struct {
	w   http.ResponseWriter
	rc  *http.ResponseController
	sse bool
}

func newStream(w http.ResponseWriter, sse bool) *stream {
	st := &stream{w: w, rc: http.NewResponseController(w), sse: sse}
	contentType := "application/x-ndjson"
	if sse {
		contentType = "text/event-stream"
	}
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(http.StatusOK)
	return st
}

func (st *stream) event(body []byte) error {
	if st.sse {
		return st.flush("data: " + string(body) + "\n\n")
	}
	return st.flush(string(body) + "\n")
}

func (st *stream) heartbeat() error {
	if st.sse {
		return st.flush(":\n\n")
	}
	return st.flush("\n")
}

func (st *stream) flush(text string) error {
	// Of a server that cannot set deadlines (a test's recorder) none is needed.
	_ = st.rc.SetWriteDeadline(time.Now().Add(writeTimeout))
	if _, err := st.w.Write([]byte(text)); err != nil {
		return err
	}
	return st.rc.Flush()
}
