package sipfront

import (
	"sync/atomic"
	"time"
)

// dateText is the Date header (RFC 3261 20.17), written once a second.
type dateText struct {
	last atomic.Pointer[dateSecond]
}

type dateSecond struct {
	second int64
	text   string
}

// at is the Date of a node time in ms since 1970.
func (d *dateText) at(ms int64) string {
	now := time.UnixMilli(ms)
	if last := d.last.Load(); last != nil && last.second == now.Unix() {
		return last.text
	}
	s := &dateSecond{now.Unix(), now.UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT")}
	d.last.Store(s)
	return s.text
}
