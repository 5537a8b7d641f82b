package sipfront

import "pgregory.net/rapid"

// edited is a text in which up to most bytes are changed, left out or put in, at random.
func edited(rt *rapid.T, text string, most int) string {
	raw := []byte(text)
	for range rapid.IntRange(1, most).Draw(rt, "edits") {
		at := rapid.IntRange(0, len(raw)-1).Draw(rt, "at")
		c := rapid.SampledFrom([]byte("ab019;:=<>@\"., \r\n-lvVC%[]?+*/~\t\\_")).Draw(rt, "byte")
		switch rapid.IntRange(0, 2).Draw(rt, "how") {
		case 0:
			raw[at] = c
		case 1:
			raw = append(raw[:at], raw[at+1:]...)
		default:
			raw = append(raw[:at], append([]byte{c}, raw[at:]...)...)
		}
	}
	return string(raw)
}
