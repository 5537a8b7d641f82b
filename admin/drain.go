package admin

import (
	"encoding/json"
	"fmt"
	"net/http"
)

// DrainRequest is the body of POST /v1/drain.
type DrainRequest struct {
	// Undo takes an earlier drain back.
	Undo bool `json:"undo,omitempty"`
}

// Drain is the answer of /v1/drain.
type Drain struct {
	Node string `json:"node"`
	// Draining: the node holds nothing new and takes no new registrations and calls.
	Draining bool `json:"draining"`
	// Done: the others have all that it held; it may be stopped without loss.
	Done bool `json:"done"`
	// Left are the records that others have yet to acknowledge.
	Left int `json:"left"`
	// Waiting are the nodes that have not confirmed the hand-over.
	Waiting []string `json:"waiting,omitempty"`
}

// ForgetRequest is the body of POST /v1/forget.
type ForgetRequest struct {
	// Node is the name of a failed member.
	Node string `json:"node"`
}

func (s *Server) drainStatus(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, s.node.DrainStatus())
}

func (s *Server) drain(w http.ResponseWriter, r *http.Request) {
	var req DrainRequest
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
		s.fail(w, bodyError(err))
		return
	}
	if err := s.node.Drain(req.Undo); err != nil {
		s.fail(w, err)
		return
	}
	s.drainStatus(w, r)
}

func (s *Server) forget(w http.ResponseWriter, r *http.Request) {
	var req ForgetRequest
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
		s.fail(w, bodyError(err))
		return
	}
	if req.Node == "" {
		s.fail(w, fmt.Errorf("%w: node is missing", ErrBadRequest))
		return
	}
	if err := s.node.Forget(req.Node); err != nil {
		s.fail(w, err)
		return
	}
	writeJSON(w, http.StatusOK, ok{OK: true})
}
