package sipfront

import "testing"

func TestRFC3261_20_17_DateOfEachSecond(t *testing.T) {
	var d dateText
	for _, c := range []struct {
		ms   int64
		want string
	}{
		{0, "Thu, 01 Jan 1970 00:00:00 GMT"},
		{999, "Thu, 01 Jan 1970 00:00:00 GMT"},
		{1_289_663_309_000, "Sat, 13 Nov 2010 15:48:29 GMT"},
		{1_289_663_309_999, "Sat, 13 Nov 2010 15:48:29 GMT"},
		{1_289_663_310_000, "Sat, 13 Nov 2010 15:48:30 GMT"},
		{1_289_663_309_000, "Sat, 13 Nov 2010 15:48:29 GMT"},
	} {
		if got := d.at(c.ms); got != c.want {
			t.Errorf("%d: got %q, want %q", c.ms, got, c.want)
		}
	}
}
