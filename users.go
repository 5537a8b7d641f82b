package hereis

import (
	"context"
	"time"

	"hereis/sipfront/credentials"
)

// usersLook is how often the users file is looked at for changes.
const usersLook = 2 * time.Second

// openUsers reads the users file, and says plainly what protects the node.
func (n *Node) openUsers() (err error) {
	if n.cfg.SecretFile == "" && !n.cfg.sipOnLoopback() {
		n.log.Info("the secret of this node is its own, in its data folder; nodes that shall join it need the file as their secret-file")
	}
	if n.cfg.Users == "" {
		n.log.Info("digest is off: everybody may register and call; see --users")
		return nil
	}
	if n.users, err = credentials.Open(n.cfg.Users, n.log); err != nil {
		return fieldErr("users", "%v", err)
	}
	n.log.Info("digest is on", "users", n.users.Stats().Count)
	for _, d := range n.users.Domains() {
		if name, ok := n.domains.Canonical(d); !ok || name != d {
			n.log.Warn("the users file has users of a domain that is not served under this name", "domain", d)
		}
	}
	return nil
}

func (n *Node) watchUsers(ctx context.Context) error {
	tick := time.NewTicker(usersLook)
	defer tick.Stop()
	return n.users.Run(ctx, tick.C)
}

// UserEntry is one user of a users file.
type UserEntry = credentials.Listed

// Errors of AddUser, SetPassword and RemoveUser.
var (
	ErrUserExists = credentials.ErrExists
	ErrNoUser     = credentials.ErrNoUser
)

// AddUser writes a new user, as alice@example.com, into a users file, which it
// makes if it is missing, with mode 0600. Running nodes notice by themselves.
// Errors are ErrUserExists, or say what is wrong with name, password or file.
func AddUser(file, name, password string) error { return credentials.Add(file, name, password) }

// SetPassword changes the password of a user in a users file. Registrations
// that exist stay until they expire. Errors are those of AddUser, and ErrNoUser.
func SetPassword(file, name, password string) error {
	return credentials.SetPassword(file, name, password)
}

// RemoveUser takes a user out of a users file. Registrations that exist stay
// until they expire. The error is ErrNoUser, or what is wrong with the file.
func RemoveUser(file, name string) error { return credentials.Remove(file, name) }

// ListUsers reads the users of a file, sorted by name.
func ListUsers(file string) ([]UserEntry, error) { return credentials.List(file) }
