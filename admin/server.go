package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/net/netutil"
)

// Limits of the server.
const (
	maxBody        = 1 << 20
	maxHeader      = 16 << 10
	maxConns       = 512
	maxWatchers    = 64
	headerTimeout  = 5 * time.Second
	readTimeout    = 30 * time.Second
	idleTimeout    = 60 * time.Second
	writeTimeout   = 10 * time.Second
	handlerTimeout = 2 * time.Minute
	askTimeout     = 2 * time.Second
	maxAskTimeout  = 60 * time.Second
	stopTimeout    = 2 * time.Second
	watchHeartbeat = 15 * time.Second
)

// Config is what a Server is made from.
type Config struct {
	// Addr is the ip:port to listen on.
	Addr string
	// Pprof serves /debug/pprof/.
	Pprof bool
	// Collectors are served at /metrics besides the node's Stats.
	Collectors []prometheus.Collector
	// Heartbeat is the silence after which a watch stream carries a sign of
	// life; 0: 15 s.
	Heartbeat time.Duration
}

// Server is the API of one node.
type Server struct {
	cfg  Config
	node Node
	log  *slog.Logger
	// watchers has one token for each open stream, so that their number is bounded.
	watchers chan struct{}

	mu sync.Mutex
	ln net.Listener
}

// New makes a server; it does not listen yet.
func New(cfg Config, node Node, log *slog.Logger) (*Server, error) {
	if _, err := netip.ParseAddrPort(cfg.Addr); err != nil {
		return nil, fmt.Errorf("admin: %q is not IP:PORT", cfg.Addr)
	}
	if cfg.Heartbeat <= 0 {
		cfg.Heartbeat = watchHeartbeat
	}
	return &Server{cfg: cfg, node: node, log: log, watchers: make(chan struct{}, maxWatchers)}, nil
}

// Listen takes the port, so that a taken one is known before anything else
// starts. Run does it if it was not done.
func (s *Server) Listen(ctx context.Context) (net.Addr, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ln != nil {
		return s.ln.Addr(), nil
	}
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", s.cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("admin: %w", err)
	}
	if !isLoopback(ln.Addr()) {
		s.log.Warn("the admin API has no authentication and is not on loopback", "addr", ln.Addr().String())
	}
	s.ln = ln
	return ln.Addr(), nil
}

// Close frees the port if Run was never called; afterwards it does nothing.
func (s *Server) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ln == nil {
		return nil
	}
	if err := s.ln.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// Run serves until ctx ends, then ends the streams and waits for other
// requests for 2 s. It is called once.
func (s *Server) Run(ctx context.Context) error {
	if _, err := s.Listen(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	ln := s.ln
	s.mu.Unlock()
	// Requests outlive ctx by stopTimeout, but streams must not.
	srv := &http.Server{
		Handler:           s.Handler(isLoopback(ln.Addr())),
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	served := make(chan error, 1) // from the one goroutine below, closed by nobody, one value
	go func() { served <- srv.Serve(netutil.LimitListener(ln, maxConns)) }()
	select {
	case err := <-served:
		return fmt.Errorf("admin: %w", err)
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	err := srv.Shutdown(stop)
	if err != nil {
		// Shutdown ran out of time; what is still open is cut.
		err = srv.Close()
	}
	<-served
	return err
}

// Handler is the API itself. On loopback it refuses what a browser sends on
// behalf of a foreign page.
func (s *Server) Handler(loopback bool) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/where/{aor...}", s.where)
	mux.HandleFunc("GET /v1/watchers/{aor...}", s.listWatchers)
	mux.HandleFunc("GET /v1/members", s.members)
	mux.HandleFunc("POST /v1/send", s.send)
	mux.HandleFunc("GET /v1/watch", s.watch)
	mux.HandleFunc("GET /v1/drain", s.drainStatus)
	mux.HandleFunc("POST /v1/drain", s.drain)
	mux.HandleFunc("POST /v1/forget", s.forget)
	mux.HandleFunc("GET /v1/version", s.version)
	mux.HandleFunc("GET /v1/aors", s.listAoRs)
	mux.HandleFunc("GET /v1/count", s.countAoRs)
	mux.HandleFunc("GET /v1/aor/{aor...}", s.showAoR)
	mux.HandleFunc("DELETE /v1/aor/{aor...}", s.removeAoR)
	mux.HandleFunc("GET /healthz", s.healthz)
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.Handle("GET /metrics", metricsHandler(s.node, s.cfg.Collectors, s.log))
	if s.cfg.Pprof {
		mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeError(w, http.StatusNotFound, fmt.Sprintf("there is no %s %s", r.Method, r.URL.Path))
	})
	return guard(mux, loopback)
}

func isLoopback(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}
