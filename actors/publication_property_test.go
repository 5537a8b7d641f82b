package actors

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// esc is the event state compositor of RFC 3903 6 for one publisher, as naively
// as can be: entity-tag, body, end.
type esc struct {
	tag, body string
	until     int64
}

func (e *esc) publish(a publishArgs, now int64) string {
	asked := a.expires
	if asked < 0 {
		asked = 3600
	}
	live := e.tag != "" && e.until > now
	switch {
	case asked > 0 && asked < 60:
		return "interval too brief: minimum 1m0s"
	case a.match != "" && (!live || a.match != e.tag):
		return "no such entity-tag"
	case a.match == "" && (a.body == "" || asked == 0):
		return "bad request: initial publication without body or life"
	}
	if a.body != "" {
		e.body = a.body
	}
	granted := min(asked, 7200)
	e.tag, e.until = a.tag, now+granted*1000
	return fmt.Sprintf("%s %d", a.tag, granted)
}

// In order, a publication is what RFC 3903 says, whichever nodes it comes by.
func TestProperty_InOrderItIsANaiveCompositor(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, model := newReplica(DefaultLimits()), &esc{}
		tags := []string{"never"}
		for i := range rapid.IntRange(1, 30).Draw(t, "steps") {
			p.advance(time.Duration(rapid.SampledFrom([]int{1, 1000, 61_000, 7_300_000}).Draw(t, "wait")) * time.Millisecond)
			a := publishArgs{
				tag: fmt.Sprint("t", i), call: "c", cseq: uint32(i + 1),
				body:    rapid.SampledFrom([]string{"", "open", "closed"}).Draw(t, "body"),
				edge:    rapid.SampledFrom([]string{"A", "B"}).Draw(t, "edge"),
				expires: rapid.SampledFrom([]int64{-1, 0, 30, 60, 600, 99999}).Draw(t, "expires"),
			}
			// A second initial publication beside a live one is another publication.
			if live := model.tag != "" && model.until > p.now; live {
				a.match = rapid.SampledFrom(append(tags, model.tag, model.tag, model.tag)).Draw(t, "match")
			} else if rapid.Bool().Draw(t, "stale") {
				a.match = rapid.SampledFrom(tags).Draw(t, "match")
			}
			want := model.publish(a, p.now)
			if got := a.to(p); got != want {
				t.Fatalf("step %d, %+v: got %s, want %s", i, a, got, want)
			}
			if again := a.to(p); model.tag == a.tag && again != want {
				t.Fatalf("step %d, repeated: got %s, want %s", i, again, want)
			}
			tags = append(tags, a.tag)
			pubs := p.publications()
			if live := model.until > p.now; live != (len(pubs) == 1) || live && string(pubs[0].Body) != model.body {
				t.Fatalf("step %d: %v, want live %v with %q", i, pubs, live, model.body)
			}
		}
	})
}
