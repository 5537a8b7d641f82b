package main_test

import (
	"slices"
	"strconv"
	"testing"
	"time"

	"hereis/bench/sipmsg"
)

// testChaosCallOutlivesItsNode: a call is set up through one node, which is
// then killed. Record-Route names a host that leads to all nodes, so the caller's
// re-INVITE and BYE go to another one, and reach the callee; so does the
// callee's word reach the caller.
func testChaosCallOutlivesItsNode(t *testing.T, c *chaosSuite) {
	const host = "all.hereis.example"
	row := c.row(t)
	nodes := startCluster(t, c.bin, 3, "--record-route", host)
	bob := newDevice(t, "bob", "bob")
	bob.register(nodes[2], 3600)
	call := newCall(t, "alice", bob)
	if status := call.send(nodes[0], "INVITE", false); status != 200 {
		t.Fatalf("INVITE: %d", status)
	}
	if len(call.routes) != 2 || !slices.ContainsFunc(call.routes, func(r string) bool { return len(r) > len(host) }) {
		t.Fatalf("route set %q, want one of two nodes", call.routes)
	}
	nodes[0].kill()
	for _, method := range []string{"INVITE", "INFO", "BYE"} {
		began := time.Now()
		status := call.send(nodes[1], method, true)
		took := time.Since(began)
		row.note(t, "%s by another node, %v after the kill: %d after %v", method, began.Sub(call.answered).Round(time.Millisecond), status, took.Round(time.Millisecond))
		if status != 200 {
			t.Errorf("%s through another node: %d", method, status)
		}
		if method == "INVITE" && took > slack*time.Second {
			row.late(t, began, "re-INVITE took %v, the bar is a second", took)
		}
	}
	row.count("calls", 1, 0, 0)
}

// call is the calling side of a dialog with a device.
type call struct {
	*device
	callee   *device
	routes   []string
	toTag    string
	answered time.Time
}

func newCall(t *testing.T, name string, callee *device) *call {
	return &call{device: newDevice(t, name, name), callee: callee}
}

// send sends a request of the dialog, or the one that makes it, and its ACK; it
// returns the final status, 0 for none.
func (c *call) send(to *node, method string, within bool) int {
	c.t.Helper()
	c.cseq++
	uri := "sip:" + c.callee.user + "@localhost"
	if within {
		uri = "sip:" + c.callee.user + "@" + c.callee.addr
	}
	var w sipmsg.Builder
	c.request(&w, method, uri)
	m := c.askWithin(to, &w, 12*time.Second)
	if m == nil {
		return 0
	}
	if !within {
		m.Values("Record-Route", func(v []byte) { c.routes = append(c.routes, string(v)) })
		slices.Reverse(c.routes)
		tag, _ := sipmsg.Param(m.Get("To"), "tag")
		c.toTag, c.answered = string(tag), time.Now()
	}
	if method == "INVITE" && m.Status == 200 {
		c.request(&w, "ACK", "sip:"+c.callee.user+"@"+c.callee.addr)
		if _, err := c.conn.WriteToUDPAddrPort(w.Bytes(), to.addr()); err != nil {
			c.t.Fatal(err)
		}
	}
	return m.Status
}

func (c *call) request(w *sipmsg.Builder, method, uri string) {
	w.Request(method, uri)
	w.Header("Via", "SIP/2.0/UDP ", c.addr, ";rport;branch=z9hG4bK", c.name, method, strconv.Itoa(c.cseq))
	w.Int("Max-Forwards", 70, "")
	for _, r := range c.routes {
		w.Header("Route", r)
	}
	w.Header("From", "<sip:", c.user, "@localhost>;tag=f", c.name)
	if c.toTag == "" {
		w.Header("To", "<sip:", c.callee.user, "@localhost>")
	} else {
		w.Header("To", "<sip:", c.callee.user, "@localhost>;tag=", c.toTag)
	}
	w.Header("Call-ID", "call-", c.addr)
	w.Int("CSeq", uint64(c.cseq), method)
	w.Header("Contact", "<sip:", c.user, "@", c.addr, ">")
	w.End("", "")
}
