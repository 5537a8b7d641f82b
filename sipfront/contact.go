package sipfront

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"hereis/messages"
)

// errContact says that a Contact of a REGISTER is malformed: 400.
var errContact = errors.New("malformed Contact")

// defaultExpires is what a malformed expiry counts as (RFC 3261 20.19, 10.3 step 7).
const defaultExpires = 3600

// parseContacts reads the Contact values of a REGISTER. "*" stands alone or not at all.
func parseContacts(values []string) (list []*messages.RegisterContact, star bool, err error) {
	for _, v := range values {
		if v == "*" {
			star = true
			continue
		}
		c, err := parseContact(v)
		if err != nil {
			return nil, false, err
		}
		list = append(list, c)
	}
	if star && len(values) > 1 {
		return nil, false, fmt.Errorf("%w: * beside others", errContact)
	}
	return list, star, nil
}

// parseContact reads one Contact value. A scheme that no request can be sent
// to is refused: a binding that nobody can use is worse than a 400.
func parseContact(v string) (*messages.RegisterContact, error) {
	target, params, ok := splitAddr(v)
	if !ok {
		return nil, errContact
	}
	u, err := parseURI(target)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errContact, err)
	}
	if u.scheme != "sip" && u.scheme != "sips" {
		return nil, fmt.Errorf("%w: scheme", errContact)
	}
	c := &messages.RegisterContact{Uri: target, Q: 1000}
	var seen [len(ownParams)]bool
	eachParam(params, func(name, value, whole string) bool {
		name = lower(name)
		if !isToken(name) {
			err = errContact
			return false
		}
		own := slices.Index(ownParams[:], name)
		if own < 0 {
			c.Params = append(c.Params, whole)
			return true
		}
		if seen[own] {
			err = fmt.Errorf("%w: %s twice", errContact, name)
			return false
		}
		seen[own] = true
		err = setParam(c, name, value)
		return err == nil
	})
	if err != nil {
		return nil, err
	}
	// RFC 5626 6: a reg-id without an instance is ignored.
	if c.InstanceId == "" {
		c.RegId = 0
	}
	return c, nil
}

// ownParams are the parameters of a Contact that the registrar reads; others are kept.
var ownParams = [...]string{"expires", "q", "+sip.instance", "reg-id"}

func setParam(c *messages.RegisterContact, name, value string) (err error) {
	switch name {
	case "expires":
		c.ExpiresS, c.HasExpires = parseExpires(value), true
	case "q":
		c.Q, err = parseQ(value)
	case "+sip.instance":
		c.InstanceId = strings.TrimSuffix(strings.TrimPrefix(value, "<"), ">")
		// RFC 5626 4.1: a URN in angle brackets; nothing that would end the quotes when written again.
		if c.InstanceId == "" || strings.ContainsAny(c.InstanceId, "\"\\<>") {
			err = fmt.Errorf("%w: instance", errContact)
		}
	case "reg-id":
		// RFC 5626 4.2: 1 to 2^31-1.
		n, bad := strconv.ParseUint(value, 10, 31)
		if bad != nil || n == 0 {
			return fmt.Errorf("%w: reg-id", errContact)
		}
		c.RegId = uint32(n)
	}
	return err
}

// parseExpires reads delta-seconds: what is no number counts as 3600, and what
// is greater than 2^32-1 as that (RFC 3261 20.19).
func parseExpires(s string) uint32 {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return defaultExpires
	}
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return math.MaxUint32
	}
	return uint32(n)
}

// parseQ reads a qvalue (RFC 3261 25.1) in thousandths: 0 to 1, at most three decimals.
func parseQ(s string) (uint32, error) {
	whole, decimals, _ := strings.Cut(s, ".")
	if whole != "0" && whole != "1" || len(decimals) > 3 || strings.Trim(decimals, "0123456789") != "" {
		return 0, fmt.Errorf("%w: q", errContact)
	}
	n, _ := strconv.ParseUint(whole+decimals+"000"[len(decimals):], 10, 32)
	if n > 1000 {
		return 0, fmt.Errorf("%w: q", errContact)
	}
	return uint32(n), nil
}

// appendQ writes a qvalue as briefly as it can be.
func appendQ(b []byte, q uint32) []byte {
	if q >= 1000 {
		return append(b, '1')
	}
	b = append(b, '0')
	if q == 0 {
		return b
	}
	d := [4]byte{'.', byte('0' + q/100), byte('0' + q/10%10), byte('0' + q%10)}
	return append(b, strings.TrimRight(string(d[:]), "0")...)
}
