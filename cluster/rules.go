package cluster

// rules leaves single rules of docs/consistency.md out. Tests alone set it, to
// show what each rule is for; in the zero value all are in force.
type rules struct {
	// HolderStamps (rule 1): the holder stamps a REGISTER when it executes it, however late.
	HolderStamps bool
	// CloseRemoves (rule 3): a closed flow is a removal with a new stamp.
	CloseRemoves bool
	// ReplyAtOnce (rule 5): a 200 waits for nobody.
	ReplyAtOnce bool
	// AnyAck (rule 10): an acknowledgement counts for whatever life, round, role and content.
	AnyAck bool
	// WaitForAbsent (rule 10): "done" and "droppable" wait for members that are gone, too.
	WaitForAbsent bool
	// OldLivesCount (rule 12): what an edge held in a former life is offered as it was.
	OldLivesCount bool
	// NoRelay (rules 11, 14): two members without a stream to each other do not talk by a third.
	NoRelay bool
	// AnyWakes (rule 16): a node that slept believes members that are not settled themselves.
	AnyWakes bool
	// SettledAtOnce (rule 14): a changed view needs nobody's word.
	SettledAtOnce bool
}
