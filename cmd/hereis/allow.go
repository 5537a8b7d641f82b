package main

import "hereis"

// allowCmd puts a rule in front of a rules file. It needs no running node: nodes
// that use the file notice by themselves.
type allowCmd struct {
	Presentity string `arg:"" placeholder:"USER@DOMAIN" help:"Who is watched: alice@example.com, @example.com for a whole domain, or *."`
	Watcher    string `arg:"" placeholder:"USER@DOMAIN" help:"Who watches, in the same way."`
	Verdict    string `name:"verdict" default:"allow" enum:"allow,confirm,polite-block,block" help:"What the watcher may: ${enum}."`
	Package    string `name:"package" placeholder:"EVENT" help:"Only for one event package; all but presence.winfo otherwise."`
	File       string `name:"file" required:"" placeholder:"FILE" env:"HEREIS_PRESENCE_RULES" help:"The rules file, as given to hereis node --presence-rules (${env}); made if it is missing."`
}

// Run edits the file.
func (c *allowCmd) Run() error {
	return hereis.PutPresenceRule(c.File, c.Presentity, c.Watcher, c.Package, c.Verdict)
}
