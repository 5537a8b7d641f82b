package credentials

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"

	"hereis/actors"
)

// maxLine bounds a line, in bytes; a user with three hashes takes about 250.
const maxLine = 4096

// maxComplaints bounds the errors that one reading gives.
const maxComplaints = 10

// LineError says what is wrong with a line; it never has a hash in it.
type LineError struct {
	Line   int
	Reason string
}

func (e *LineError) Error() string { return fmt.Sprintf("line %d: %s", e.Line, e.Reason) }

// Set is what a users file says. It never changes; all methods are safe for
// concurrent use.
type Set struct {
	// users by name, as alice@example.com.
	users map[string]entry
	// realms by domain.
	realms map[string]realm
}

// entry has the HA1 values of a user, as bytes: a million users are a
// matter of a hundred megabytes.
type entry struct {
	has    Algorithms
	md5    [16]byte
	sha    [32]byte
	sha512 [32]byte
}

func (e *entry) hash(a Algorithm) []byte {
	switch a {
	case MD5:
		return e.md5[:]
	case SHA256:
		return e.sha[:]
	default:
		return e.sha512[:]
	}
}

// realm is what the users of a domain have: all of them, and any of them.
type realm struct{ all, any Algorithms }

// Parse reads a users file. All that is wrong with it comes back at once, each
// a LineError, joined; ten at most.
func Parse(r io.Reader) (*Set, error) {
	s := &Set{users: map[string]entry{}, realms: map[string]realm{}}
	names := namesOf{}
	var errs []error
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, maxLine), maxLine)
	n := 0
	for lines.Scan() && len(errs) < maxComplaints {
		n++
		name, e, err := parseLine(lines.Text(), names)
		if err == nil && name != "" {
			err = s.add(name, e)
		}
		if err != nil {
			errs = append(errs, &LineError{n, err.Error()})
		}
	}
	if err := lines.Err(); errors.Is(err, bufio.ErrTooLong) {
		errs = append(errs, &LineError{n + 1, fmt.Sprintf("longer than %d bytes", maxLine)})
	} else if err != nil {
		errs = append(errs, err)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return s, nil
}

func (s *Set) add(name string, e entry) error {
	if _, twice := s.users[name]; twice {
		return fmt.Errorf("%s is there already", name)
	}
	s.users[name] = e
	_, domain, _ := strings.Cut(name, "@")
	r, known := s.realms[domain]
	if !known {
		r.all = e.has
	}
	s.realms[domain] = realm{r.all & e.has, r.any | e.has}
	return nil
}

// HA1 is a user's in lower-case hexadecimal, if the user and the algorithm are there.
func (s *Set) HA1(user, realm string, a Algorithm) (ha1 string, ok bool) {
	e, ok := s.users[user+"@"+realm]
	if !ok || !e.has.Has(a) {
		return "", false
	}
	return hex.EncodeToString(e.hash(a)), true
}

// Offered are the algorithms that a challenge of a realm may name: those that
// every user of it has, so that a challenge says nothing of any one of them
// and each can answer; where there is no such, those that anybody has. All, if
// the realm has no users.
func (s *Set) Offered(realm string) Algorithms {
	switch r, ok := s.realms[realm]; {
	case !ok:
		return 1<<algorithms - 1
	case r.all != 0:
		return r.all
	default:
		return r.any
	}
}

// Has tells whether there is a user of an address-of-record.
func (s *Set) Has(aor actors.AoR) bool {
	_, ok := s.users[strings.TrimPrefix(string(aor), "sip:")]
	return ok
}

// Domains are those that the users are of.
func (s *Set) Domains() (list []string) {
	for d := range s.realms {
		list = append(list, d)
	}
	return list
}

// Len is the number of users.
func (s *Set) Len() int { return len(s.users) }

// parseLine reads one line; name is empty if it has no user.
func parseLine(line string, names namesOf) (name string, e entry, err error) {
	words := strings.Fields(line)
	if len(words) == 0 || strings.HasPrefix(words[0], "#") {
		return "", e, nil
	}
	if name, err = names.check(words[0]); err != nil {
		return "", e, err
	}
	for i, w := range words[1:] {
		algorithm, value, ok := strings.Cut(w, "=")
		if !ok {
			// Perhaps a password: it is not repeated.
			return "", e, fmt.Errorf("%s: word %d is not ALGORITHM=HASH", name, i+2)
		}
		a, err := ParseAlgorithm(algorithm)
		if err != nil {
			return "", e, fmt.Errorf("%s: %w", name, err)
		}
		if e.has.Has(a) {
			return "", e, fmt.Errorf("%s: %s stands there twice", name, a)
		}
		raw, err := hex.DecodeString(value)
		if err != nil || len(raw) != a.Size() {
			return "", e, fmt.Errorf("%s: %s is not %d hexadecimal digits", name, a, 2*a.Size())
		}
		e.has = e.has.with(a)
		copy(e.hash(a), raw)
	}
	if e.has == 0 {
		return "", e, fmt.Errorf("%s has no hash", name)
	}
	return name, e, nil
}

// namesOf checks names, and keeps what it needs for each domain.
type namesOf map[string]*actors.Domains

// check wants the canonical form: the one in which addresses of requests are
// looked up, and in which user and realm have gone into the hash.
func (n namesOf) check(name string) (string, error) {
	user, domain, ok := strings.Cut(name, "@")
	if !ok || user == "" || domain == "" {
		return "", fmt.Errorf("%q is not USER@DOMAIN", name)
	}
	ds, ok := n[domain]
	if !ok {
		var err error
		if ds, err = actors.NewDomains(actors.Domain{Name: domain}); err != nil {
			return "", fmt.Errorf("%q: %q is no domain", name, domain)
		}
		n[domain] = ds
	}
	aor, err := actors.ParseAoR("sip:"+name, ds)
	if err != nil || strings.ContainsAny(user, ":%") {
		// A ':' would part user and realm (RFC 7617 2); no phone has an escape in its user name.
		return "", fmt.Errorf("%q cannot be a user's address", name)
	}
	if canonical := strings.TrimPrefix(string(aor), "sip:"); canonical != name {
		return "", fmt.Errorf("%q must be written %q", name, canonical)
	}
	return name, nil
}
