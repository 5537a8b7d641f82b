package sipfront

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"sync"
	"time"
)

// nonces makes and checks digest nonces. A nonce is base64url(time ‖ random ‖
// MAC): every node of the cluster knows one of any other, and none remembers
// those that it gave out. What is remembered, at this node, is which nonce
// counts have been used with it (RFC 7616 3.4.5), up to a bound.
type nonces struct {
	key   []byte
	nowMS func() int64
	rand  func() uint64
	// lifeMS is how long a nonce is good, in milliseconds of node time.
	lifeMS int64
	max    int

	mu sync.Mutex
	// used by nonce; order has its keys, oldest use first, as a ring.
	used  map[string]*window
	order []string
	head  int
	// floorMS: a nonce of then or before that is not in used may have been, so
	// it is stale. It begins with the process, and rises when an entry gives way.
	floorMS int64
	evicted uint64
}

// window has the nonce counts that were used with a nonce: the highest, and
// which of the 64 up to it (bit 0 is the highest itself).
type window struct {
	madeMS int64
	high   uint32
	seen   uint64
}

const (
	nonceTime = 8
	nonceRand = 8
	nonceSize = nonceTime + nonceRand + macSize
)

// nonceSkewMS is how far ahead of ours the clock of the node that made a nonce
// may be (CONSISTENCY rule 9).
const nonceSkewMS = 2000

func newNonces(key []byte, life time.Duration, maxUsed int, nowMS func() int64, rand func() uint64) *nonces {
	return &nonces{
		key: key, nowMS: nowMS, rand: rand, lifeMS: life.Milliseconds(), max: maxUsed,
		used: map[string]*window{}, floorMS: nowMS() - 1,
	}
}

// make is a new nonce.
func (n *nonces) make() string {
	b := make([]byte, 0, nonceSize)
	b = binary.BigEndian.AppendUint64(b, uint64(n.nowMS()))
	b = binary.BigEndian.AppendUint64(b, n.rand())
	return base64.RawURLEncoding.EncodeToString(append(b, n.mac(b)...))
}

func (n *nonces) mac(b []byte) []byte {
	h := hmac.New(sha256.New, n.key)
	h.Write(b)
	return h.Sum(nil)[:macSize]
}

// made is when a node of ours made a nonce; false if none did, or too long ago.
func (n *nonces) made(nonce string) (ms int64, ok bool) {
	if len(nonce) != base64.RawURLEncoding.EncodedLen(nonceSize) {
		return 0, false
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(nonce)
	if err != nil || len(b) != nonceSize {
		return 0, false
	}
	if subtle.ConstantTimeCompare(b[nonceTime+nonceRand:], n.mac(b[:nonceTime+nonceRand])) != 1 {
		return 0, false
	}
	ms = int64(binary.BigEndian.Uint64(b))
	now := n.nowMS()
	return ms, ms <= now+nonceSkewMS && ms >= now-n.lifeMS
}

// use takes a nonce count of a nonce that was made then; it is false if it has
// been used before at this node, or may have been.
func (n *nonces) use(nonce string, madeMS int64, nc uint32) bool {
	if nc == 0 {
		return false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	w := n.used[nonce]
	if w == nil {
		if madeMS <= n.floorMS {
			return false
		}
		n.add(nonce, &window{madeMS: madeMS, high: nc, seen: 1})
		return true
	}
	if nc > w.high {
		// A shift by 64 and more gives 0 in Go.
		w.seen = w.seen<<(nc-w.high) | 1
		w.high = nc
		return true
	}
	bit := uint64(1) << (w.high - nc)
	if bit == 0 || w.seen&bit != 0 {
		return false
	}
	w.seen |= bit
	return true
}

// add remembers a nonce; one that has expired gives way to it, or else, at the bound, the oldest.
func (n *nonces) add(nonce string, w *window) {
	live := n.nowMS() - n.lifeMS
	for n.head < len(n.order) {
		old := n.used[n.order[n.head]]
		if expired := old.madeMS < live; !expired {
			if len(n.used) < n.max {
				break
			}
			n.floorMS = max(n.floorMS, old.madeMS)
			n.evicted++
		}
		delete(n.used, n.order[n.head])
		n.order[n.head] = ""
		n.head++
	}
	if n.head > len(n.order)/2 {
		n.order = append(n.order[:0], n.order[n.head:]...)
		n.head = 0
	}
	n.order = append(n.order, nonce)
	n.used[nonce] = w
}

// stats are the nonces that are remembered, and the number of those that gave way.
func (n *nonces) stats() (used int, evicted uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.used), n.evicted
}
