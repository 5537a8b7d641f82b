package transaction

import (
	"os"
	"path/filepath"
	"testing"

	"hereis/sipfront/transport"
)

// Our own writers give what the message model's give.
func TestSerialiseAsTheModelDoes(t *testing.T) {
	files, err := filepath.Glob("../transport/testdata/torture*/*.dat")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	p := transport.NewParser(transport.DefaultLimits())
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		req, res, err := p.Parse(raw)
		switch {
		case err != nil:
		case req != nil:
			if got, want := string(appendRequest(nil, req)), req.String(); got != want {
				t.Errorf("%s: got\n%s\nwant\n%s", file, got, want)
			}
		default:
			if got, want := string(appendResponse(nil, res)), res.String(); got != want {
				t.Errorf("%s: got\n%s\nwant\n%s", file, got, want)
			}
		}
	}
}
