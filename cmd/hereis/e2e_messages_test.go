package main_test

import (
	"errors"
	"testing"
	"time"
)

// testMessages: users who are offline are sent messages at one node; that node
// is killed and comes back, and they get them when they register at another.
func testMessages(t *testing.T, bin string) {
	nodes := startCluster(t, bin, 3, "--store-messages")
	s := newSIPp(t, userNames(30)...)
	s.all("message_stored", nodes[0].sip, 100)
	nodes[0].kill()
	nodes[0].start()
	waitMembers(t, nodes)
	well(t, s.device("uas_message", "u1", nodes[2]))
	within(t, 20*time.Second, "nothing is stored any more", func() error {
		if got := nodes[0].metric("hereis_sip_messages_waiting"); got != 0 {
			return errors.New("some are")
		}
		return nil
	})
}
