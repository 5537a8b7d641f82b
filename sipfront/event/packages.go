package event

// Packages are the event packages that a node serves unless it is told
// otherwise: presence, its watchers, registrations, dialogs and mailboxes.
func Packages() []Package {
	return []Package{Presence{}, Winfo{Of: "presence"}, Reg{}, DialogInfo{}, MessageSummary{}}
}
