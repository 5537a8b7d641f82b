package sipfront

import "slices"

// redirect takes the Contacts of a 300, 301 or 302 into the target set, if this
// node does that (RFC 3261 16.7 step 4). It tells whether the answer is used up;
// what it could not take stays in r.
func (f *fork) redirect(r *reply) bool {
	if !f.s.cfg.Recurse || f.plan.way != wayUser || f.final || f.cancelled || f.sixth || r.status > 302 {
		return false
	}
	var left []string
	var devices []device
	for _, v := range r.fields("Contact") {
		for _, value := range splitValues(nil, v) {
			t, ok := f.redirected(value)
			cut := ok && f.redirects == f.s.cfg.MaxRedirects
			if cut {
				f.s.count.redirectsCut.Add(1)
			}
			if !ok || cut {
				left = append(left, value)
				continue
			}
			if !f.hasTried(t) {
				f.redirects++
				devices = append(devices, device{t})
			}
		}
	}
	f.add(devices)
	sortByQ(f.waiting)
	if len(left) > 0 {
		*r = r.withContacts(left)
	}
	return len(left) == 0
}

// redirected reads one Contact of a 3xx. A sips request goes on as sips alone,
// and no other is turned into one (RFC 5630 5.3).
func (f *fork) redirected(value string) (*target, bool) {
	c, err := parseContact(value)
	if err != nil {
		return nil, false
	}
	u, err := parseURI(c.Uri)
	if err != nil || (f.r.target.scheme == "sips") != (u.scheme == "sips") {
		return nil, false
	}
	hop, ok := f.s.mayRedirect(f.r, u)
	if !ok {
		return nil, false
	}
	return &target{key: targetKey{way: wayRedirected, contact: u.text}, uri: u, q: c.Q, via: viaURI, hop: hop}, true
}

// withContacts is the answer with these Contacts instead of its own.
func (r *reply) withContacts(values []string) reply {
	start, headers, body, err := splitMessage(string(r.raw))
	if err != nil {
		return *r
	}
	headers = slices.DeleteFunc(headers, func(h header) bool { return h.name == "Contact" })
	b := append(make([]byte, 0, len(r.raw)), start+"\r\n"...)
	for _, h := range headers {
		b = appendHeader(b, h.name, h.value)
	}
	for _, v := range values {
		b = appendHeader(b, "Contact", v)
	}
	return reply{status: r.status, raw: append(append(b, "\r\n"...), body...), by: r.by}
}
