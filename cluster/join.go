package cluster

import (
	"context"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"
)

// joinLoop dials whoever should be a member and is not: the addresses of the
// join list and every remembered member that failed, each with a back-off of
// its own, for as long as the node runs (rule 19). It has a goroutine of its
// own, because memberlist's Join waits for hosts that do not answer. It closes
// tried when all have been tried once.
func (g *Gossip) joinLoop(ctx context.Context, tried chan<- struct{}) {
	tick := time.NewTicker(joinTick)
	defer tick.Stop()
	waits := map[string]*joinWait{}
	for first := true; ; first = false {
		g.joinRound(ctx, waits)
		if first {
			close(tried)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// joinWait is the back-off of one name or address.
type joinWait struct {
	next  time.Time
	delay time.Duration
}

func (g *Gossip) joinRound(ctx context.Context, waits map[string]*joinWait) {
	g.mu.Lock()
	live, failed, left := g.ros.liveAddrs(), g.ros.failed(), g.left
	g.mu.Unlock()
	if left {
		return
	}
	live[g.self.String()] = true
	alone := len(live) == 1
	now := time.Now()
	addrs := map[string]string{} // to dial, with the entry of the join list that it is from
	for _, m := range failed {
		if m.Gossip != "" && !live[m.Gossip] && due(waits, m.Gossip, now) {
			addrs[m.Gossip] = ""
		}
	}
	for _, host := range g.cfg.Join {
		if !due(waits, host, now) {
			continue
		}
		found := g.resolve(ctx, host)
		g.reach.resolved(host, found, alone, now)
		for _, addr := range found {
			if live[addr] {
				g.reach.tried(host, addr, "", alone, now)
			} else {
				addrs[addr] = host
			}
		}
	}
	var wg sync.WaitGroup
	slots := make(chan struct{}, joinAtOnce) // taken before a dial, given back after it
	for addr, host := range addrs {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			wg.Wait()
			return
		}
		wg.Go(func() {
			defer func() { <-slots }()
			_, err := g.ml.Join([]string{addr})
			if err != nil {
				g.log.Debug("join", "addr", addr, "err", err)
			}
			if host != "" && ctx.Err() == nil {
				g.reach.tried(host, addr, whyNot(err, addr), alone, time.Now())
			}
		})
	}
	wg.Wait()
}

// due says whether it is time for target, and doubles its back-off.
func due(waits map[string]*joinWait, target string, now time.Time) bool {
	w := waits[target]
	if w == nil {
		w = &joinWait{delay: joinMin}
		waits[target] = w
	}
	if now.Before(w.next) {
		return false
	}
	w.next = now.Add(w.delay)
	w.delay = min(2*w.delay, joinMax)
	return true
}

// resolve gives every address of host[:port]; without a secret, loopback ones only.
func (g *Gossip) resolve(ctx context.Context, host string) []string {
	name, port := host, strconv.Itoa(g.cfg.Port)
	if h, p, err := net.SplitHostPort(host); err == nil {
		name, port = h, p
	}
	num, err := net.DefaultResolver.LookupPort(ctx, "udp", port)
	if err != nil {
		g.log.Warn("join address", "addr", host, "err", err)
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", name)
	if err != nil {
		g.log.Debug("join address", "addr", host, "err", err)
		return nil
	}
	var addrs []string
	for _, ip := range ips {
		ip = ip.Unmap()
		if (g.cfg.Keys == nil || !g.cfg.Keys.Secure) && !ip.IsLoopback() {
			g.log.Warn("join address refused", "addr", host, "err", ErrInsecure)
			continue
		}
		addrs = append(addrs, netip.AddrPortFrom(ip, uint16(num)).String())
	}
	return addrs
}
