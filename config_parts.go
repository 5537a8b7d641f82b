package hereis

import (
	"math/rand/v2"
	"path/filepath"

	"hereis/actors"
	"hereis/cluster"
	"hereis/sipfront"
	"hereis/sipfront/credentials"
	"hereis/sipfront/resolve"
	"hereis/sipfront/transaction"
	"hereis/sipfront/transport"
)

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

// keys derives the cluster's keys from the secret. Without one, a node whose
// SIP is on loopback has those that everybody knows, so that nodes on one host
// meet without further ado. A node that others reach makes a secret of its own
// in its data folder, which is there by now: routes, tokens and nonces of before
// a restart are good after it, and nobody can make them up.
func (c *Config) keys() (*cluster.Keys, error) {
	switch {
	case c.SecretFile != "":
		return cluster.LoadKeys(c.SecretFile)
	case c.sipOnLoopback():
		return cluster.InsecureKeys("hereis")
	}
	own := filepath.Join(c.Data, ownSecret)
	if err := cluster.MakeSecret(own); err != nil {
		return nil, err
	}
	return cluster.LoadKeys(own)
}

// ownSecret is the file of a node's own secret in its data folder.
const ownSecret = "secret"

// MakeSecret writes a random secret for Config.SecretFile into a file that its
// owner alone may read. A file that is there already stays as it is.
func MakeSecret(file string) error { return cluster.MakeSecret(file) }

// limits are the registrar's.
func (c *Config) limits() actors.Limits {
	l := actors.DefaultLimits()
	l.DefaultExpires, l.MinExpires, l.MaxExpires = c.ExpiresDefault, c.ExpiresMin, c.ExpiresMax
	l.Jitter = float64(c.ExpiresJitter) / 100
	l.MaxMessages, l.MessageTTL = c.MaxStoredPerUser, c.MessageTTL
	l.MaxBindings, l.Policy = c.MaxBindings, actors.Policy(c.BindingPolicy)
	l.DefaultPublish, l.MinPublish, l.MaxPublish = c.PublishDefault, c.PublishMin, c.PublishMax
	l.MaxPublications, l.MaxSubscribe = c.MaxPublications, c.SubscribeMax
	return l
}

// transport has the limits of the sockets; addresses are added by the node.
func (c *Config) transport() transport.Config {
	tc := transport.DefaultConfig()
	tc.MaxFlows, tc.ReadBuffer = c.MaxFlows, c.UDPBuffer
	tc.Sources.PerSecond, tc.Sources.Burst = c.SourceRate, c.SourceBurst
	tc.Sources.Table, tc.Sources.Answers = c.MaxSources, c.SourceAnswers
	tc.Streams.Connections, tc.Streams.PerSource = c.MaxConnections, c.MaxConnectionsPerSource
	tc.Streams.Message = c.MaxMessage
	tc.Streams.Queue = max(tc.Streams.Queue, 4*c.MaxMessage)
	tc.Limits.Datagram, tc.Limits.Body = c.MaxDatagram, c.MaxBody
	tc.Limits.Headers, tc.Limits.HeaderLine, tc.Limits.Params = c.MaxHeaders, c.MaxHeaderLine, c.MaxParams
	return tc
}

// transaction is that of the transaction layer.
func (c *Config) transaction() transaction.Config {
	tc := transaction.DefaultConfig()
	tc.Carry, tc.Passable = sipfront.MarkHeader, sipfront.IsNodeBranch
	tc.MaxTransactions, tc.AnswerBytes, tc.MaxPending = c.MaxTransactions, c.AnswerBytes, c.MaxPending
	tc.Seed = rand.Uint64()
	return tc
}

// front has the limits of the SIP core and who may call; domains and addresses
// are added by the node.
func (c *Config) front() (fc sipfront.Config, err error) {
	fc = sipfront.DefaultConfig()
	fc.MaxBranches, fc.MaxLookups, fc.MaxBreadth = c.MaxBranches, c.MaxLookups, c.MaxBreadth
	fc.StrictPath = c.Path == "strict"
	fc.Recurse, fc.MaxRedirects, fc.RingTimeout = c.FollowRedirects, c.MaxRedirects, c.RingTimeout
	fc.RecordRoute = c.RecordRoute
	fc.MessageTTL, fc.MaxStoredMessages, fc.MaxMessageSize = c.MessageTTL, c.MaxStored, c.MaxStoredBytes
	fc.NonceLife, fc.MaxNonces = c.NonceLife, c.MaxNonces
	fc.SubscribeMin, fc.SubscribeMax, fc.SubscribeDefault = c.SubscribeMin, c.SubscribeMax, c.SubscribeDefault
	fc.MaxPublication, fc.MaxSubscriptions, fc.MaxWatchers = c.MaxPublication, c.MaxSubscriptions, c.MaxWatchers
	fc.MaxNotifies, fc.NotifyInterval, fc.MaxListMembers = c.MaxNotifies, c.NotifyInterval, c.MaxListMembers
	fc.DialogEvents, fc.MaxDialogs = c.DialogEvents, c.MaxDialogs
	if fc.Digest, err = credentials.ParseAlgorithms(c.Digest); err != nil {
		return fc, fieldErr("digest", "%v", err)
	}
	for _, s := range c.Trunks {
		t, err := sipfront.ParseTrunk(s)
		if err != nil {
			return fc, fieldErr("trunk", "%v", err)
		}
		fc.Trunks = append(fc.Trunks, t)
	}
	for _, s := range c.Relays {
		r, err := sipfront.ParseRelay(s)
		if err != nil {
			return fc, fieldErr("relay", "%v", err)
		}
		fc.Relays = append(fc.Relays, r)
	}
	return fc, nil
}

// resolve is that of names in SIP; the transports are added by the node.
func (c *Config) resolve() resolve.Config {
	rc := resolve.DefaultConfig()
	rc.Transports, rc.Servers = nil, c.DNS
	return rc
}

// cluster has the limits of the cluster part; who the node is is added by it.
func (c *Config) cluster() cluster.Config {
	cc := cluster.DefaultConfig()
	cc.Region, cc.Zone = c.Region, c.Zone
	cc.MaxInFlight, cc.MaxParked, cc.MaxUsers, cc.MaxUnstored = c.MaxInFlight, c.MaxParked, c.MaxUsers, c.MaxUnstored
	cc.MaxBroadcasts, cc.MaxHandlers = c.MaxBroadcasts, c.MaxHandlers
	// CONSISTENCY rule 4.
	cc.MaxDead = 4 * c.MaxBindings
	return cc
}
