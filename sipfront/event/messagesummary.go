package event

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

const typeMessageSummary = "application/simple-message-summary"

// MessageSummary is the package "message-summary" (RFC 3842): what waits in a
// user's mailboxes, as voice mail servers publish it.
type MessageSummary struct{}

var _ Package = MessageSummary{}

// Uniform: a summary is a summary.
func (MessageSummary) Uniform() {}

// Name is "message-summary".
func (MessageSummary) Name() string { return "message-summary" }

// NotifyTypes is the one of RFC 3842 3.5.
func (MessageSummary) NotifyTypes() []string { return []string{typeMessageSummary} }

// PublishTypes is the same.
func (MessageSummary) PublishTypes() []string { return []string{typeMessageSummary} }

// Check tells whether a body is a message summary.
func (MessageSummary) Check(mediaType string, body []byte) error {
	if mediaType != typeMessageSummary {
		return ErrMediaType
	}
	_, err := parseSummary(body)
	return err
}

// Changed compares publications.
func (MessageSummary) Changed(told, now *State) bool {
	return !samePublications(told.Publications, now.Publications)
}

// Compose adds up what all mailboxes have. Nothing published is nothing waiting.
func (MessageSummary) Compose(c *Composition) (Document, error) {
	sum := summary{account: c.State.AoR}
	for i := range c.State.Publications {
		if s, err := parseSummary(c.State.Publications[i].Body); err == nil {
			sum.add(s)
		}
	}
	return Document{MediaType: typeMessageSummary, Body: sum.bytes()}, nil
}

// summary is one message summary (RFC 3842 5.2).
type summary struct {
	waiting bool
	account string
	classes []class
}

// class counts the messages of one media: new, old, and of these the urgent ones.
type class struct {
	name   string
	counts [4]uint64
	urgent bool
}

// messageClasses are the message-context-classes of RFC 3458, which RFC 3842 names.
var messageClasses = []string{"Voice-Message", "Video-Message", "Fax-Message", "Pager-Message",
	"Multimedia-Message", "Text-Message", "None"}

// parseSummary reads the summary; what follows an empty line tells of single
// messages and is not passed on.
func parseSummary(body []byte) (*summary, error) {
	if len(body) > maxDocument {
		return nil, fmt.Errorf("%w: %d bytes, %d are allowed", ErrDocument, len(body), maxDocument)
	}
	s, status := &summary{}, false
	for line := range bytes.SplitSeq(body, []byte("\n")) {
		line = bytes.TrimRight(line, "\r")
		if len(bytes.TrimSpace(line)) == 0 {
			break
		}
		name, value, ok := strings.Cut(string(line), ":")
		if !ok {
			return nil, fmt.Errorf("%w: line without a colon", ErrDocument)
		}
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		switch {
		case strings.EqualFold(name, "Messages-Waiting"):
			if !strings.EqualFold(value, "yes") && !strings.EqualFold(value, "no") {
				return nil, fmt.Errorf("%w: Messages-Waiting is yes or no", ErrDocument)
			}
			s.waiting, status = strings.EqualFold(value, "yes"), true
		case strings.EqualFold(name, "Message-Account"):
			s.account = value
		default:
			c, err := parseClass(name, value)
			if err != nil {
				return nil, err
			}
			s.classes = append(s.classes, c)
		}
	}
	if !status {
		return nil, fmt.Errorf("%w: no Messages-Waiting", ErrDocument)
	}
	return s, nil
}

// parseClass reads "new/old (new urgent/old urgent)".
func parseClass(name, value string) (class, error) {
	i := slices.IndexFunc(messageClasses, func(n string) bool { return strings.EqualFold(n, name) })
	if i < 0 {
		return class{}, fmt.Errorf("%w: message class %q", ErrDocument, name)
	}
	c := class{name: messageClasses[i]}
	plain, urgent, ok := strings.Cut(value, "(")
	if err := c.pair(0, plain); err != nil {
		return class{}, err
	}
	if ok {
		c.urgent = true
		urgent, ok = strings.CutSuffix(strings.TrimSpace(urgent), ")")
		if !ok {
			return class{}, fmt.Errorf("%w: urgent messages without )", ErrDocument)
		}
		if err := c.pair(2, urgent); err != nil {
			return class{}, err
		}
	}
	return c, nil
}

func (c *class) pair(at int, s string) error {
	a, b, ok := strings.Cut(s, "/")
	for i, n := range []string{a, b} {
		v, err := strconv.ParseUint(strings.TrimSpace(n), 10, 32)
		if err != nil || !ok {
			return fmt.Errorf("%w: counts of messages %q", ErrDocument, s)
		}
		c.counts[at+i] = v
	}
	return nil
}

// add joins another mailbox to this one.
func (s *summary) add(o *summary) {
	s.waiting = s.waiting || o.waiting
	if o.account != "" {
		s.account = o.account
	}
	for _, c := range o.classes {
		i := slices.IndexFunc(s.classes, func(have class) bool { return have.name == c.name })
		if i < 0 {
			s.classes = append(s.classes, c)
			continue
		}
		for k := range c.counts {
			s.classes[i].counts[k] += c.counts[k]
		}
		s.classes[i].urgent = s.classes[i].urgent || c.urgent
	}
}

func (s *summary) bytes() []byte {
	var b bytes.Buffer
	waiting := "no"
	if s.waiting {
		waiting = "yes"
	}
	fmt.Fprintf(&b, "Messages-Waiting: %s\r\nMessage-Account: %s\r\n", waiting, s.account)
	slices.SortFunc(s.classes, func(a, b class) int {
		return slices.Index(messageClasses, a.name) - slices.Index(messageClasses, b.name)
	})
	for _, c := range s.classes {
		fmt.Fprintf(&b, "%s: %d/%d", c.name, c.counts[0], c.counts[1])
		if c.urgent {
			fmt.Fprintf(&b, " (%d/%d)", c.counts[2], c.counts[3])
		}
		b.WriteString("\r\n")
	}
	return b.Bytes()
}
