package sipfront

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// testNonces runs on a clock of the test's.
func testNonces(now *int64, maxUsed int) *nonces {
	var n uint64
	return newNonces([]byte("nonce-key-for-tests....."), time.Minute, maxUsed, func() int64 { return *now }, func() uint64 { n++; return n })
}

func TestNonceIsOursUntouchedAndInTime(t *testing.T) {
	now := int64(1_000_000)
	n := testNonces(&now, 10)
	nonce := n.make()
	if ms, ok := n.made(nonce); !ok || ms != now {
		t.Errorf("got %d %v", ms, ok)
	}
	for i := range nonce {
		c := "A"
		if nonce[i] == 'A' {
			c = "B"
		}
		if _, ok := n.made(nonce[:i] + c + nonce[i+1:]); ok {
			t.Errorf("changed at %d: taken", i)
		}
	}
	for _, bad := range []string{"", nonce[1:], nonce + "A", nonce[:4] + "\n" + nonce[5:], strings.ToLower(nonce)} {
		if _, ok := n.made(bad); ok {
			t.Errorf("%q is taken", bad)
		}
	}
	for at, want := range map[int64]bool{now - 2000: true, now - 2001: false, now + 60_000: true, now + 60_001: false} {
		other := at
		n2 := testNonces(&other, 10)
		if _, ok := n2.made(nonce); ok != want {
			t.Errorf("seen %d ms later: %v", at-now, ok)
		}
	}
}

// A nonce that this process may have seen in an earlier life is used up.
func TestNonceOfBeforeTheStartMayHaveBeenUsed(t *testing.T) {
	now := int64(1_000_000)
	nonce := testNonces(&now, 10).make()
	now += 10
	n := testNonces(&now, 10)
	ms, ok := n.made(nonce)
	if !ok || n.use(nonce, ms, 1) {
		t.Error("a nonce of before the start is taken")
	}
}

// Whatever the order of counts, nonces and time, no (nonce, count) is taken
// twice, memory stays bounded, and a client that counts upwards with a nonce
// that is remembered is never refused.
func TestPropertyNoNonceCountIsTakenTwice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := int64(1_000_000)
		limit := rapid.IntRange(1, 8).Draw(t, "limit")
		n := testNonces(&now, limit)
		type pair struct {
			nonce string
			nc    uint32
		}
		var known []string
		taken, high := map[pair]bool{}, map[string]uint32{}
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			switch rapid.IntRange(0, 4).Draw(t, "what") {
			case 0:
				known = append(known, n.make())
			case 1:
				now += rapid.Int64Range(0, 20_000).Draw(t, "ms")
			default:
				if len(known) == 0 {
					continue
				}
				nonce := rapid.SampledFrom(known).Draw(t, "nonce")
				nc := rapid.Uint32Range(0, 200).Draw(t, "nc")
				ms, ok := n.made(nonce)
				if !ok {
					continue
				}
				_, remembered := n.used[nonce]
				got := n.use(nonce, ms, nc)
				if got && (nc == 0 || taken[pair{nonce, nc}]) {
					t.Fatalf("%d taken again", nc)
				}
				if !got && remembered && nc > high[nonce] {
					t.Fatalf("%d refused above %d", nc, high[nonce])
				}
				if got {
					taken[pair{nonce, nc}] = true
					high[nonce] = max(high[nonce], nc)
				}
			}
			if len(n.used) > limit || len(n.order)-n.head != len(n.used) || len(n.order) > 2*limit+2 {
				t.Fatalf("%d of %d nonces kept, ring of %d", len(n.used), limit, len(n.order))
			}
		}
	})
}
