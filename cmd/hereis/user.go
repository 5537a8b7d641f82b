package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"golang.org/x/sys/unix"

	"hereis"
)

// userCmd edits a users file. It needs no running node: nodes that use the
// file notice by themselves.
type userCmd struct {
	Add    userAddCmd    `cmd:"" help:"Add a user; the password is asked for, or read from stdin."`
	Passwd userPasswdCmd `cmd:"" help:"Change a user's password; it is asked for, or read from stdin."`
	Rm     userRmCmd     `cmd:"" help:"Remove a user."`
	List   userListCmd   `cmd:"" help:"List the users and the digest algorithms that they have."`
}

// usersFile is the flag of all of them.
type usersFile struct {
	File string `name:"file" required:"" placeholder:"FILE" env:"HEREIS_USERS" help:"The users file, as given to hereis node --users (${env})."`
}

type userName struct {
	Name string `arg:"" placeholder:"USER@DOMAIN" help:"The user, as alice@example.com."`
}

type userAddCmd struct {
	userName
	usersFile
}

// Run adds a user; a file that is missing is made.
func (c *userAddCmd) Run(a *app) error {
	password, err := a.password(c.Name)
	if err != nil {
		return err
	}
	return hereis.AddUser(c.File, c.Name, password)
}

type userPasswdCmd struct {
	userName
	usersFile
}

// Run changes a password.
func (c *userPasswdCmd) Run(a *app) error {
	password, err := a.password(c.Name)
	if err != nil {
		return err
	}
	return noUser(hereis.SetPassword(c.File, c.Name, password))
}

type userRmCmd struct {
	userName
	usersFile
}

// Run removes a user.
func (c *userRmCmd) Run() error { return noUser(hereis.RemoveUser(c.File, c.Name)) }

// noUser gives a missing user the exit code of what is not found.
func noUser(err error) error {
	if errors.Is(err, hereis.ErrNoUser) {
		return notFound("%w", err)
	}
	return err
}

type userListCmd struct{ usersFile }

// Run lists the users; no hash is shown.
func (c *userListCmd) Run(a *app) error {
	users, err := hereis.ListUsers(c.File)
	if err != nil {
		return err
	}
	if a.json {
		type entry struct {
			Name       string   `json:"name"`
			Algorithms []string `json:"algorithms"`
		}
		list := make([]entry, len(users))
		for i, u := range users {
			list[i] = entry(u)
		}
		return a.printJSON(map[string]any{"users": list})
	}
	tw := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "USER\tALGORITHMS")
	for _, u := range users {
		fmt.Fprintf(tw, "%s\t%s\n", u.Name, strings.Join(u.Algorithms, " "))
	}
	return tw.Flush()
}

// maxPassword bounds what is read as a password, in bytes.
const maxPassword = 1024

// password asks for one, twice and unseen, at a terminal, and otherwise reads
// the first line of stdin. It is never an argument, which all users of a host can see.
func (a *app) password(user string) (string, error) {
	tty, ok := a.stdin.(*os.File)
	if !ok || !isTerminal(tty) {
		return readPassword(a.stdin)
	}
	first, err := a.ask(tty, "Password of "+user+": ")
	if err != nil {
		return "", err
	}
	second, err := a.ask(tty, "The same again: ")
	if err != nil {
		return "", err
	}
	if first != second {
		return "", errors.New("the two passwords differ")
	}
	return first, nil
}

func readPassword(r io.Reader) (string, error) {
	line, err := bufio.NewReader(io.LimitReader(r, maxPassword)).ReadString('\n')
	if errors.Is(err, io.EOF) && line != "" {
		err = nil
	}
	if err != nil {
		return "", fmt.Errorf("password: %w", err)
	}
	return strings.TrimRight(line, "\r\n"), nil
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// ask reads a line from a terminal that shows nothing of it.
func (a *app) ask(tty *os.File, prompt string) (line string, err error) {
	fd := int(tty.Fd())
	shown, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return "", fmt.Errorf("terminal: %w", err)
	}
	hidden := *shown
	hidden.Lflag &^= unix.ECHO
	hidden.Lflag |= unix.ICANON | unix.ISIG | unix.ECHONL
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &hidden); err != nil {
		return "", fmt.Errorf("terminal: %w", err)
	}
	defer func() { err = errors.Join(err, unix.IoctlSetTermios(fd, unix.TCSETS, shown)) }()
	fmt.Fprint(a.stderr, prompt)
	// No more than a line may be taken: a second question may follow.
	var b [1]byte
	for {
		n, err := tty.Read(b[:])
		switch {
		case err != nil:
			return "", fmt.Errorf("password: %w", err)
		case n == 1 && b[0] == '\n':
			return strings.TrimRight(line, "\r"), nil
		case n == 1:
			line += string(b[:])
		}
		if len(line) > maxPassword {
			return "", errors.New("password: too long")
		}
	}
}
