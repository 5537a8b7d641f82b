package hereis

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"hereis/actors"
	"hereis/cluster"
	"hereis/cluster/store"
	"hereis/sipfront"
	"hereis/sipfront/transaction"
	"hereis/sipfront/transport"
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
	// name remembered in Data, or, at the very first start, one made up. Two live
	// nodes may not have the same.
	Name string `name:"name" group:"node" placeholder:"NAME" help:"Stable name of the node; empty: as remembered in --data, at first one made up."`
	// Data is the folder for what the node must remember. It belongs to this
	// node alone and is made if it does not exist.
	Data string `name:"data" group:"node" placeholder:"DIR" help:"Folder for what the node must remember; its own, made if missing."`
	// Durability is when a registration counts as stored, before its 200 goes
	// out: "memory" (never written), "async" (written soon) or "sync" (on disk).
	Durability string `name:"durability" group:"node" placeholder:"LEVEL" help:"What a registration waits for: memory, async or sync."`
	// JournalSize is how much of the journal is full, in bytes, before the node's
	// database is given the last value of each registration in it; the journal takes
	// half as much again, and 64 MiB more at least, while that is being done. At least 8 MiB.
	JournalSize int `name:"journal-size" group:"node" placeholder:"BYTES" help:"How much is written to the journal before the database is given what is in it."`
	// Region and Zone say where the node is; any text, empty is a place too.
	Region string `name:"region" group:"node" placeholder:"NAME" help:"Region of the node."`
	Zone   string `name:"zone" group:"node" placeholder:"NAME" help:"Zone of the node within its region."`

	// SIP lists the addresses that serve SIP, as udp:ip:port, tcp:ip:port, or
	// ip:port for both.
	SIP []string `name:"sip" group:"sip" placeholder:"ADDR" help:"Address that serves SIP, udp:IP:PORT, tcp:IP:PORT, or IP:PORT for both; repeatable."`
	// Advertise is the address, ip or ip:port, at which devices and other nodes
	// reach SIP on this node. Empty: the first of SIP, if that is not unspecified.
	Advertise string `name:"advertise" group:"sip" placeholder:"ADDR" help:"Address at which others reach this node, IP or IP:PORT; empty: the first --sip."`
	// RecordRoute is the host, or host:port, that this node puts into its
	// Record-Route in the place of its own address: a name, or an address, that
	// leads to several nodes. The requests of a dialog (BYE, re-INVITE) then
	// survive the death of the node that the call came through. Empty: the
	// node's own address.
	RecordRoute string `name:"record-route" group:"sip" placeholder:"HOST" help:"Host, or HOST:PORT, in Record-Route that leads to several nodes, so that calls outlive one of them; empty: this node's address."`
	// Domains are the domains that this cluster serves, each with aliases that
	// mean the same: "example.com" or "example.com=sip.example.com,10.0.0.1".
	// Empty: the advertised address is the only one.
	Domains []string `name:"domain" group:"sip" placeholder:"D" sep:"none" help:"Domain to serve, with aliases as a=b,c; repeatable; none: the advertised address."`
	// DNS lists name servers, ip or ip:port, for names in SIP (RFC 3263). Empty:
	// those of the host.
	DNS []string `name:"dns" group:"sip" placeholder:"ADDR" help:"Name server for names in SIP, IP or IP:PORT; repeatable; none: the servers of the host."`
	// FollowRedirects: the Contacts of a 300, 301 or 302 are called by this node
	// instead of being passed on to the caller (RFC 3261 16.7).
	FollowRedirects bool `name:"follow-redirects" group:"sip" help:"Call the Contacts of a 300, 301 or 302 instead of passing it on."`
	// RingTimeout bounds how long devices ring while others with a lower q wait.
	RingTimeout time.Duration `name:"ring-timeout" group:"sip" placeholder:"T" help:"How long devices ring while others with a lower q wait."`
	// Users is the file of those who may register and call, with their passwords'
	// hashes (see hereis user); empty: everybody may. It is the same at every
	// node, and is read again when it changes.
	Users string `name:"users" group:"sip" placeholder:"FILE" help:"File of those who may register and call (see hereis user); none: everybody may."`
	// Digest is the order in which algorithms are offered, the preferred one
	// first (RFC 8760): SHA-256, SHA-512-256, MD5. One that not every user of a
	// domain has is left out there.
	Digest []string `name:"digest" group:"sip" placeholder:"ALG" help:"Order of the digest algorithms offered: SHA-256, SHA-512-256, MD5; repeatable."`
	// NonceLife is how long a client may use a digest nonce. 1 s to 24 h.
	NonceLife time.Duration `name:"nonce-life" group:"sip" placeholder:"T" help:"How long a digest nonce is good."`
	// Trunks are peers trusted by their address, as IP, IP:PORT or CIDR: they may
	// call users of ours without credentials, and be called.
	Trunks []string `name:"trunk" group:"sip" placeholder:"ADDR" help:"Peer that is trusted by its address, IP, IP:PORT or CIDR: may call our users and be called; repeatable."`
	// Relays are foreign domains that authenticated users, and trunks, may call,
	// as DOMAIN or DOMAIN=HOST:PORT. All others are refused.
	Relays []string `name:"relay" group:"sip" placeholder:"D" help:"Foreign domain that authenticated users and trunks may call, DOMAIN or DOMAIN=HOST:PORT; repeatable."`

	// DialogEvents tells of the calls that enter by this node in the event package
	// "dialog", for busy lamps.
	DialogEvents bool `name:"dialog-events" group:"sip" help:"Tell watchers of the event package dialog of the calls that enter by this node."`
	// StoreMessages keeps a MESSAGE for a user who is offline, and delivers it when
	// the user registers at any node (RFC 3428); the sender gets a 202.
	StoreMessages bool `name:"store-messages" group:"sip" help:"Keep a MESSAGE for a user who is offline, and deliver it when the user registers."`
	// MessageTTL is how long such a message is kept at most. 1 min to 30 days.
	MessageTTL time.Duration `name:"message-ttl" group:"sip" placeholder:"T" help:"How long a MESSAGE for a user who is offline is kept at most."`

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
	// least. Without it peers are listened for on loopback only, and a node whose
	// SIP is not on loopback makes a secret of its own in Data.
	SecretFile string `name:"secret-file" group:"cluster" placeholder:"FILE" help:"File with the secret of the cluster; none: peers on loopback only, or, if SIP is not on loopback, a secret of its own in --data."`
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

	// Path is what becomes of a REGISTER with a Path (RFC 3327) of a device that
	// does not say that it knows it: "lazy", the Path is kept and not mentioned, as
	// most devices behind an edge proxy need it, or "strict", the 420 that 5.3 of
	// the RFC recommends.
	Path string `name:"path" group:"registrar" placeholder:"MODE" help:"A Path added for a device that does not support it: lazy (kept) or strict (420)."`

	// PublishMin, PublishMax and PublishDefault are for publications what
	// ExpiresMin, ExpiresMax and ExpiresDefault are for bindings (RFC 3903 6).
	PublishMin     time.Duration `name:"publish-min" group:"presence" placeholder:"T" help:"Shortest publication; a shorter wish is answered 423."`
	PublishMax     time.Duration `name:"publish-max" group:"presence" placeholder:"T" help:"Longest publication; a longer wish is shortened."`
	PublishDefault time.Duration `name:"publish-default" group:"presence" placeholder:"T" help:"Publication of those who do not say how long."`
	// SubscribeMin, SubscribeMax and SubscribeDefault are the same for
	// subscriptions (RFC 6665 4.2.1.1). SubscribeMin is at most one hour.
	SubscribeMin     time.Duration `name:"subscribe-min" group:"presence" placeholder:"T" help:"Shortest subscription; a shorter wish is answered 423."`
	SubscribeMax     time.Duration `name:"subscribe-max" group:"presence" placeholder:"T" help:"Longest subscription; a longer wish is shortened."`
	SubscribeDefault time.Duration `name:"subscribe-default" group:"presence" placeholder:"T" help:"Subscription of those who do not say how long."`
	// PresencePolicy decides who may watch whom where no rule of PresenceRules does:
	// "open", "authenticated" or "confirm"; empty: "authenticated" with Users, else "open".
	PresencePolicy string `name:"presence-policy" group:"presence" placeholder:"POLICY" help:"Who may watch whom: open, authenticated or confirm; authenticated with --users, otherwise open."`
	// PresenceRules is a file of rules on who may watch whom. It is read again when it changes.
	PresenceRules string `name:"presence-rules" group:"presence" placeholder:"FILE" help:"Rules on who may watch whom (YAML); read again when it changes."`
	// Lists is a file of resource lists (RFC 4662): who subscribes to the address
	// of one is told of all its members. It is read again when it changes.
	Lists string `name:"lists" group:"presence" placeholder:"FILE" help:"Resource lists, which are watched as one (YAML); read again when it changes."`
	// NotifyInterval is the shortest time between two NOTIFYs of a subscription,
	// unless its watcher asks for a longer one (RFC 6446); what changes meanwhile
	// is told at its end.
	NotifyInterval time.Duration `name:"notify-interval" group:"presence" placeholder:"T" help:"Shortest time between two NOTIFYs of a subscription; changes meanwhile are told at its end."`

	// MaxPublications is how many live publications a user may have, of all event packages.
	MaxPublications int `name:"max-publications" group:"limits" placeholder:"N" help:"Live publications of one user; above it 403."`
	// MaxPublication bounds the body of a PUBLISH.
	MaxPublication int `name:"max-publication" group:"limits" placeholder:"BYTES" help:"Body of a PUBLISH; above it 413."`
	// MaxSubscriptions bounds those that this node serves, MaxWatchers those to one user.
	MaxSubscriptions int `name:"max-subscriptions" group:"limits" placeholder:"N" help:"Subscriptions that this node serves; above it 503."`
	MaxWatchers      int `name:"max-watchers" group:"limits" placeholder:"N" help:"Subscriptions to one user at this node; above it 403."`
	// MaxDialogs bounds the calls that dialog events follow at a time.
	MaxDialogs int `name:"max-dialogs" group:"limits" placeholder:"N" help:"Calls that --dialog-events follows at a time; others are not told of."`
	// MaxListMembers bounds the members of a resource list.
	MaxListMembers int `name:"max-list-members" group:"limits" placeholder:"N" help:"Members of a resource list; above it 403."`
	// MaxNotifies bounds the NOTIFYs without an answer; others wait.
	MaxNotifies int `name:"max-notifies" group:"limits" placeholder:"N" help:"NOTIFYs without an answer at a time; others wait."`

	// MaxTransactions bounds SIP transactions, both sides; above it: 503.
	MaxTransactions int `name:"max-transactions" group:"limits" placeholder:"N" help:"SIP transactions at a time; above it 503."`
	// AnswerBytes bounds the memory, in bytes, of answers kept for repeated
	// requests; the oldest give way.
	AnswerBytes int `name:"answer-bytes" group:"limits" placeholder:"BYTES" help:"Memory for answers to repeated requests; the oldest give way."`
	// UDPBuffer is the room in bytes of what waits to be read at each UDP socket.
	UDPBuffer int `name:"udp-buffer" group:"limits" placeholder:"BYTES" help:"Room at a UDP socket for what waits to be read."`
	// MaxFlows bounds the UDP flows that this node keeps an id of.
	MaxFlows int `name:"max-flows" group:"limits" placeholder:"N" help:"UDP flows with an id."`
	// MaxBranches bounds the branches of one request, all told.
	MaxBranches int `name:"max-branches" group:"limits" placeholder:"N" help:"Branches of one request."`
	// MaxBreadth bounds the branches of one request that are open at a time,
	// here and at all proxies behind (RFC 5393).
	MaxBreadth int `name:"max-breadth" group:"limits" placeholder:"N" help:"Branches of one request that are open at a time, here and behind."`
	// MaxRedirects bounds the Contacts of redirections that one request follows.
	MaxRedirects int `name:"max-redirects" group:"limits" placeholder:"N" help:"Contacts of redirections that one request follows."`
	// MaxLookups bounds questions of the SIP side to the cluster; above it: 503.
	MaxLookups int `name:"max-lookups" group:"limits" placeholder:"N" help:"Questions of the SIP side to the cluster at a time; above it 503."`
	// MaxNonces bounds the digest nonces whose use is remembered, about 200 bytes
	// each; the oldest give way, and are stale.
	MaxNonces int `name:"max-nonces" group:"limits" placeholder:"N" help:"Digest nonces whose use is remembered; the oldest give way, and are stale."`
	// MaxInFlight bounds the unanswered requests to one node; above it: 503.
	MaxInFlight int `name:"max-in-flight" group:"limits" placeholder:"N" help:"Unanswered requests to one node; above it 503."`
	// MaxUsers bounds the users of whom this node holds something; above it a new one
	// is refused: 503.
	MaxUsers int `name:"max-users" group:"limits" placeholder:"N" help:"Users of whom this node holds something, about; above it 503 to new ones."`
	// MaxParked bounds the requests that wait here for copies or completion; above it: 503.
	MaxParked int `name:"max-parked" group:"limits" placeholder:"N" help:"Requests that wait for copies or completion; above it 503."`
	// MaxBroadcasts bounds the users that all nodes are asked about at a time
	// (CONSISTENCY rule 11); above it: 503.
	MaxBroadcasts int `name:"max-broadcasts" group:"limits" placeholder:"N" help:"Users that all nodes are asked about at a time; above it 503."`
	// MaxHandlers bounds the handlers of added message types that run at a time.
	MaxHandlers int `name:"max-handlers" group:"limits" placeholder:"N" help:"Handlers of added message types at a time."`
	// MaxUnstored bounds the users whose failed writes are repeated; above it the node
	// says until it is restarted that its disk is behind.
	MaxUnstored int `name:"max-unstored" group:"limits" placeholder:"N" help:"Users whose failed writes are repeated; above it all nodes remember removals for longer."`
	// MaxWrites bounds the writes that wait for the disk; above it: 503 to what waits
	// for one, and what does not is written later.
	MaxWrites int `name:"max-writes" group:"limits" placeholder:"N" help:"Writes that wait for the disk; above it 503."`

	// MaxStored bounds the messages that this node keeps for users who are
	// offline, MaxStoredPerUser those of one user at all nodes, MaxStoredBytes the
	// body of one; above them the sender is told that the user is unavailable.
	MaxStored        int `name:"max-stored" group:"limits" placeholder:"N" help:"Messages kept at this node for users who are offline (--store-messages); above it 480."`
	MaxStoredPerUser int `name:"max-stored-per-user" group:"limits" placeholder:"N" help:"Messages kept for one user who is offline, at all nodes; above it 480."`
	MaxStoredBytes   int `name:"max-stored-bytes" group:"limits" placeholder:"BYTES" help:"Body of a message that is kept; above it 480."`
	// MaxWatchBacklog bounds the users of whom a watcher may have changes unread;
	// above it the watcher is given a list of all who are online instead.
	MaxWatchBacklog int `name:"max-watch-backlog" group:"limits" placeholder:"N" help:"Users of whom a watcher may have changes unread; above it a list of all takes their place."`

	// MaxPending bounds the requests without a final answer, ringing calls among
	// them; above it: 503.
	MaxPending int `name:"max-pending" group:"limits" placeholder:"N" help:"Requests without a final answer at a time; above it 503."`
	// SourceRate bounds the requests per second of one source, an IPv4 address
	// or an IPv6 /64; 0: any number. Above it: 503 to a few, then silence.
	SourceRate int `name:"source-rate" group:"limits" placeholder:"N" help:"Requests per second of one source address; above it 503, then silence; 0: any number."`
	// SourceBurst is how many requests a source may send at once.
	SourceBurst int `name:"source-burst" group:"limits" placeholder:"N" help:"Requests of one source address at once."`
	// SourceAnswers is how many requests of one source above the bound are
	// answered 503 in one second; others are dropped.
	SourceAnswers int `name:"source-answers" group:"limits" placeholder:"N" help:"Answers 503 to one source address per second."`
	// MaxSources bounds the sources that are remembered.
	MaxSources int `name:"max-sources" group:"limits" placeholder:"N" help:"Source addresses remembered; the quietest give way."`
	// MaxConnections bounds the SIP connections, both directions; one more is closed at once.
	MaxConnections int `name:"max-connections" group:"limits" placeholder:"N" help:"SIP connections at a time; one more is closed."`
	// MaxConnectionsPerSource bounds those that one address opened.
	MaxConnectionsPerSource int `name:"max-connections-per-source" group:"limits" placeholder:"N" help:"SIP connections of one address; one more is closed."`
	// MaxDatagram, MaxMessage and MaxBody are in bytes: a SIP message over UDP,
	// one over a connection, and the body of either; above them: 513.
	MaxDatagram int `name:"max-datagram" group:"limits" placeholder:"BYTES" help:"SIP message over UDP; above it 513."`
	MaxMessage  int `name:"max-message" group:"limits" placeholder:"BYTES" help:"SIP message over a connection; above it 513 and the end of the connection."`
	MaxBody     int `name:"max-body" group:"limits" placeholder:"BYTES" help:"Body of a SIP message; above it 513."`
	// MaxHeaders bounds the header values of a message (three Vias on one line
	// count three), MaxHeaderLine the bytes of one, MaxParams its parameters; above them: 400.
	MaxHeaders    int `name:"max-headers" group:"limits" placeholder:"N" help:"Header values of a SIP message; above it 400."`
	MaxHeaderLine int `name:"max-header-line" group:"limits" placeholder:"BYTES" help:"One header line; above it 400."`
	MaxParams     int `name:"max-params" group:"limits" placeholder:"N" help:"Parameters of one header value; above it 400."`

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

// DefaultConfig is a node that serves SIP on every address of the host and
// forms a cluster on loopback.
func DefaultConfig() Config {
	tr, tx, front, cl := transport.DefaultConfig(), transaction.DefaultConfig(), sipfront.DefaultConfig(), cluster.DefaultConfig()
	return Config{
		Data:           "hereis-data",
		Durability:     "sync",
		JournalSize:    store.DefaultJournalSize,
		SIP:            []string{"0.0.0.0:5060"},
		RingTimeout:    front.RingTimeout,
		Digest:         []string{"SHA-256", "SHA-512-256", "MD5"},
		NonceLife:      front.NonceLife,
		Profile:        "lan",
		ExpiresMin:     time.Minute,
		ExpiresMax:     2 * time.Hour,
		ExpiresDefault: time.Hour,
		MaxBindings:    10,
		BindingPolicy:  "reject",
		Path:           "lazy",

		PublishMin: time.Minute, PublishMax: 2 * time.Hour, PublishDefault: time.Hour,
		SubscribeMin: front.SubscribeMin, SubscribeMax: front.SubscribeMax, SubscribeDefault: front.SubscribeDefault,
		NotifyInterval:  front.NotifyInterval,
		MaxPublications: 8, MaxPublication: front.MaxPublication,
		MaxSubscriptions: front.MaxSubscriptions, MaxWatchers: front.MaxWatchers, MaxNotifies: front.MaxNotifies,
		MaxListMembers: front.MaxListMembers, MaxDialogs: front.MaxDialogs,

		MaxTransactions: tx.MaxTransactions,
		AnswerBytes:     tx.AnswerBytes,
		UDPBuffer:       tr.ReadBuffer,
		MaxFlows:        tr.MaxFlows,
		MaxBranches:     front.MaxBranches,
		MaxBreadth:      front.MaxBreadth,
		MaxRedirects:    front.MaxRedirects,
		MaxLookups:      front.MaxLookups,
		MaxNonces:       front.MaxNonces,
		MaxInFlight:     cl.MaxInFlight,
		MaxUsers:        cl.MaxUsers,
		MaxParked:       cl.MaxParked,
		MaxBroadcasts:   cl.MaxBroadcasts,
		MaxHandlers:     cl.MaxHandlers,
		MaxUnstored:     cl.MaxUnstored,
		MaxWrites:       store.DefaultQueue,
		MaxWatchBacklog: 65536,
		MessageTTL:      front.MessageTTL,
		MaxStored:       front.MaxStoredMessages, MaxStoredPerUser: actors.DefaultLimits().MaxMessages,
		MaxStoredBytes: front.MaxMessageSize,
		MaxPending:     tx.MaxPending,
		SourceRate:     tr.Sources.PerSecond, SourceBurst: tr.Sources.Burst, SourceAnswers: tr.Sources.Answers,
		MaxSources:     tr.Sources.Table,
		MaxConnections: tr.Streams.Connections, MaxConnectionsPerSource: tr.Streams.PerSource,
		MaxDatagram: tr.Limits.Datagram, MaxMessage: tr.Streams.Message, MaxBody: tr.Limits.Body,
		MaxHeaders: tr.Limits.Headers, MaxHeaderLine: tr.Limits.HeaderLine, MaxParams: tr.Limits.Params,
		Admin:       "127.0.0.1:8060",
		LogLevel:    "info",
		LogFormat:   "text",
		StopTimeout: 10 * time.Second,
	}
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
