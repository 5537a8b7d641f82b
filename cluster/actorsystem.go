package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	pcluster "github.com/asynkron/protoactor-go/cluster"
	"github.com/asynkron/protoactor-go/remote"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
)

var (
	// ErrNotStarted is the answer of an actor system that does not run yet, or any more.
	ErrNotStarted = errors.New("actor system is not running")
	// ErrNoActivation is the answer when no node took the grain in time.
	ErrNoActivation = errors.New("no node has activated the grain in time")
)

const (
	// maxRemoteMessage bounds a batch that proto.actor's remote takes, in bytes.
	maxRemoteMessage = 16 << 20
	// never is an interval that no node lives to see the end of.
	never = 100 * 365 * 24 * time.Hour
	// stopTimeout is how long grains, and requests, may take to end.
	stopTimeout = time.Second
)

// ActorConfig says what runs on proto.actor, and where.
type ActorConfig struct {
	// Self has Name, Incarnation and Remote, the ip:port that others dial
	// (empty: the one listened on).
	Self Member
	// Listen is the ip:port to listen on.
	Listen string
	// Keys give mutual TLS; nil or insecure ones: plain, on loopback only.
	Keys *Keys
	// Kinds are the grains of this node and of every other.
	Kinds []*pcluster.Kind
	// Owner names the node that has the grain of an identity; empty if nobody
	// has. It is called from many goroutines.
	Owner func(identity string) string
}

// Actors is the proto.actor side of a node: grains by kind and identity,
// reached by proto.actor's own cluster.Request. Members come from SetMembers,
// placement from Owner; proto.actor decides neither. Questions about users do
// not come this way (rule 21): this is for grains that others write.
type Actors struct {
	cfg      ActorConfig
	log      *slog.Logger
	system   *actor.ActorSystem
	cluster  *pcluster.Cluster
	provider *memberProvider
	lookup   *ownerLookup
	guard    *remoteGuard
	requests atomic.Int64 // that wait in proto.actor
	losses   losses
	stopping chan struct{}
}

// NewActors checks and allocates; it does no IO.
func NewActors(cfg ActorConfig, log *slog.Logger) (*Actors, error) {
	host, portText, err := net.SplitHostPort(cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("actor system: Listen: %w", err)
	}
	port, err := strconv.Atoi(portText)
	if err != nil {
		return nil, fmt.Errorf("actor system: Listen: %w", err)
	}
	a := &Actors{cfg: cfg, log: log, guard: &remoteGuard{log: log}, stopping: make(chan struct{})}
	dial, serve, err := a.grpcOptions()
	if err != nil {
		return nil, fmt.Errorf("actor system: Listen %s: %w", cfg.Listen, err)
	}
	a.system = actor.NewActorSystem(
		actor.WithLoggerFactory(func(*actor.ActorSystem) *slog.Logger { return slog.New(modest{log.Handler()}) }),
		actor.WithDeadLetterRequestLogging(false))
	a.guard.system = a.system.ID
	options := []remote.ConfigOption{
		// The queues are allocated whole, per peer: the defaults are 16 MB each.
		remote.WithEndpointWriterQueueSize(1024), remote.WithEndpointManagerQueueSize(1024),
		remote.WithEndpointWriterBatchSize(256), remote.WithEndpointManagerBatchSize(256),
		remote.WithDialOptions(dial...), remote.WithServerOptions(serve...),
		remote.WithCallOptions(grpc.MaxCallRecvMsgSize(maxRemoteMessage)),
	}
	if cfg.Self.Remote != "" {
		options = append(options, remote.WithAdvertisedHost(cfg.Self.Remote))
	}
	conf := remote.Configure(host, port, options...)
	conf.MaxRetryCount = 1 // each takes two seconds, in which the writer does nothing else
	a.lookup = newOwnerLookup(cfg.Self.Name, cfg.Owner)
	a.provider = newMemberProvider(cfg.Self, a.lookup)
	pc := pcluster.Configure("hereis", a.provider, a.lookup, conf,
		pcluster.WithKinds(cfg.Kinds...), pcluster.WithRequestTimeout(requestTimeout),
		pcluster.WithHeartbeatExpiration(never))
	// Its gossip never speaks: members come from elsewhere, and each round would
	// open connections, and write the list of blocked members that others read.
	pc.GossipInterval = never
	a.cluster = pcluster.New(a.system, pc)
	a.system.EventStream.Subscribe(func(e any) {
		if _, ok := e.(*remote.EndpointTerminatedEvent); ok {
			a.losses.happened()
		}
	})
	return a, nil
}

func (a *Actors) grpcOptions() ([]grpc.DialOption, []grpc.ServerOption, error) {
	dialCreds, serveCreds := insecure.NewCredentials(), insecure.NewCredentials()
	if a.cfg.Keys != nil && a.cfg.Keys.Secure {
		conf, err := a.cfg.Keys.NodeTLS(a.cfg.Self.Name, "h2")
		if err != nil {
			return nil, nil, err
		}
		dialCreds, serveCreds = credentials.NewTLS(conf), credentials.NewTLS(conf)
	} else if err := loopbackOnly(a.cfg.Listen); err != nil {
		return nil, nil, err
	}
	dial := []grpc.DialOption{
		grpc.WithTransportCredentials(dialCreds),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 3 * time.Second, PermitWithoutStream: true}),
	}
	serve := []grpc.ServerOption{
		grpc.Creds(serveCreds), grpc.MaxRecvMsgSize(maxRemoteMessage),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 10 * time.Second, Timeout: 3 * time.Second}),
		grpc.StreamInterceptor(a.guard.stream), grpc.UnaryInterceptor(a.guard.unary),
	}
	return dial, serve, nil
}

// Run starts proto.actor, serves until ctx ends, and stops it. Members may be
// set before.
func (a *Actors) Run(ctx context.Context) error {
	started := make(chan error, 1) // StartMember's one result
	go func() { started <- guarded("start", a.cluster.StartMember) }()
	var err error
	running := false
	for !running && err == nil && ctx.Err() == nil {
		select {
		case <-a.provider.started:
			running = true
		case err = <-started:
			started <- err
			running = err == nil
		case <-ctx.Done():
		}
	}
	if err == nil {
		<-ctx.Done()
		// StartMember sleeps for a second before it returns.
		err = <-started
	}
	close(a.stopping)
	return errors.Join(err, a.stop())
}

// stop takes proto.actor down by its parts: its own Shutdown sleeps for two
// seconds and can hang for ten.
func (a *Actors) stop() error {
	steps := []struct {
		name string
		f    func()
	}{
		{"members", func() { a.provider.stop() }}, // ends the connections to them
		{"grains", a.lookup.Shutdown},
		{"requests", a.drainRequests},
		{"gossip", a.cluster.Gossip.Shutdown},
		{"system", a.system.Shutdown},
		{"remote", a.stopRemote},
	}
	var errs []error
	for _, s := range steps {
		errs = append(errs, guarded(s.name, s.f))
	}
	return errors.Join(errs...)
}

// stopRemote cuts the connections of peers off. That is all that is left to
// do: those to peers ended with the members. Its graceful stop waits ten seconds
// for peers to end theirs, and writes what others read.
func (a *Actors) stopRemote() {
	if a.cluster.Remote != nil && a.provider.ready() {
		a.cluster.Remote.Shutdown(false)
	}
}

// drainRequests waits for Requests that nobody waits for any more.
func (a *Actors) drainRequests() {
	for end := time.Now().Add(stopTimeout); a.requests.Load() > 0 && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
	}
}

// guarded calls f and makes an error of its panic.
func guarded(step string, f func()) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("actor system: %s: %v", step, r)
		}
	}()
	f()
	return nil
}

// SetMembers tells who the nodes are; all that are live have all kinds.
func (a *Actors) SetMembers(members []Member) { a.provider.setMembers(members) }

// Address is the ip:port that other nodes' actors reach this one by, once it runs.
func (a *Actors) Address() string { return a.system.Address() }

// Dropped counts messages of peers that were not understood and not delivered,
// and panics that they caused.
func (a *Actors) Dropped() (messages, panics uint64) {
	return a.guard.dropped.Load(), a.guard.panics.Load()
}

// modest lets proto.actor say what it calls a warning or an error, as a
// warning: it calls each retry of a connection an error.
type modest struct{ slog.Handler }

func (h modest) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelWarn && h.Handler.Enabled(ctx, slog.LevelWarn)
}

func (h modest) Handle(ctx context.Context, r slog.Record) error {
	r.Level = slog.LevelWarn
	return h.Handler.Handle(ctx, r)
}

func (h modest) WithAttrs(as []slog.Attr) slog.Handler { return modest{h.Handler.WithAttrs(as)} }
func (h modest) WithGroup(name string) slog.Handler    { return modest{h.Handler.WithGroup(name)} }
