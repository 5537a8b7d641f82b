package hereis

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	"hereis/sipfront"
	"hereis/sipfront/event"
)

// maxNameLen keeps a member's metadata within memberlist's 512 bytes
// (CONSISTENCY rule 18).
const maxNameLen = 64

// FieldError says which setting is wrong, by the name of its flag.
type FieldError struct {
	Field, Reason string
}

// journalSizeMin is one file of the journal. A start reads all that there may be, and
// gives it to the database: journalSizeMax bounds how long that takes.
const journalSizeMin, journalSizeMax = 8 << 20, 2 << 30

func (e *FieldError) Error() string { return e.Field + ": " + e.Reason }

func fieldErr(field, format string, args ...any) error {
	return &FieldError{Field: field, Reason: fmt.Sprintf(format, args...)}
}

// Validate returns every setting that is wrong, each a FieldError, joined.
func (c *Config) Validate() error {
	return errors.Join(c.validateNode(), c.validateSIP(), c.validateTrust(), c.validateCluster(), c.validateRegistrar(), c.validatePresence(), c.validateLimits(), c.validateOperation())
}

var validName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

func (c *Config) validateNode() error {
	var errs []error
	if c.Name != "" && (!validName.MatchString(c.Name) || len(c.Name) > maxNameLen) {
		errs = append(errs, fieldErr("name", "%q: letters, digits, dot, dash and underscore, %d at most", c.Name, maxNameLen))
	}
	if c.Name == "all" {
		errs = append(errs, fieldErr("name", "%q means every node", c.Name))
	}
	if c.Data == "" && c.Durability != "memory" {
		errs = append(errs, fieldErr("data", "a folder is needed with durability %s", c.Durability))
	}
	for _, place := range []struct{ field, value string }{{"region", c.Region}, {"zone", c.Zone}} {
		if len(place.value) > maxNameLen {
			errs = append(errs, fieldErr(place.field, "longer than %d bytes", maxNameLen))
		}
	}
	if c.JournalSize < journalSizeMin || c.JournalSize > journalSizeMax {
		errs = append(errs, fieldErr("journal-size", "%d is not between %d and %d", c.JournalSize, journalSizeMin, journalSizeMax))
	}
	return errors.Join(append(errs, oneOf("durability", c.Durability, "memory", "async", "sync"))...)
}

func (c *Config) validateSIP() error {
	var errs []error
	if len(c.SIP) == 0 {
		errs = append(errs, fieldErr("sip", "at least one address is needed"))
	}
	seen := make(map[string]bool)
	for _, s := range c.SIP {
		transports, at, err := ParseSIPListen(s)
		if err != nil {
			errs = append(errs, fieldErr("sip", "%v", err))
			continue
		}
		for _, transport := range transports {
			if key := transport + at.String(); seen[key] && at.Port() != 0 {
				errs = append(errs, fieldErr("sip", "%s is given twice", s))
			} else {
				seen[key] = true
			}
		}
	}
	adv, ok := c.AdvertiseAddr()
	switch {
	case c.Advertise == "":
		errs = append(errs, fieldErr("advertise", "needed, as no address of sip can be told to others"))
	case !ok:
		errs = append(errs, fieldErr("advertise", "%q is not IP or IP:PORT", c.Advertise))
	case adv.Addr().IsUnspecified():
		errs = append(errs, fieldErr("advertise", "%s cannot be told to others", adv.Addr()))
	}
	if !sipfront.ValidRecordRoute(c.RecordRoute) {
		errs = append(errs, fieldErr("record-route", "%q is not HOST or HOST:PORT", c.RecordRoute))
	}
	if c.RingTimeout <= 0 {
		errs = append(errs, fieldErr("ring-timeout", "%v is not positive", c.RingTimeout))
	}
	rc := c.resolve()
	rc.Transports = sipTransports
	if err := rc.Validate(); err != nil {
		errs = append(errs, fieldErr("dns", "%v", err))
	}
	if _, err := ParseDomains(c.Domains); err != nil {
		errs = append(errs, fieldErr("domain", "%v", err))
	}
	return errors.Join(errs...)
}

// validateTrust is about who may register and call.
func (c *Config) validateTrust() error {
	var errs []error
	if _, err := c.front(); err != nil {
		errs = append(errs, err)
	}
	if len(c.Digest) == 0 {
		errs = append(errs, fieldErr("digest", "at least one algorithm is needed"))
	}
	if c.MessageTTL < time.Minute || c.MessageTTL > 30*24*time.Hour {
		errs = append(errs, fieldErr("message-ttl", "%s is not within 1m and 720h", c.MessageTTL))
	}
	if c.NonceLife < time.Second || c.NonceLife > 24*time.Hour {
		errs = append(errs, fieldErr("nonce-life", "%s is not within 1s and 24h", c.NonceLife))
	}
	for _, r := range c.Relays {
		if domains, err := c.domains(); err == nil {
			name, _, _ := strings.Cut(r, "=")
			if _, ours := domains.Canonical(name); ours {
				errs = append(errs, fieldErr("relay", "%s is served here", name))
			}
		}
	}
	return errors.Join(errs...)
}

// sipOnLoopback tells whether only this host reaches SIP here.
func (c *Config) sipOnLoopback() bool {
	return !slices.ContainsFunc(c.SIP, func(s string) bool {
		_, at, err := ParseSIPListen(s)
		return err != nil || !at.Addr().IsLoopback()
	})
}

func (c *Config) validateCluster() error {
	var errs []error
	used := make(map[string]string)
	for _, a := range []struct{ field, value string }{
		{"cluster", c.Cluster}, {"cluster-stream", c.ClusterStream}, {"cluster-remote", c.ClusterRemote},
	} {
		at, err := netip.ParseAddrPort(a.value)
		switch {
		case a.field == "cluster-remote" && a.value == noRemote:
		case err != nil:
			errs = append(errs, fieldErr(a.field, "%q is not IP:PORT", a.value))
		case c.SecretFile == "" && !at.Addr().IsLoopback():
			errs = append(errs, fieldErr(a.field, "%s is not loopback: other hosts need secret-file", a.value))
		case used[a.value] != "" && at.Port() != 0:
			errs = append(errs, fieldErr(a.field, "%s is the address of %s too", a.value, used[a.value]))
		default:
			used[a.value] = a.field
		}
	}
	// Nonces, route tokens and marks are made with keys that follow from the
	// secret. A node that others reach has its own if it is given none (keys),
	// and so is no part of a cluster.
	if len(c.Join) > 0 && c.SecretFile == "" && !c.sipOnLoopback() {
		errs = append(errs, fieldErr("secret-file", "needed to join others, as SIP is reached from other hosts: the same file at every node"))
	}
	for _, j := range c.Join {
		if _, _, err := splitHostPort(j); err != nil {
			errs = append(errs, fieldErr("join", "%v", err))
		}
	}
	return errors.Join(append(errs, oneOf("profile", c.Profile, "lan", "wan"))...)
}

func (c *Config) validateRegistrar() error {
	var errs []error
	// RFC 3261 10.3: 423 is only for less than an hour.
	if c.ExpiresMin < time.Second || c.ExpiresMin > time.Hour {
		errs = append(errs, fieldErr("expires-min", "%s is not within 1s and 1h", c.ExpiresMin))
	}
	if c.ExpiresMax < c.ExpiresMin || c.ExpiresMax > 30*24*time.Hour {
		errs = append(errs, fieldErr("expires-max", "%s is not within expires-min (%s) and 720h", c.ExpiresMax, c.ExpiresMin))
	}
	if c.ExpiresDefault < c.ExpiresMin || c.ExpiresDefault > c.ExpiresMax {
		errs = append(errs, fieldErr("expires-default", "%s is not within expires-min (%s) and expires-max (%s)", c.ExpiresDefault, c.ExpiresMin, c.ExpiresMax))
	}
	if c.ExpiresJitter < 0 || c.ExpiresJitter > 50 {
		errs = append(errs, fieldErr("expires-jitter", "%d is not within 0 and 50", c.ExpiresJitter))
	}
	if c.MaxBindings < 1 || c.MaxBindings > 1000 {
		errs = append(errs, fieldErr("max-bindings", "%d is not within 1 and 1000", c.MaxBindings))
	}
	errs = append(errs, oneOf("path", c.Path, "lazy", "strict"))
	return errors.Join(append(errs, oneOf("binding-policy", c.BindingPolicy, "reject", "replace-oldest"))...)
}

func (c *Config) validatePresence() error {
	var errs []error
	for _, l := range []struct {
		what                string
		least, most, normal time.Duration
	}{
		{"publish", c.PublishMin, c.PublishMax, c.PublishDefault},
		{"subscribe", c.SubscribeMin, c.SubscribeMax, c.SubscribeDefault},
	} {
		// RFC 3903 6 step 4, RFC 6665 4.2.1.1: 423 is only for less than an hour.
		if l.least < time.Second || l.least > time.Hour {
			errs = append(errs, fieldErr(l.what+"-min", "%s is not within 1s and 1h", l.least))
		}
		if l.most < l.least || l.most > 30*24*time.Hour {
			errs = append(errs, fieldErr(l.what+"-max", "%s is not within %s-min (%s) and 720h", l.most, l.what, l.least))
		}
		if l.normal < l.least || l.normal > l.most {
			errs = append(errs, fieldErr(l.what+"-default", "%s is not within %s-min (%s) and %s-max (%s)", l.normal, l.what, l.least, l.what, l.most))
		}
	}
	if c.NotifyInterval < 0 || c.NotifyInterval > time.Hour {
		errs = append(errs, fieldErr("notify-interval", "%s is not within 0s and 1h", c.NotifyInterval))
	}
	switch policy := c.presencePolicy(); {
	case c.PresencePolicy != "" && !policy.Valid():
		errs = append(errs, fieldErr("presence-policy", "%q is not open, authenticated or confirm", c.PresencePolicy))
	case policy != event.Open && c.Users == "":
		errs = append(errs, fieldErr("presence-policy", "%s needs users: without passwords nobody shows one", policy))
	}
	return errors.Join(errs...)
}

func (c *Config) validateLimits() error {
	var errs []error
	for _, l := range []struct {
		field      string
		value, min int
	}{
		{"max-publications", c.MaxPublications, 1}, {"max-publication", c.MaxPublication, 256},
		{"max-subscriptions", c.MaxSubscriptions, 1}, {"max-watchers", c.MaxWatchers, 1}, {"max-notifies", c.MaxNotifies, 1}, {"max-list-members", c.MaxListMembers, 1},
		{"max-dialogs", c.MaxDialogs, 1},
		{"max-transactions", c.MaxTransactions, 1}, {"answer-bytes", c.AnswerBytes, 1}, {"max-flows", c.MaxFlows, 64}, {"udp-buffer", c.UDPBuffer, 2048},
		{"max-branches", c.MaxBranches, 1}, {"max-breadth", c.MaxBreadth, 1}, {"max-redirects", c.MaxRedirects, 0},
		{"max-lookups", c.MaxLookups, 1}, {"max-nonces", c.MaxNonces, 1}, {"max-in-flight", c.MaxInFlight, 1},
		{"max-users", c.MaxUsers, 64}, {"max-parked", c.MaxParked, 1}, {"max-broadcasts", c.MaxBroadcasts, 1}, {"max-handlers", c.MaxHandlers, 1},
		{"max-writes", c.MaxWrites, 1}, {"max-unstored", c.MaxUnstored, 1},
		{"max-watch-backlog", c.MaxWatchBacklog, 1},
		{"max-stored", c.MaxStored, 1}, {"max-stored-per-user", c.MaxStoredPerUser, 1}, {"max-stored-bytes", c.MaxStoredBytes, 1},
		{"max-pending", c.MaxPending, 1}, {"source-rate", c.SourceRate, 0}, {"source-burst", c.SourceBurst, 1},
		{"source-answers", c.SourceAnswers, 0}, {"max-sources", c.MaxSources, 1},
		{"max-connections", c.MaxConnections, 1}, {"max-connections-per-source", c.MaxConnectionsPerSource, 1},
		{"max-datagram", c.MaxDatagram, 1300}, {"max-message", c.MaxMessage, 1300}, {"max-body", c.MaxBody, 0},
		{"max-headers", c.MaxHeaders, 16}, {"max-header-line", c.MaxHeaderLine, 256}, {"max-params", c.MaxParams, 8},
	} {
		if l.value < l.min {
			errs = append(errs, fieldErr(l.field, "%d is less than %d", l.value, l.min))
		}
	}
	if c.MaxDatagram > 65535 {
		errs = append(errs, fieldErr("max-datagram", "%d is more than a datagram can have", c.MaxDatagram))
	}
	return errors.Join(errs...)
}

func (c *Config) validateOperation() error {
	var errs []error
	if c.Admin != "" {
		if _, err := netip.ParseAddrPort(c.Admin); err != nil {
			errs = append(errs, fieldErr("admin", "%q is not IP:PORT", c.Admin))
		}
	}
	if c.StopTimeout < time.Second {
		errs = append(errs, fieldErr("stop-timeout", "%s is shorter than 1s", c.StopTimeout))
	}
	return errors.Join(append(errs,
		oneOf("log-level", c.LogLevel, "debug", "info", "warn", "error"),
		oneOf("log-format", c.LogFormat, "text", "json"))...)
}

func oneOf(field, value string, allowed ...string) error {
	for _, a := range allowed {
		if value == a {
			return nil
		}
	}
	return fieldErr(field, "%q is not one of %s", value, strings.Join(allowed, ", "))
}
