package sipfront

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"hereis/sipfront/resolve"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// names is a resolver with a list; several addresses are in order of preference.
type names map[string]string

func (n names) Resolve(_ context.Context, t resolve.Target) ([]resolve.Hop, error) {
	var hops []resolve.Hop
	for _, a := range strings.Fields(n[t.Host]) {
		hops = append(hops, resolve.Hop{Transport: "udp", Addr: mustAddr(a)})
	}
	if len(hops) > 0 {
		return hops, nil
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
