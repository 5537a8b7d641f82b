package actors

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"hereis/messages"
)

var rewrite = flag.Bool("update", false, "rewrite the scripts with what happens")

// TestScripts runs the stories of testdata/register. A line "> command" is
// followed by what it says; "#" begins a comment. Commands:
//
//	register [at=EDGE] [call=ID] [cseq=N] [expires=S] [age=MS] [clock=MS] [flow=N] [bound] [stream] CONTACT...
//	advance DURATION
//	lookup | dump
//	fail EDGE | back EDGE [INCARNATION]     the edge leaves or comes to the view
//	set limit=N policy=P standin=B unsettled=B failed=B
//	other COMMAND                           at the second holder
//	copy                                    both holders merge what they have
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/register/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) { runScript(t, file) })
	}
}

func runScript(t *testing.T, file string) {
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	holders := [2]*replica{newReplica(DefaultLimits()), newReplica(DefaultLimits())}
	holders[1].id = 2000
	var got bytes.Buffer
	for lines := bufio.NewScanner(bytes.NewReader(want)); lines.Scan(); {
		line := lines.Text()
		if command, ok := strings.CutPrefix(line, "> "); ok {
			fmt.Fprintf(&got, "%s\n%s", line, runCommand(t, &holders, strings.Fields(command)))
		} else if line == "" || line[0] == '#' {
			fmt.Fprintln(&got, line)
		}
	}
	if bytes.Equal(got.Bytes(), want) {
		return
	}
	if *rewrite {
		if err := os.WriteFile(file, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Errorf("got:\n%s\nwant:\n%s", got.Bytes(), want)
}

func runCommand(t *testing.T, holders *[2]*replica, words []string) string {
	t.Helper()
	p, args := holders[0], words[1:]
	switch words[0] {
	case "other":
		return runCommand(t, &[2]*replica{holders[1], holders[0]}, args)
	case "register":
		return showAnswer(p.ask(scriptRequest(p, args)))
	case "advance":
		d, err := time.ParseDuration(args[0])
		if err != nil {
			t.Fatal(err)
		}
		p.advance(d)
		holders[1].now = p.now
	case "lookup":
		return showTargets(p.ask(&messages.Locate{Aor: testAoR}))
	case "dump":
		return showRecord(p)
	case "fail":
		p.dead[args[0]] = true
	case "back":
		delete(p.dead, args[0])
		if len(args) > 1 {
			p.inc[args[0]] = uint64(number(args[1]))
		}
	case "copy":
		p.copyFrom(holders[1])
		holders[1].copyFrom(p)
	case "set":
		setReplica(p, args)
	default:
		t.Fatalf("unknown command %q", words)
	}
	return ""
}

func scriptRequest(p *replica, args []string) *messages.Register {
	var contacts []string
	opts := map[string]string{"at": "n1", "call": "c", "cseq": "1", "flow": "1", "clock": "0", "age": "0", "inc": "1"}
	for _, arg := range args {
		name, value, ok := strings.Cut(arg, "=")
		if strings.HasPrefix(arg, "sip") || arg == "*" {
			contacts = append(contacts, arg)
		} else if ok {
			opts[name] = value
		} else {
			opts[arg] = "yes"
		}
	}
	r := request(p.now+number(opts["clock"]), opts["at"], opts["call"], uint32(number(opts["cseq"])), contacts...)
	r.Incarnation = uint64(number(opts["inc"]))
	r.Flow = &messages.FlowID{Incarnation: r.Incarnation, Counter: uint64(number(opts["flow"])), Stream: opts["stream"] != ""}
	bindFlow(r, opts["bound"] != "")
	r.AgeMs = number(opts["age"])
	if s, ok := opts["expires"]; ok {
		expires(r, uint32(number(s)))
	}
	return r
}

func number(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		panic(err)
	}
	return n
}

func setReplica(p *replica, args []string) {
	limits := p.user.cfg
	for _, arg := range args {
		name, value, _ := strings.Cut(arg, "=")
		switch name {
		case "limit":
			limits.MaxBindings = int(number(value))
		case "policy":
			limits.Policy = Policy(value)
		case "standin":
			p.standIn = value == "true"
		case "unsettled":
			p.unsettled = value == "true"
		case "failed":
			p.failedMember = value == "true"
		}
	}
	p.user = New(limits)
}

func showAnswer(a *Answer) string {
	res, ok := a.Reply.(*messages.Registered)
	if !ok {
		return "  " + showFailure(a) + "\n"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "  200 writes=%d", len(a.Writes.GetLeases()))
	if a.Writes.GetFloor() != nil {
		b.WriteString("+floor")
	}
	if a.All {
		b.WriteString(" all")
	}
	if len(a.Tell) > 0 {
		fmt.Fprintf(&b, " tell=%s", strings.Join(a.Tell, ","))
	}
	b.WriteByte('\n')
	for _, l := range res.Bindings {
		bind := decode(l)
		fmt.Fprintf(&b, "  %s expires=%d q=%d.%03d at %s\n", bind.Contact, (l.ExpiresMs-res.NowMs)/1000, bind.Q/1000, bind.Q%1000, l.Edge)
	}
	return b.String()
}

func showTargets(a *Answer) string {
	res, ok := a.Reply.(*messages.Located)
	if !ok {
		return fmt.Sprintf("  %s incomplete=%v\n", showFailure(a), a.Incomplete)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "  found final=%v\n", res.Final)
	for _, g := range res.Targets {
		fmt.Fprintf(&b, "  %s at %s live=%v\n", g.Contact, g.Edge, g.EdgeLive)
	}
	return b.String()
}

func showRecord(p *replica) string {
	var b strings.Builder
	for _, l := range sorted(p.rec).Leases {
		state := "expired"
		switch {
		case p.rec.Alive(l, p.now):
			state = "alive"
		case l.Dead:
			state = "removed"
		case l.ExpiresMs > p.now:
			state = "ended"
		}
		fmt.Fprintf(&b, "  %s %s at %s call=%s cseq=%d stamp=%s\n", l.Key, state, l.Edge, l.CallId, l.Cseq, showMS(l.Stamp.Ms))
	}
	if f := p.rec.Floor; f != nil {
		fmt.Fprintf(&b, "  floor at %s call=%s cseq=%d stamp=%s\n", f.Edge, f.CallId, f.Cseq, showMS(f.Stamp.Ms))
	}
	return b.String()
}
