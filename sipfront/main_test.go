package sipfront

import (
	"context"
	"errors"
	"net/netip"
	"testing"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"hereis/sipfront/resolve"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// names is a resolver with a list.
type names map[string]string

func (n names) Resolve(_ context.Context, t resolve.Target) ([]resolve.Hop, error) {
	if a, ok := n[t.Host]; ok {
		return []resolve.Hop{{Transport: "udp", Addr: mustAddr(a)}}, nil
	}
	return nil, errors.New("no such host")
}

func mustAddr(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func mustMarshal(m proto.Message) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	return b
}
