package sipfront

import (
	"fmt"
	"strings"
	"testing"
)

// breadths are the Max-Breadth values that phones got.
func breadths(n *rig, phones ...string) string {
	var list []string
	for _, p := range phones {
		_, headers, _, _ := splitMessage(n.lastReq[p])
		v := "-"
		for _, h := range headers {
			if h.name == "Max-Breadth" {
				v = h.value
			}
		}
		list = append(list, v)
	}
	return strings.Join(list, " ")
}

// 5.3.3: what comes in is shared among the branches; 60 if nothing came in.
func TestRFC5393_5_3_3_BreadthIsShared(t *testing.T) {
	for lines, want := range map[string]string{"": "20 20 20", "Max-Breadth: 7": "3 2 2", "max-breadth: 3": "1 1 1", "Max-Breadth: 1000": "20 20 20"} {
		alone(t, func(t *testing.T, m *mesh, n *rig) {
			n.bobAt(here(phone1, 1000), here(phone2, 1000), here(phone3, 1000))
			n.recv(alice, invite("INVITE", "sip:bob@example.com", "b1", orX(lines)))
			m.pump()
			if got := breadths(n, phone1, phone2, phone3); got != want {
				t.Errorf("%s: got %s, want %s", lines, got, want)
			}
		})
	}
}

func orX(line string) string {
	if line == "" {
		return "X-None: 1"
	}
	return line
}

// 5.3.3: with less breadth than devices they are tried in turn, and what has
// ended gives its breadth back.
func TestRFC5393_5_3_3_TooManyDevicesAreTriedInTurn(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.bobAt(here(phone1, 1000), here(phone2, 1000), here(phone3, 1000))
		n.recv(alice, invite("INVITE", "sip:bob@example.com", "b2", "Max-Breadth: 2"))
		m.expect(phone3, "")
		n.answer(phone1, "486", "")
		m.expect(phone3, "")
		n.answer(phone2, "486", "")
		m.expect(phone3, "INVITE sip:bob@192.0.2.22:5060 SIP/2.0")
		if got := breadths(n, phone1, phone2, phone3); got != "1 1 2" {
			t.Error(got)
		}
	})
}

// 5.3.3: nothing left is 440, and a value that is none 400.
func TestRFC5393_5_3_3_NoBreadthLeftIs440(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		n.bobAt(here(phone1, 1000))
		n.recv(alice, invite("MESSAGE", "sip:bob@example.com", "b3", "Max-Breadth: 0"))
		m.expect(alice, "SIP/2.0 440 Max-Breadth Exceeded")
		n.recv(alice, invite("MESSAGE", "sip:bob@example.com", "b4", "Max-Breadth: many"))
		m.expect(alice, "SIP/2.0 400 Bad Request")
		m.expect(phone1, "")
	})
}

// 4.2: a request that comes back with what decided its way is a loop, whatever
// hops and Vias it has gathered elsewhere; a user whose devices are two other
// users that name each other does not multiply it.
func TestRFC5393_4_2_LoopsEndByTheBranch(t *testing.T) {
	alone(t, func(t *testing.T, m *mesh, n *rig) {
		for user, other := range map[string]string{"a": "b", "b": "a"} {
			n.loc.set("sip:"+user+"@example.com", fmt.Sprintf(`{"targets":[%s,%s],"final":true}`,
				contact("sip:"+other+"@example.com", 1000), contact("sip:"+other+"@example.com;x=1", 1000)), t)
		}
		n.recv(alice, invite("MESSAGE", "sip:a@example.com", "storm"))
		m.expect(alice, "SIP/2.0 482 Loop Detected")
		if st := n.srv.Stats(); st.Branches > 30 {
			t.Errorf("%d branches", st.Branches)
		}
	})
}
