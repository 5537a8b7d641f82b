package load

import (
	"context"
	"testing"
	"time"
)

// The registrar of the tests writes to a Contact over the connection that is
// already there, as it knows its address.
func TestConnectionsAreRegisteredKeptAndReached(t *testing.T) {
	tcp := startServer(t, &server{tcp: true})
	cfg := config(Locate, tcp)
	cfg.Users = 50
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	s := &socketry{cfg: &cfg, conns: make([]*device, cfg.Users)}
	defer s.close()
	p, err := s.part(ctx, "connect", s.connect)
	if err != nil || p.OK != 50 {
		t.Fatalf("connected %d: %v, %v", p.OK, p.Codes, err)
	}
	kept, err := s.keep(ctx)
	if err != nil || kept.OK != 50 {
		t.Errorf("kept %d: %v, %v", kept.OK, kept.Codes, err)
	}
	asking := cfg
	asking.Transport, asking.Prepare = TCP, false
	r, err := Run(ctx, asking, nil)
	if err != nil {
		t.Fatal(err)
	}
	allOK(t, r.Measured, 50)
}

func TestConnectionsToNobody(t *testing.T) {
	cfg := config(Locate, startServer(t, &server{})) // no TCP there
	cfg.Users = 3
	s := &socketry{cfg: &cfg, conns: make([]*device, cfg.Users)}
	defer s.close()
	p, err := s.part(t.Context(), "connect", s.connect)
	if err != nil || p.Failed != 3 {
		t.Errorf("%d failed, %v", p.Failed, err)
	}
}
