package transaction

import "testing"

// Of two keys with one hash the later one is found, and neither is mistaken for
// the other, nor left behind when its time is over.
func TestAnswers_TwoKeysWithOneHash(t *testing.T) {
	c := answers{byHash: make(map[uint64]*answer), limit: 1 << 20}
	first, second := &answer{key: "a", hash: 7, expires: 1}, &answer{key: "b", hash: 7, expires: 2}
	c.add(first)
	if c.get(7, []byte("a")) != first || c.get(7, []byte("b")) != nil {
		t.Error("the first is not found, or for another")
	}
	c.add(second)
	if c.get(7, []byte("a")) != nil || c.get(7, []byte("b")) != second {
		t.Error("the second is not found, or the first is found in its place")
	}
	if c.expire(1); c.get(7, []byte("b")) != second {
		t.Error("the second went with the first")
	}
	if c.expire(2); len(c.byHash) != 0 || c.bytes != 0 || c.oldest != nil {
		t.Errorf("left: %d, %d bytes", len(c.byHash), c.bytes)
	}
}
