package event

import (
	"slices"
	"strconv"
	"strings"
)

const (
	nsReginfo   = "urn:ietf:params:xml:ns:reginfo"
	typeReginfo = "application/reginfo+xml"
)

// Reg is the package "reg" (RFC 3680): what a registrar knows of a user. It
// cannot be published; registrations speak.
type Reg struct{}

var _ Package = Reg{}

// Name is "reg".
func (Reg) Name() string { return "reg" }

// NotifyTypes is the one of RFC 3680 4.5.
func (Reg) NotifyTypes() []string { return []string{typeReginfo} }

// PublishTypes: none.
func (Reg) PublishTypes() []string { return nil }

// Check refuses everything.
func (Reg) Check(string, []byte) error { return ErrMediaType }

// Changed tells of every change of a binding, refreshes included (RFC 3680 4.7).
func (Reg) Changed(told, now *State) bool {
	return !slices.EqualFunc(told.Devices, now.Devices, func(a, b Device) bool {
		return a.ID == b.ID && a.Contact == b.Contact && a.Q == b.Q && a.CallID == b.CallID &&
			a.CSeq == b.CSeq && a.ExpiresMS == b.ExpiresMS && slices.Equal(a.Params, b.Params)
	})
}

// Compose makes a full document first, then partial ones with the contacts
// that have changed (RFC 3680 5).
func (Reg) Compose(c *Composition) (Document, error) {
	state := "full"
	if c.Told != nil {
		state = "partial"
	}
	root := newElement(nsReginfo, "reginfo", "").
		set("version", strconv.FormatUint(uint64(c.Version), 10)).set("state", state)
	reg := root.add(nsReginfo, "registration", "").
		set("aor", c.State.AoR).set("id", "aor").set("state", registrationState(c))
	for i := range c.State.Devices {
		d := &c.State.Devices[i]
		before := deviceOf(c.Told, d.ID)
		if event := contactEvent(c, d, before); event != "" {
			addContact(reg, d, "active", event, c.State.NowMS)
		}
	}
	if c.Told != nil {
		for i := range c.Told.Devices {
			if d := &c.Told.Devices[i]; deviceOf(c.State, d.ID) == nil {
				addContact(reg, d, "terminated", endedBy(c.State, d), c.State.NowMS)
			}
		}
	}
	return Document{MediaType: typeReginfo, Body: root.marshal()}, nil
}

// registrationState follows the machine of RFC 3680 3.4: init before the first
// binding that this watcher was told of, terminated after the last.
func registrationState(c *Composition) string {
	switch {
	case len(c.State.Devices) > 0:
		return "active"
	case c.Told != nil && len(c.Told.Devices) > 0:
		return "terminated"
	}
	return "init"
}

// contactEvent names what has happened to a live contact; empty: nothing.
func contactEvent(c *Composition, d, before *Device) string {
	switch {
	case c.Told == nil || before == nil:
		return "registered"
	case before.CSeq == d.CSeq && before.CallID == d.CallID && before.ExpiresMS == d.ExpiresMS && before.Q == d.Q:
		return ""
	case d.ExpiresMS < before.ExpiresMS:
		return "shortened"
	}
	return "refreshed"
}

// endedBy tells an expiry from a removal, and a removal by the device from one by
// the network, after which the device should register again (RFC 3680 5.1).
func endedBy(now *State, d *Device) string {
	switch {
	case now.Removed[d.ID]:
		return "deactivated"
	case d.ExpiresMS <= now.NowMS:
		return "expired"
	}
	return "unregistered"
}

func deviceOf(s *State, id string) *Device {
	if s == nil {
		return nil
	}
	i := slices.IndexFunc(s.Devices, func(d Device) bool { return d.ID == id })
	if i < 0 {
		return nil
	}
	return &s.Devices[i]
}

// addContact adds one contact (RFC 3680 5.3). A terminated one has no expiry.
func addContact(reg *element, d *Device, state, event string, nowMS int64) {
	e := reg.add(nsReginfo, "contact", "").set("id", xmlID(d.ID)).set("state", state).set("event", event).
		set("duration-registered", seconds(nowMS-d.SinceMS))
	if state == "active" {
		e.set("expires", seconds(d.ExpiresMS-nowMS))
	}
	if d.Q < 1000 {
		e.set("q", qvalue(d.Q))
	}
	e.set("callid", d.CallID).set("cseq", strconv.FormatUint(uint64(d.CSeq), 10))
	e.add(nsReginfo, "uri", d.Contact)
	if d.DisplayName != "" {
		e.add(nsReginfo, "display-name", d.DisplayName)
	}
	params := slices.Clone(d.Params)
	if d.InstanceID != "" {
		params = append(params, `+sip.instance="<`+d.InstanceID+`>"`)
	}
	if d.RegID != 0 {
		params = append(params, "reg-id="+strconv.FormatUint(uint64(d.RegID), 10))
	}
	for _, p := range params {
		name, value, _ := strings.Cut(p, "=")
		e.add(nsReginfo, "unknown-param", value).set("name", name)
	}
}

// seconds rounds a time in ms up, so that what lives is never 0.
func seconds(ms int64) string {
	return strconv.FormatInt(max(0, (ms+999)/1000), 10)
}
