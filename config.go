package hereis

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"hereis/actors"
	"hereis/cluster"
)

// Config is everything that an operator can say about one node. A field's name
// tag is its name everywhere: as a flag (--expires-min), in a YAML file
// (expires-min:), and in the environment (HEREIS_EXPIRES_MIN). The help tag is
// what --help prints.
//
// Make one with DefaultConfig, change what must differ, call Derive to fill in
// what follows from the rest, and give it to New.
type Config struct {
	// Name is the stable name of the node, which placement hashes. Empty: the
	// name remembered in Data, or, at the very first start, one made up from the
	// host's name. Two live nodes may not have the same.
	Name string `name:"name" group:"node" placeholder:"NAME" help:"Stable name of the node; empty: as remembered in --data, else made from the host name."`
	// Data is the folder for what the node must remember. It belongs to this
	// node alone and is made if it does not exist.
	Data string `name:"data" group:"node" placeholder:"DIR" help:"Folder for what the node must remember; its own, made if missing."`
	// Durability is when a registration counts as stored, before its 200 goes
	// out: "memory" (never written), "async" (written soon) or "sync" (on disk).
	Durability string `name:"durability" group:"node" placeholder:"LEVEL" help:"What a registration waits for: memory, async or sync."`
	// Region and Zone say where the node is; any text, empty is a place too.
	Region string `name:"region" group:"node" placeholder:"NAME" help:"Region of the node."`
	Zone   string `name:"zone" group:"node" placeholder:"NAME" help:"Zone of the node within its region."`

	// SIP lists the addresses that serve SIP, as udp:ip:port, tcp:ip:port, or
	// ip:port for both.
	SIP []string `name:"sip" group:"sip" placeholder:"ADDR" help:"Address that serves SIP, udp:IP:PORT, tcp:IP:PORT, or IP:PORT for both; repeatable."`
	// Advertise is the address, ip or ip:port, at which devices and other nodes
	// reach SIP on this node. Empty: the first of SIP, if that is not unspecified.
	Advertise string `name:"advertise" group:"sip" placeholder:"ADDR" help:"Address at which others reach this node, IP or IP:PORT; empty: the first --sip."`
	// Domains are the domains that this cluster serves, each with aliases that
	// mean the same: "example.com" or "example.com=sip.example.com,10.0.0.1".
	// Empty: the advertised address is the only one.
	Domains []string `name:"domain" group:"sip" placeholder:"D" sep:"none" help:"Domain to serve, with aliases as a=b,c; repeatable; none: the advertised address."`
	// Users is the file of those who may register; empty: everybody may.
	Users string `name:"users" group:"sip" placeholder:"FILE" help:"File of those who may register; none: everybody may."`

	// Cluster is the ip:port of gossip (UDP and TCP). Empty: port 7060 at
	// the advertised address with a secret, at 127.0.0.1 without.
	Cluster string `name:"cluster" group:"cluster" placeholder:"ADDR" help:"Address for gossip, IP:PORT; empty: port 7060, on loopback without a secret."`
	// ClusterStream is the ip:port of the streams between nodes. Empty: the
	// port after that of Cluster.
	ClusterStream string `name:"cluster-stream" group:"cluster" placeholder:"ADDR" help:"Address for streams between nodes; empty: the port after --cluster."`
	// ClusterRemote is the ip:port of proto.actor's remote. Empty: the second
	// port after that of Cluster. "none": users are not reachable by
	// proto.actor's own cluster.Request, which nothing else needs.
	ClusterRemote string `name:"cluster-remote" group:"cluster" placeholder:"ADDR" help:"Address for the remote of proto.actor; empty: the second port after --cluster; none: leave it out."`
	// Join lists gossip addresses, host:port, of nodes to join; of a DNS name,
	// all addresses are tried. One that answers is enough, none is no error.
	Join []string `name:"join" group:"cluster" placeholder:"ADDR" help:"Gossip address of a node to join, HOST:PORT; repeatable; a DNS name gives all its addresses."`
	// SecretFile holds the secret that all nodes of a cluster share, 16 bytes at
	// least. Without it peers are listened for on loopback only.
	SecretFile string `name:"secret-file" group:"cluster" placeholder:"FILE" help:"File with the secret of the cluster; without it, peers on loopback only."`
	// Profile sets the timers of failure detection: "lan" or "wan".
	Profile string `name:"profile" group:"cluster" placeholder:"P" help:"Timers of failure detection: lan or wan."`

	// ExpiresMin is the shortest lifetime of a binding that is granted; a
	// shorter wish is answered 423 (RFC 3261 10.3). At most one hour.
	ExpiresMin time.Duration `name:"expires-min" group:"registrar" placeholder:"T" help:"Shortest registration; a shorter wish is answered 423."`
	// ExpiresMax is the longest; a longer wish is shortened to it.
	ExpiresMax time.Duration `name:"expires-max" group:"registrar" placeholder:"T" help:"Longest registration; a longer wish is shortened."`
	// ExpiresDefault is granted to those who do not say.
	ExpiresDefault time.Duration `name:"expires-default" group:"registrar" placeholder:"T" help:"Registration of those who do not say how long."`
	// ExpiresJitter shortens a granted lifetime at random by up to that many
	// percent, so that devices that came together do not stay together. 0 to 50.
	ExpiresJitter int `name:"expires-jitter" group:"registrar" placeholder:"PERCENT" help:"Shorten a registration at random by up to that many percent."`
	// MaxBindings is how many live bindings a user may have.
	MaxBindings int `name:"max-bindings" group:"registrar" placeholder:"N" help:"Live bindings of one user."`
	// BindingPolicy is what happens to one more: "reject" (403) or "replace-oldest".
	BindingPolicy string `name:"binding-policy" group:"registrar" placeholder:"POLICY" help:"For one binding more: reject or replace-oldest."`

	// Admin is the ip:port of the HTTP API; empty: none. It has no authentication.
	Admin string `name:"admin" group:"operation" placeholder:"ADDR" help:"Address of the HTTP API, IP:PORT; it has no authentication; empty: none."`
	// Pprof serves profiles of the process at /debug/pprof/ of the HTTP API.
	Pprof bool `name:"pprof" group:"operation" help:"Serve profiles at /debug/pprof/ of the HTTP API."`
	// LogLevel is "debug", "info", "warn" or "error".
	LogLevel string `name:"log-level" group:"operation" placeholder:"LEVEL" help:"Lowest level to log: debug, info, warn or error."`
	// LogFormat is "text" or "json".
	LogFormat string `name:"log-format" group:"operation" placeholder:"FORMAT" help:"Format of the log: text or json."`
	// StopTimeout bounds a graceful stop.
	StopTimeout time.Duration `name:"stop-timeout" group:"operation" placeholder:"T" help:"Longest graceful stop."`
}

// noRemote as ClusterRemote leaves proto.actor's remote out.
const noRemote = "none"

// Default ports.
const (
	defaultSIPPort     = 5060
	defaultClusterPort = 7060
)

// maxNameLen keeps a member's metadata within memberlist's 512 bytes
// (CONSISTENCY rule 18).
const maxNameLen = 64

// DefaultConfig is a node that serves SIP on every address of the host and
// forms a cluster on loopback.
func DefaultConfig() Config {
	return Config{
		Data:           "hereis-data",
		Durability:     "sync",
		SIP:            []string{"0.0.0.0:5060"},
		Profile:        "lan",
		ExpiresMin:     time.Minute,
		ExpiresMax:     2 * time.Hour,
		ExpiresDefault: time.Hour,
		MaxBindings:    10,
		BindingPolicy:  "reject",
		Admin:          "127.0.0.1:8060",
		LogLevel:       "info",
		LogFormat:      "text",
		StopTimeout:    10 * time.Second,
	}
}

// FieldError says which setting is wrong, by the name of its flag.
type FieldError struct {
	Field, Reason string
}

func (e *FieldError) Error() string { return e.Field + ": " + e.Reason }

func fieldErr(field, format string, args ...any) error {
	return &FieldError{Field: field, Reason: fmt.Sprintf(format, args...)}
}

// Derive fills in what was left empty and follows from other fields: Advertise,
// Domains, Cluster, ClusterStream and ClusterRemote. It returns the names of
// the fields that it set. What it cannot derive stays empty, for Validate to
// complain of.
func (c *Config) Derive() (derived []string) {
	set := func(field string, to *string, value string) {
		if *to == "" && value != "" {
			*to = value
			derived = append(derived, field)
		}
	}
	if len(c.SIP) > 0 {
		if _, at, err := ParseSIPListen(c.SIP[0]); err == nil && !at.Addr().IsUnspecified() {
			set("advertise", &c.Advertise, at.String())
		}
	}
	adv, ok := c.AdvertiseAddr()
	if ok && len(c.Domains) == 0 {
		c.Domains = []string{adv.Addr().String()}
		derived = append(derived, "domain")
	}
	switch {
	case c.SecretFile == "":
		set("cluster", &c.Cluster, fmt.Sprintf("127.0.0.1:%d", defaultClusterPort))
	case ok:
		set("cluster", &c.Cluster, netip.AddrPortFrom(adv.Addr(), defaultClusterPort).String())
	}
	if at, err := netip.ParseAddrPort(c.Cluster); err == nil && at.Port() <= 65533 && at.Port() > 0 {
		set("cluster-stream", &c.ClusterStream, netip.AddrPortFrom(at.Addr(), at.Port()+1).String())
		set("cluster-remote", &c.ClusterRemote, netip.AddrPortFrom(at.Addr(), at.Port()+2).String())
	}
	return derived
}

// AdvertiseAddr is Advertise with its port: the one given, or that of the first
// SIP address. It is false if there is none.
func (c *Config) AdvertiseAddr() (netip.AddrPort, bool) {
	if at, err := netip.ParseAddrPort(c.Advertise); err == nil {
		return at, at.Port() != 0
	}
	ip, err := netip.ParseAddr(strings.Trim(c.Advertise, "[]"))
	if err != nil {
		return netip.AddrPort{}, false
	}
	port := uint16(defaultSIPPort)
	if len(c.SIP) > 0 {
		if _, at, err := ParseSIPListen(c.SIP[0]); err == nil {
			port = at.Port()
		}
	}
	return netip.AddrPortFrom(ip, port), true
}

// Validate returns every setting that is wrong, each a FieldError, joined.
func (c *Config) Validate() error {
	return errors.Join(c.validateNode(), c.validateSIP(), c.validateCluster(), c.validateRegistrar(), c.validateOperation())
}

var validName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

func (c *Config) validateNode() error {
	var errs []error
	if c.Name != "" && (!validName.MatchString(c.Name) || len(c.Name) > maxNameLen) {
		errs = append(errs, fieldErr("name", "%q: letters, digits, dot, dash and underscore, %d at most, and not %q", c.Name, maxNameLen, "all"))
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
	if _, err := ParseDomains(c.Domains); err != nil {
		errs = append(errs, fieldErr("domain", "%v", err))
	}
	return errors.Join(errs...)
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
	return errors.Join(append(errs, oneOf("binding-policy", c.BindingPolicy, "reject", "replace-oldest"))...)
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

// sipTransports are those that a node can serve, in the order of preference.
var sipTransports = []string{"udp", "tcp"}

// ParseSIPListen reads udp:ip:port or tcp:ip:port, or ip:port, which is both.
func ParseSIPListen(s string) (transports []string, at netip.AddrPort, err error) {
	transports, rest := sipTransports, s
	// A transport is letters; what is before the first colon of an address never is, but for IPv6 in brackets.
	if head, tail, ok := strings.Cut(s, ":"); ok && head != "" && strings.Trim(head, "abcdefghijklmnopqrstuvwxyz") == "" {
		if !slices.Contains(sipTransports, head) {
			return nil, netip.AddrPort{}, fmt.Errorf("%s: transport %q is not served, only %s", s, head, strings.Join(sipTransports, " and "))
		}
		transports, rest = []string{head}, tail
	}
	at, err = netip.ParseAddrPort(rest)
	if err != nil {
		return nil, netip.AddrPort{}, fmt.Errorf("%q is not udp:IP:PORT, tcp:IP:PORT or IP:PORT", s)
	}
	return transports, at, nil
}

// Domain is one served domain and the names that mean the same.
type Domain struct {
	Name    string
	Aliases []string
}

// ParseDomains reads domains written as a or a=b,c. Names are lower-cased, IPv6
// addresses lose their brackets. No name may belong to two domains.
func ParseDomains(values []string) ([]Domain, error) {
	var domains []Domain
	owner := make(map[string]string)
	for _, v := range values {
		head, tail, _ := strings.Cut(v, "=")
		d := Domain{}
		names := []string{head}
		if tail != "" {
			names = append(names, strings.Split(tail, ",")...)
		}
		for i, name := range names {
			host, err := canonicalHost(name)
			if err != nil {
				return nil, fmt.Errorf("%q: %w", v, err)
			}
			if other, ok := owner[host]; ok {
				return nil, fmt.Errorf("%q: %s belongs to %s already", v, host, other)
			}
			if i == 0 {
				d.Name = host
			} else {
				d.Aliases = append(d.Aliases, host)
			}
			owner[host] = d.Name
		}
		domains = append(domains, d)
	}
	return domains, nil
}

var validHost = regexp.MustCompile(`^([a-z0-9_]([a-z0-9_-]*[a-z0-9_])?\.)*[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?$`)

func canonicalHost(s string) (string, error) {
	host := strings.ToLower(strings.TrimSuffix(strings.TrimSpace(s), "."))
	if ip, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return ip.Unmap().String(), nil
	}
	if len(host) > 253 || !validHost.MatchString(host) {
		return "", fmt.Errorf("%q is no host name or address", s)
	}
	return host, nil
}

func splitHostPort(s string) (host string, port uint16, err error) {
	host, p, err := net.SplitHostPort(s)
	if err != nil || host == "" {
		return "", 0, fmt.Errorf("%q is not HOST:PORT", s)
	}
	n, err := strconv.ParseUint(p, 10, 16)
	if err != nil || n == 0 {
		return "", 0, fmt.Errorf("%q: port %q is not within 1 and 65535", s, p)
	}
	return host, uint16(n), nil
}

// domains makes the set of served domains.
func (c *Config) domains() (*actors.Domains, error) {
	parsed, err := ParseDomains(c.Domains)
	if err != nil {
		return nil, fieldErr("domain", "%v", err)
	}
	list := make([]actors.Domain, len(parsed))
	for i, d := range parsed {
		list[i] = actors.Domain(d)
	}
	return actors.NewDomains(list...)
}

// keys derives the cluster's keys from the secret, or from nothing for a
// cluster on loopback.
func (c *Config) keys() (*cluster.Keys, error) {
	if c.SecretFile == "" {
		return cluster.InsecureKeys("hereis")
	}
	return cluster.LoadKeys(c.SecretFile)
}

// limits are the registrar's.
func (c *Config) limits() actors.Limits {
	l := actors.DefaultLimits()
	l.DefaultExpires, l.MinExpires, l.MaxExpires = c.ExpiresDefault, c.ExpiresMin, c.ExpiresMax
	l.Jitter = float64(c.ExpiresJitter) / 100
	l.MaxBindings, l.Policy = c.MaxBindings, actors.Policy(c.BindingPolicy)
	return l
}
