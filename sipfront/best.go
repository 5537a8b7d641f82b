package sipfront

// best gathers the final answers other than 2xx.
type best struct {
	replies []reply
	// flowGone: a branch ended as 430; silent: one never answered.
	flowGone, silent bool
	// insecure: a device was left out that has no secure flow.
	insecure bool
}

func (b *best) add(r reply) { b.replies = append(b.replies, r) }

func (b *best) sixth() bool {
	r, _ := b.choose(true)
	return r != nil && r.status >= 600
}

// choose is RFC 3261 16.7 step 6: a 6xx if there is one, else the lowest
// class, in it what says most about how to go on. A silent branch of an INVITE
// counts as a 408.
func (b *best) choose(invite bool) (r *reply, status int) {
	for i := range b.replies {
		if c := &b.replies[i]; r == nil || rank(c.status) < rank(r.status) {
			r = c
		}
	}
	if r == nil {
		return nil, 0
	}
	if b.silent && invite && r.status >= 500 && r.status < 600 {
		// The silent branch's 408 is of a lower class.
		return nil, 0
	}
	return r, r.status
}

func rank(status int) int {
	switch {
	case status >= 600:
		return 0
	case status < 400:
		return 1000
	case status >= 500 && status != 503:
		return 5000
	case status == 503:
		return 6000
	}
	switch status {
	case 401, 407:
		return 4000
	case 415, 420, 484:
		return 4001
	case 408, 480, 487, 404:
		return 4003
	}
	return 4002
}

// challenges are those of all other 401s and 407s, for a 401 or 407 that is
// sent (RFC 3261 16.7 step 7).
func (b *best) challenges(chosen *reply) (hs []header) {
	if chosen.status != 401 && chosen.status != 407 {
		return nil
	}
	for i := range b.replies {
		c := &b.replies[i]
		if c == chosen || c.status != 401 && c.status != 407 {
			continue
		}
		for _, name := range []string{"WWW-Authenticate", "Proxy-Authenticate"} {
			for _, v := range c.fields(name) {
				hs = append(hs, header{name, v})
			}
		}
	}
	return hs
}
